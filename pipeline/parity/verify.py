"""verify: one model through every runtime and setting, every sign bit and logit compared."""

from __future__ import annotations

import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.table import Table

from frostbit.export.inputs import random_images
from frostbit.export.parity import Comparison, ParityReport, compare
from frostbit.export.runtimes import Images, Logits, Milliseconds, Runtime
from frostbit.kernels.ir import html
from frostbit.kernels.ir.bits import Words
from frostbit.kernels.ir.file import program_hash
from frostbit.kernels.ir.program import Program
from frostbit.kernels.machine import cpu
from frostbit.pipeline.console import Bars, Progress, silent
from frostbit.pipeline.data import datasets
from frostbit.pipeline.data.inputs import Inputs, Place, inputs_for
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.parity import runtimes
from frostbit.pipeline.parity.runtimes import Missing, Source

BY_FORMAT = {
    "bnn": ("reference", *(f"engine:{kernel}" for kernel in cpu.available())),
    "onnx": tuple(runtimes.ort_names("packed").values()),
    "onnx-int8": tuple(runtimes.ort_names("int8").values()),
    "onnx-float": tuple(runtimes.ort_names("float").values()),
    "qonnx": ("ort:qonnx",),
    "c": ("c",),
    "lce": ("lce:default", "lce:indirect", "lce:reference"),
    "torch": ("torch",),
}
BY_NAME = {"web": ("web",)}
"""What is compared only where it is asked for: it starts a browser."""
KNOWN = {**BY_FORMAT, **BY_NAME}
FILES = (*runtimes.ORT_FILES.values(), "model.tflite", "model.c", "model.html")
RANDOMS = 64
MAX_BATCH = 256
SMALL = 64 * 64
"""Pixels of an image up to which ``MAX_BATCH`` of them are run at a time."""
TORCH_BATCHES = (1, MAX_BATCH)
TORCH_THREADS = (1, 2)
"""torch is compared at every combination: sums must not depend on batch size or threads."""


