"""Latency, size, accuracy and parity of every runtime, measured side by side.

Method: all runtimes live in one process (LCE in its worker, timed inside it), run the same
images at batch 1, and take turns: each round times every runtime for a few milliseconds, in a
new random order, so that a slow spell of the machine falls on all of them. Compare the medians
as ratios; absolute times belong to the machine named under ``conditions``.
"""

from __future__ import annotations

import json
import os
import platform
import resource
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm
import numpy as np
from numpy.typing import NDArray

from export.parity import ParityReport, compare
from export.runtimes import Images, Runtime, Timed
from kernels.program import Program
from pipeline import data
from pipeline.errors import UserError
from pipeline.machine import cpu_model

PICTURES = 2000
"""Pictures on disk that are compared at most (sets in memory are compared whole)."""
WARM_UP_RUNS = 20
SLOT_MS = 10.0
MAX_REPEATS = 200
FEATURES = ("avx2", "avx512bw", "avx512vpopcntdq", "avx512bitalg", "avx512vnni", "neon", "dotprod")
PACKAGES = ("numpy", "numba", "llvmlite", "onnxruntime", "torch", "onnx")
Progress = Callable[[Iterable[int]], Iterable[int]]


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one batch-1 run: minimum, median, 90th and 99th percentile, count."""

    min: float
    median: float
    p90: float
    p99: float
    n: int


@dataclass(frozen=True)
class Row:
    """One runtime in the table and in bench.json; accuracy in percent, None if not measured."""

    name: str
    kernel: str
    latency_ms: Latency
    accuracy: float | None
    size_bytes: int


def summarise(times: NDArray[np.float64]) -> Latency:
    """Statistics of ``times`` (milliseconds)."""
    low, median, p90, p99 = np.percentile(times, [0, 50, 90, 99])
    return Latency(float(low), float(median), float(p90), float(p99), len(times))


def measure(
    runtimes: Sequence[Timed], images: Images, rounds: int, seed: int, progress: Progress = iter
) -> list[Latency]:
    """Time every runtime on single images, interleaved.

    Args:
        runtimes: what to time.
        images: uint8 ``[N, H, W, C]``; each round uses the next image.
        rounds: number of rounds; a round times each runtime for about ``SLOT_MS``.
        seed: of the order within a round.
        progress: wraps the iterable of rounds.

    Returns:
        Statistics in the order of ``runtimes``.
    """
    repeats = []
    for runtime in runtimes:
        typical = float(np.median(runtime.latency(images[:1], WARM_UP_RUNS)))
        repeats.append(int(np.clip(SLOT_MS / max(typical, 1e-3), 1, MAX_REPEATS)))
    rng = np.random.default_rng(seed)
    times: list[list[NDArray[np.float64]]] = [[] for _ in runtimes]
    for turn in progress(range(rounds)):
        image = images[turn % len(images)][None]
        for index in rng.permutation(len(runtimes)):
            times[index].append(runtimes[index].latency(image, repeats[index]))
    return [summarise(np.concatenate(each)) for each in times]


def sizes(runtimes: Sequence[Timed], model: Path) -> list[int]:
    """Bytes of what each runtime loads: its file, or its parameters where it has no file."""
    return [int(getattr(runtime, "size_bytes", 0)) or model.stat().st_size for runtime in runtimes]


def _cpu_features() -> list[str]:
    """What matters to our kernels among the features that LLVM sees."""
    host = llvm.get_host_cpu_features()
    return [name for name in FEATURES if host.get(name)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def conditions(rounds: int, threads: int, seed: int) -> dict[str, Any]:
    """Where and how a benchmark ran."""
    versions = {name: _version(name) for name in ("frostbit", *PACKAGES)}
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "cpu": cpu_model(),
        "cpu_features": _cpu_features(),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {name: version for name, version in versions.items() if version},
        "threads": threads,
        "batch": 1,
        "rounds": rounds,
        "seed": seed,
        "warm_up_runs": WARM_UP_RUNS,
        "load_average": round(os.getloadavg()[0], 2),
        "peak_rss_mib": round(peak_kib / 1024, 1),
    }


@dataclass(frozen=True)
class Bench:
    """Everything one benchmark found; :meth:`to_json` is what ``bench.json`` holds."""

    rows: tuple[Row, ...]
    parity: ParityReport | None
    dataset: str
    conditions: dict[str, Any]
    profile: dict[str, Any] | None = None

    def to_json(self) -> str:
        parity = None
        if self.parity is not None:
            parity = {
                **self.parity.total,
                "passed": self.parity.passed,
                "exact": self.parity.promised,
                "head_exact": self.parity.head_exact,
                "runtimes": [asdict(each) for each in self.parity.comparisons],
            }
        document: dict[str, Any] = {
            "runtimes": [asdict(row) for row in self.rows],
            "parity": parity,
            "dataset": self.dataset,
            "conditions": self.conditions,
        }
        if self.profile is not None:
            document["profile"] = self.profile
        return json.dumps(document, indent=2) + "\n"


@dataclass(frozen=True)
class Inputs:
    """Images to run: the data set's test split with labels, or random ones and why.

    Attributes:
        images: uint8 ``[N, H, W, C]``.
        labels: int64 ``[N]``, or None for random images.
        dataset: name of the data set ("" for random images).
        remedy: for random images, why the data set is not used and what to do.
    """

    images: Images
    labels: NDArray[np.int64] | None
    dataset: str
    remedy: str = ""


def random_images(program: Program, seed: int, count: int = 64) -> Images:
    """Seeded random images uint8 ``[count, H, W, C]`` of the program's input shape."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *program.input_shape), dtype=np.uint8)


def inputs_for(program: Program, data_dir: Path | None, seed: int) -> Inputs:
    """The test split of the data set that ``program`` was trained on, else random images."""
    remedy = "the model names no data set"
    if program.dataset:
        try:
            photographs = data.Photographs(program.input_shape[0])
            test = data.load(program.dataset, data_dir, photographs=photographs).test
        except UserError as error:
            remedy = str(error)
        else:
            if test.image_shape == program.input_shape:
                count = len(test) if isinstance(test, data.Split) else min(len(test), PICTURES)
                return Inputs(test.take(range(count)), test.labels[:count], program.dataset)
            remedy = f"the images of {program.dataset} do not fit the model's {program.input_shape}"
    return Inputs(random_images(program, seed), None, "", remedy)


def run(
    program: Program,
    model: Path,
    runtimes: Sequence[Timed],
    inputs: Inputs,
    *,
    rounds: int,
    threads: int,
    seed: int,
    progress: Callable[[str], Progress],
) -> Bench:
    """Check parity over the whole test set, then time every runtime.

    Runtimes without ``logits`` (full-precision twins) are timed only.

    Raises:
        ParityError: if the comparison is void (constant outputs).
    """
    comparable = [runtime for runtime in runtimes if isinstance(runtime, Runtime)]
    report = None
    if comparable:
        report = compare(
            program, comparable, inputs.images, inputs.labels, progress=progress("parity")
        )
    correct = {} if report is None else {c.name: c.correct for c in report.comparisons}
    latencies = measure(runtimes, inputs.images, rounds, seed, progress("timing"))
    rows = []
    for runtime, latency, size in zip(runtimes, latencies, sizes(runtimes, model), strict=True):
        right = correct.get(runtime.name)
        accuracy = None if right is None else 100 * right / len(inputs.images)
        kernel = runtime.name.partition(":")[2]
        rows.append(Row(runtime.name, kernel, latency, accuracy, size))
    return Bench(tuple(rows), report, inputs.dataset, conditions(rounds, threads, seed))
