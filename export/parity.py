"""Parity: the same images through every runtime, every sign bit compared with the reference.

Bits must be equal. Logits must be equal where :mod:`frostbit.kernels.ir.exact` proves the head
exact, else within ``LOGITS_TOLERANCE`` of the largest logit of their image; a binary-weight network
has no sign bits and real sums all the way, its tolerance is ``REAL_TOLERANCE``. A check on constant
outputs proves nothing, so it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.export.errors import ParityError
from frostbit.export.runtimes import Images, Logits, Runtime
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.verify import infer_types

LOGITS_TOLERANCE = 1e-5
REAL_TOLERANCE = 1e-4


@dataclass(frozen=True)
class Comparison:
    """One runtime against the reference.

    Attributes:
        name: the runtime's name.
        images: number of images compared.
        sign_bits_compared, sign_bits_differing: over all sign tensors.
        first_difference: name of the first op, in order, with a differing bit ("" if none).
        images_flipped: images with at least one differing bit.
        logits_max_abs_diff, logits_max_rel_diff: largest difference; relative to the largest
            absolute logit of the same image.
        top1_agreement: share of images with the same class, 0..1.
        correct: images classified as their label; None without labels.
    """

    name: str
    images: int
    sign_bits_compared: int
    sign_bits_differing: int
    first_difference: str
    images_flipped: int
    logits_max_abs_diff: float
    logits_max_rel_diff: float
    top1_agreement: float
    correct: int | None


@dataclass(frozen=True)
class ParityReport:
    """All comparisons, and what the Program promises.

    ``promised`` is False for a Program that :mod:`frostbit.kernels.ir.exact` cannot prove: a
    differing bit is then no fault of a runtime, but it is a difference all the same and fails the
    comparison. ``rounds_at`` names the value where float32 rounds ("" if it was promised).
    ``has_signs`` is False for a binary-weight network.
    """

    images: int
    promised: bool
    head_exact: bool
    has_signs: bool
    comparisons: tuple[Comparison, ...]
    rounds_at: str = ""

    @property
    def passed(self) -> bool:
        """Whether every runtime agrees with the reference."""
        return all(self.keeps(each) for each in self.comparisons)

    @property
    def verdict(self) -> str:
        """``passed`` or ``FAILED``, with what explains it."""
        said = "passed" if self.passed else "FAILED"
        if self.promised:
            return said
        luck = "equal on these images only" if self.passed else "settle it again"
        return f"{said} (nothing is promised: float32 rounds at '{self.rounds_at}'; {luck})"

    def keeps(self, each: Comparison) -> bool:
        """Whether one runtime has no differing bit and equal (or close enough) logits."""
        tolerance = LOGITS_TOLERANCE if self.has_signs else REAL_TOLERANCE
        close = (
            each.logits_max_abs_diff == 0.0
            if self.head_exact
            else each.logits_max_rel_diff <= tolerance
        )
        compared = each.sign_bits_compared > 0 or not self.has_signs
        return each.sign_bits_differing == 0 and compared and close

    @property
    def total(self) -> dict[str, float | int]:
        """Figures over all runtimes, as in bench.json's ``parity``."""
        each = self.comparisons
        return {
            "images": self.images,
            "sign_bits_compared": sum(c.sign_bits_compared for c in each),
            "sign_bits_differing": sum(c.sign_bits_differing for c in each),
            "logits_max_abs_diff": max((c.logits_max_abs_diff for c in each), default=0.0),
            "top1_agreement": min((c.top1_agreement for c in each), default=0.0),
        }