@dataclass(frozen=True)
class Verified:
    """Result of :func:`verify`: the comparisons, what could not run here, and exports of others."""

    report: ParityReport
    missing: tuple[Missing, ...]
    images: int
    dataset: str
    strangers: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything that could run agrees with the reference."""
        return self.report.passed

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        head = ("runtime", "sign bits", "differing", "logits differ by", "top-1 agreement")
        rows = [
            (
                each.name,
                f"{each.sign_bits_compared:,}",
                f"{each.sign_bits_differing:,}",
                f"{each.logits_max_abs_diff:.2g}",
                f"{100 * each.top1_agreement:.2f} %",
            )
            for each in self.report.comparisons
        ]
        missing = [(each.name, each.remedy) for each in self.missing]
        title = f"parity {self.report.verdict}, {self.images:,} {self.dataset or 'given'} images"
        return html.table(title, [*rows, *missing], head)

    def accuracy(self, each: Comparison) -> float | None:
        """Percent of images classified as their label; None without labels."""
        return None if each.correct is None else 100 * each.correct / each.images

    def to_json(self) -> str:
        rows = [
            {
                "name": each.name,
                "sign_bits_compared": each.sign_bits_compared,
                "sign_bits_differing": each.sign_bits_differing,
                "sign_bits_rounded": each.sign_bits_rounded,
                "first_difference": each.first_difference,
                "logits_max_abs_diff": each.logits_max_abs_diff,
                "top1_agreement": each.top1_agreement,
                "accuracy": self.accuracy(each),
            }
            for each in self.report.comparisons
        ]
        document = {
            "images": self.images,
            "dataset": self.dataset,
            "exact": self.report.promised,
            "head_exact": self.report.head_exact,
            "passed": self.passed,
            "runtimes": rows,
            "missing": [{"name": m.name, "remedy": m.remedy} for m in self.missing],
        }
        return json.dumps(document, indent=2) + "\n"


class _Batched:
    """A runtime that is given ``batch`` images at a time, under a name that says so."""

    def __init__(self, inner: Runtime, name: str, batch: int) -> None:
        self._inner, self.name, self._batch = inner, name, batch

    def _parts(self, images: Images) -> list[Images]:
        return [images[i : i + self._batch] for i in range(0, len(images), self._batch)]

    def logits(self, images: Images) -> Logits:
        return np.concatenate([self._inner.logits(part) for part in self._parts(images)])

    def signs(self, images: Images) -> dict[str, Words]:
        parts = [self._inner.signs(part) for part in self._parts(images)]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return self._inner.latency(image, repeats)

    def close(self) -> None:
        self._inner.close()


def check_formats(names: Sequence[str]) -> tuple[str, ...]:
    """What a person typed, commas allowed (nothing or ``all``: every one but ``web``).

    Raises:
        UserError: for an unknown name, with the nearest one.
    """
    return runtimes.chosen(names, tuple(KNOWN), "format", every=tuple(BY_FORMAT))


def choose_inputs(
    program: Program,
    where: str | None,
    place: Place,
    count: int | None,
    seed: int,
    bars: Bars = silent,
) -> Inputs:
    """The images that a person asked for.

    Args:
        program: the model.
        where: ``random``, the name of a data set, a folder of the model's data set, or None: the
            model's data set where it is found, else random images.
        place: where the data set is.
        count: how many images; None: the whole test split, or ``RANDOMS`` random ones.
        seed: of random images.
        bars: progress bars by label.

    Raises:
        UserError: the data set that was asked for is unknown, absent, or does not fit the model.
    """
    randoms = count or RANDOMS
    if where == "random":
        return Inputs(random_images(program, seed, randoms), None, "")
    if where is not None:
        if where in datasets.NAMES:
            program = replace(program, dataset=where)
        elif Path(where).is_dir():
            place = replace(place, data_dir=Path(where))
        else:
            known = ("random", *datasets.NAMES)
            near = difflib.get_close_matches(where, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UserError(
                f"--data '{where}' is no folder and no data set{hint} (known: {', '.join(known)})"
            )
    found = inputs_for(program, place, seed, randoms, bars)
    if found.labels is None and (where is not None or place.data_dir is not None):
        raise UserError(f"--data: {found.remedy}")
    if found.labels is None or count is None:
        return found
    return replace(found, images=found.images[:count], labels=found.labels[:count])


def _runtimes(
    formats: Sequence[str], source: Source, asked: bool, most: int
) -> tuple[list[Runtime], list[Missing]]:
    ready: list[Runtime] = []
    missing: list[Missing] = []
    for form in formats:
        for threads in TORCH_THREADS if form == "torch" else (source.threads,):
            given = replace(source, threads=threads)
            trained = form != "torch" or (source.run is not None and source.program.settled_hash)
            made, absent = runtimes.make(KNOWN[form] if trained else (), given, asked)
            if form == "torch" and not made:
                made, more = runtimes.make(["torch:program"], given, asked)
                absent += more
            missing += [each for each in absent if each not in missing]
            for runtime in made:
                if not isinstance(runtime, Runtime):
                    raise TypeError(f"{runtime.name} only measures time")
                if form == "torch":
                    ready += [
                        _Batched(runtime, f"{runtime.name}:batch{batch}-threads{threads}", batch)
                        for batch in sorted({min(batch, most) for batch in TORCH_BATCHES})
                    ]
                else:
                    ready.append(runtime)
    return ready, missing


def strangers(source: Source) -> tuple[str, ...]:
    """Files beside the model that are exports of another one."""
    mark = program_hash(source.program).encode()
    there = [(name, source.exported(name)) for name in FILES]
    return tuple(name for name, content in there if content is not None and mark not in content)


def verify(
    source: Source,
    formats: Sequence[str],
    inputs: Inputs,
    progress: Progress = iter,
    *,
    asked: bool = True,
) -> Verified:
    """Compare everything that the named formats can be run by with the reference.

    Args:
        source: the model and where its exports and its run are.
        formats: keys of :data:`KNOWN`.
        inputs: images, with labels if they come from the data set.
        progress: wraps the iterable of batches.
        asked: whether a person named the formats; otherwise an absent run is no error.

    Raises:
        UserError: nothing of what was asked for can run here.
        ParityError: the comparison is void (constant outputs).
    """
    pixels = source.program.input_shape[0] * source.program.input_shape[1]
    chunk = MAX_BATCH if pixels <= SMALL else MAX_BATCH // 8  # the reference unrolls its windows
    ready, missing = _runtimes(formats, source, asked, min(chunk, len(inputs.images)))
    if not ready:
        raise UserError(runtimes.together(missing))
    try:
        report = compare(
            source.program, ready, inputs.images, inputs.labels, batch=chunk, progress=progress
        )
    finally:
        for runtime in ready:
            runtime.close()
    count = len(inputs.images)
    return Verified(report, tuple(missing), count, inputs.dataset, strangers(source))


def verify_table(found: Verified) -> tuple[Table, list[str]]:
    """Table runtime by figures, and the lines under it."""
    over = found.dataset or "random"
    title = f"parity over {found.images:,} {over} images"
    table = Table(title=title, title_justify="left")
    table.add_column("runtime")
    for name in ("sign bits", "differing", "logits differ by", "top-1 agreement", "accuracy"):
        table.add_column(name, justify="right")
    for each in found.report.comparisons:
        accuracy = found.accuracy(each)
        table.add_row(
            each.name,
            f"{each.sign_bits_compared:,}",
            f"{each.sign_bits_differing:,}",
            f"{each.logits_max_abs_diff:.2g}",
            f"{100 * each.top1_agreement:.2f} %",
            "" if accuracy is None else f"{accuracy:.2f} %",
        )
    lines = [f"parity {found.report.verdict}"]
    lines += [
        f"  {each.name}: {each.sign_bits_differing:,} bits differ, first at "
        f"'{each.first_difference}', logits by {each.logits_max_abs_diff:.3g}"
        for each in found.report.comparisons
        if not found.report.keeps(each)
    ]
    lines += [
        f"{name} is an export of another model: export again with --force"
        for name in found.strangers
    ]
    if any(each.name.startswith("torch:program") for each in found.report.comparisons):
        lines.append("torch:program runs the packed model, which proves nothing about its training")
    return table, [*lines, *(f"{m.name}: {m.remedy}" for m in found.missing)]
