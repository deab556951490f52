"""verify: one model through every runtime and setting, every sign bit and logit compared."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from rich.table import Table

from export.parity import Comparison, ParityReport, compare
from export.runtimes import Images, Logits, Milliseconds, Runtime
from kernels import features
from kernels.bits import Words
from pipeline import runtimes
from pipeline.bench import Inputs
from pipeline.errors import UserError
from pipeline.runtimes import Missing, Source
from pipeline.timing import Progress

BY_FORMAT = {
    "bnn": ("reference", *(f"engine:{kernel}" for kernel in features.available())),
    "onnx": ("ort", "ort:extended", "ort:basic", "ort:disabled"),
    "onnx-int8": ("ort:int8",),
    "c": ("c",),
    "lce": ("lce:default", "lce:indirect", "lce:reference"),
    "torch": ("torch",),
}
TORCH_BATCHES = (1, 256)
TORCH_THREADS = (1, 2)
"""torch is compared at every combination: sums must not depend on batch size or threads."""


@dataclass(frozen=True)
class Verified:
    """Result of :func:`verify`: the comparisons, and what could not run here."""

    report: ParityReport
    missing: tuple[Missing, ...]
    images: int
    dataset: str

    def accuracy(self, each: Comparison) -> float | None:
        """Percent of images classified as their label; None without labels."""
        return None if each.correct is None else 100 * each.correct / each.images

    def to_json(self) -> str:
        rows = [
            {
                "name": each.name,
                "sign_bits_compared": each.sign_bits_compared,
                "sign_bits_differing": each.sign_bits_differing,
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
            "passed": self.report.passed,
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
    """What a person typed (nothing or ``all``: every one); UserError with the nearest name."""
    return runtimes.chosen(names, tuple(BY_FORMAT), "format")


def _runtimes(
    formats: Sequence[str], source: Source, asked: bool
) -> tuple[list[Runtime], list[Missing]]:
    ready: list[Runtime] = []
    missing: list[Missing] = []
    for form in formats:
        for threads in TORCH_THREADS if form == "torch" else (source.threads,):
            made, absent = runtimes.make(BY_FORMAT[form], replace(source, threads=threads), asked)
            missing += [each for each in absent if each not in missing]
            for runtime in made:
                assert isinstance(runtime, Runtime)
                if form == "torch":
                    ready += [
                        _Batched(runtime, f"torch:batch{batch}-threads{threads}", batch)
                        for batch in TORCH_BATCHES
                    ]
                else:
                    ready.append(runtime)
    return ready, missing


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
        formats: keys of :data:`BY_FORMAT`.
        inputs: images, with labels if they come from the data set.
        progress: wraps the iterable of batches.
        asked: whether a person named the formats; otherwise an absent run is no error.

    Raises:
        UserError: nothing of what was asked for can run here.
        ParityError: the comparison is void (constant outputs).
    """
    ready, missing = _runtimes(formats, source, asked)
    if not ready:
        raise UserError("; ".join(f"{each.name}: {each.remedy}" for each in missing))
    try:
        report = compare(
            source.program, ready, inputs.images, inputs.labels, batch=256, progress=progress
        )
    finally:
        for runtime in ready:
            runtime.close()
    return Verified(report, tuple(missing), len(inputs.images), inputs.dataset)


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
    verdict = "passed" if found.report.passed else "FAILED"
    if not found.report.promised:
        verdict = "not promised: the model is not exact"
    return table, [f"parity {verdict}", *(f"{m.name}: {m.remedy}" for m in found.missing)]
