"""One network of the list read, compared with its source, run and timed: a row of the record."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from frostbit.export import parity
from frostbit.export.errors import SourceDiffers
from frostbit.export.foreign import compare_file, read_file
from frostbit.export.lce.runtime import LceRuntime
from frostbit.export.lce.worker import KERNELS
from frostbit.export.reading.compare import ANSWERS_TOLERANCE
from frostbit.export.reading.imported import Imported
from frostbit.export.runtimes import EngineRuntime, Timed
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.file import dumps
from frostbit.kernels.ir.program import FormatError, Program
from frostbit.kernels.profile import profile
from frostbit.pipeline.bench import timing
from tests.zoo.networks import Network

F32 = NDArray[np.float32]
PROFILED = 10
"""Rounds of the profile."""
Row: TypeAlias = dict[str, object]
Bars: TypeAlias = Callable[[str], timing.Progress]


@dataclass(frozen=True)
class Agreement:
    """Answers of two sides on the same images.

    Attributes:
        images: how many.
        within: of those, images whose answers differ by at most :data:`ANSWERS_TOLERANCE`.
        largest: difference of all, as a share of the answers' spread in one image.
    """

    images: int
    within: int
    largest: float


def agreement(ours: F32, theirs: F32) -> Agreement:
    """Of answers ``[N, classes]``."""
    spread = np.maximum(np.ptp(theirs, axis=1), np.finfo(np.float32).tiny)
    shares = np.abs(ours.astype(np.float64) - theirs).max(axis=1) / spread
    return Agreement(len(ours), int((shares <= ANSWERS_TOLERANCE).sum()), float(shares.max()))


def given(network: Network, files: Path) -> dict[str, F32]:
    """What the maker wrote beside the file; inputs as ``[N, H, W, C]``."""
    with np.load(files / f"{network.name}.npz") as arrays:
        found = {name: arrays[name] for name in arrays.files}
    if network.maker == "brevitas":
        found["input"] = np.ascontiguousarray(found["input"].transpose(0, 2, 3, 1))
    return found


def row(network: Network, files: Path, rounds: int, bars: Bars) -> Row:
    """Read, compare, run and time one network; 0 ``rounds`` time nothing.

    A file that cannot be read gives a row with ``refused``, one whose values differ from the
    source's a row with ``differs``, one that the engine cannot run a row with ``engine_refuses``;
    each holds the message.
    """
    path = files / network.file
    found: Row = {"network": network.name, "maker": network.maker, "bytes": path.stat().st_size}
    start = time.perf_counter()
    try:
        imported = read_file(path)
    except FormatError as error:
        return {**found, "refused": str(error).replace(str(path), path.name)}
    found["seconds_to_read"] = round(time.perf_counter() - start, 3)
    found["model_bytes"] = len(dumps(imported.program))
    found["layers_restored"] = len(imported.restored)
    arrays = given(network, files)
    try:
        progress = bars(f"{network.name}: comparing")
        compared = compare_file(path, imported, arrays["input"], progress=progress)
    except SourceDiffers as error:
        return {**found, "differs": str(error)}
    found["compared"] = asdict(compared)
    own = arrays["torch" if network.maker == "brevitas" else "keras"]
    ours = reference.run(imported.program, arrays["input"])
    found["answers_of_the_maker"] = asdict(agreement(ours, own))
    if path.suffix == ".tflite":
        found["exported_again_in_lce"] = asdict(_exported_again(imported, arrays))
    try:
        engine = EngineRuntime(imported.program)
    except FormatError as error:
        return {**found, "engine_refuses": str(error)}
    report = parity.compare(imported.program, [engine], arrays["input"])
    found["engine"] = {"passed": report.passed, **asdict(report.comparisons[0])}
    if rounds:
        progress = bars(f"{network.name}: timing")
        found.update(_timed(imported, path, arrays["input"], rounds, progress))
        found["shares_of_time"] = _shares(imported.program, arrays["input"][0])
    return found


def _exported_again(imported: Imported, arrays: dict[str, F32]) -> Agreement:
    """Answers of LCE for our own .tflite file of the Program, and for the file that was read."""
    with closing(LceRuntime(imported.program)) as again:
        return agreement(again.logits(arrays["input"]), arrays["output"])


def _shares(program: Program, image: F32) -> dict[str, float]:
    """Of the engine's time for one image, by kind of op, the largest first."""
    spent: Counter[str] = Counter()
    for step in profile(Engine(program), image, PROFILED)[0]:
        spent[step.op] += step.seconds
    return {op: round(seconds / spent.total(), 3) for op, seconds in spent.most_common()}


def _statistics(latency: timing.Latency) -> dict[str, float]:
    """Of all runs; without the single rounds, of which the ratio has been taken."""
    found = asdict(latency)
    found["rounds"] = len(found["rounds"])
    return {name: round(value, 4) for name, value in found.items()}


def _timed(
    imported: Imported, path: Path, images: F32, rounds: int, progress: timing.Progress
) -> Row:
    """Milliseconds of the engine and of every kernel of LCE, one thread, one image, interleaved."""
    runtimes: list[Timed] = [EngineRuntime(imported.program)]
    try:
        if path.suffix == ".tflite":
            data = path.read_bytes()
            runtimes += [LceRuntime(imported.program, kernel, data) for kernel in KERNELS]
        pairs = [(runtime, images) for runtime in runtimes]
        found = timing.measure(pairs, rounds, 0, progress=progress)
    finally:
        for runtime in runtimes:
            runtime.close()
    names = [runtime.name for runtime in runtimes]
    shown: Row = {"milliseconds": dict(zip(names, map(_statistics, found), strict=True))}
    if len(found) > 1:
        best = min(range(1, len(found)), key=lambda index: found[index].median)
        ratio = timing.paired_ratio(found[best], found[0])
        shown["engine_over_best"] = {"best": names[best], **asdict(ratio)}
    return shown