@dataclass
class _Tally:
    """Running counts of one runtime."""

    compared: int = 0
    differing: int = 0
    first: str = ""
    flipped: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    agree: int = 0
    correct: int = 0

    def signs(
        self, expected: dict[str, bits.Words], got: dict[str, bits.Words], channels: dict[str, int]
    ) -> None:
        flipped: NDArray[np.bool_] | None = None
        for name, words in expected.items():
            if name not in got or got[name].shape != words.shape:
                raise ParityError(f"the runtime does not give the sign tensor '{name}'")
            different = bits.popcount((words ^ got[name]).reshape(len(words), -1))
            self.compared += int(np.prod(words.shape[:-1])) * channels[name]
            self.differing += int(different.sum())
            if different.any() and not self.first:
                self.first = name
            now = different > 0
            flipped = now if flipped is None else flipped | now
        self.flipped += 0 if flipped is None else int(flipped.sum())

    def logits(self, expected: Logits, got: Logits, labels: NDArray[np.int64] | None) -> None:
        if got.shape != expected.shape or not np.isfinite(got).all():
            raise ParityError(f"logits of shape {got.shape}, expected finite {expected.shape}")
        difference = np.abs(got.astype(np.float64) - expected.astype(np.float64)).max(axis=1)
        scale = np.maximum(np.abs(expected).max(axis=1), np.finfo(np.float32).tiny)
        self.max_abs = max(self.max_abs, float(difference.max()))
        self.max_rel = max(self.max_rel, float((difference / scale).max()))
        winners = got.argmax(axis=1)
        self.agree += int((winners == expected.argmax(axis=1)).sum())
        if labels is not None:
            self.correct += int((winners == labels).sum())

    def comparison(self, name: str, images: int, labelled: bool) -> Comparison:
        return Comparison(
            name=name,
            images=images,
            sign_bits_compared=self.compared,
            sign_bits_differing=self.differing,
            first_difference=self.first,
            images_flipped=self.flipped,
            logits_max_abs_diff=self.max_abs,
            logits_max_rel_diff=self.max_rel,
            top1_agreement=self.agree / images,
            correct=self.correct if labelled else None,
        )


@dataclass
class _Variety:
    """Whether the reference's outputs vary at all."""

    first: Logits | None = None
    varies: bool = False

    def see(self, logits: Logits) -> None:
        self.first = logits[:1] if self.first is None else self.first
        self.varies = self.varies or bool((logits != self.first).any())

    def check(self, images: int) -> None:
        if images < 2:
            raise ParityError("parity needs at least two images: one output proves nothing")
        if not self.varies:
            raise ParityError(
                "the model gives every image the same logits: equal outputs would prove nothing"
            )


def expected_values(program: Program, images: Images) -> tuple[dict[str, bits.Words], Logits]:
    """The reference's sign tensors (packed words by op name) and logits for ``images``."""
    values = reference.trace(program, images)
    types = infer_types(program)
    signs = {
        op.name: bits.pack(values[op.name]) for op in program.ops if types[op.name].kind == "bits"
    }
    return signs, values[program.ops[-1].name][:, 0, 0]


def compare(
    program: Program,
    runtimes: Sequence[Runtime],
    images: Images,
    labels: NDArray[np.int64] | None = None,
    *,
    batch: int = 100,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
    must_vary: bool = True,
) -> ParityReport:
    """Run ``images`` through every runtime and compare with the reference.

    Args:
        program: the Program all runtimes were made from.
        runtimes: what to compare; the reference itself need not be among them.
        images: uint8 ``[N, H, W, C]`` with N >= 2.
        labels: int64 ``[N]``, to count correct answers.
        batch: images at a time (bounds memory).
        progress: wraps the iterable of batch starts, e.g. a progress bar.
        must_vary: whether constant outputs void the comparison.

    Raises:
        ParityError: if the outputs are constant, or a runtime does not give a sign tensor.
    """
    verdict = analyse(program)
    channels = {name: value.shape[2] for name, value in infer_types(program).items()}
    tallies = [_Tally() for _ in runtimes]
    variety = _Variety()
    for start in progress(range(0, len(images), batch)):
        chunk = images[start : start + batch]
        known = None if labels is None else labels[start : start + batch]
        signs, logits = expected_values(program, chunk)
        variety.see(logits)
        for runtime, tally in zip(runtimes, tallies, strict=True):
            try:
                tally.signs(signs, runtime.signs(chunk), channels)
                tally.logits(logits, runtime.logits(chunk), known)
            except ParityError as error:
                raise ParityError(f"{runtime.name}: {error}") from error
    if must_vary:
        variety.check(len(images))
    comparisons = [
        tally.comparison(runtime.name, len(images), labels is not None)
        for runtime, tally in zip(runtimes, tallies, strict=True)
    ]
    return ParityReport(
        images=len(images),
        promised=verdict.body_exact,
        head_exact=verdict.head_exact,
        has_signs=verdict.has_signs,
        comparisons=tuple(comparisons),
        rounds_at="" if verdict.body_exact else verdict.tightest,
    )
