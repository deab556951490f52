"""Parity: the same images through every runtime, every sign bit compared with the reference.

Bits must be equal. Logits must be equal where :mod:`frostbit.kernels.ir.exact` proves the head
exact, else within what :func:`allowed` says: a share of the largest logit of their image. In a
network that is not exact (an imported one) :mod:`frostbit.export.rounding` tells bits that rounding
explains from others. A check on constant outputs proves nothing, so it fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from frostbit.export.errors import ParityError
from frostbit.export.rounding import THRESHOLD_TOLERANCE, Led, lead, logit_scale, scales
from frostbit.export.runtimes import Images, Logits, Runtime
from frostbit.export.terms import magnitudes
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.verify import infer_types

LOGITS_TOLERANCE = 1e-5
"""Share of an image's largest logit: float32 sums in any order. Over 1,200 random networks of
``tests/pipeline/network`` the engine and PyTorch came to 1.4e-6 of it, over the trained networks of
``pipeline/records`` every runtime to 3.6e-7."""
TERMS_TOLERANCE = 2.0**-20
"""Share of the magnitudes of all terms of a logit, for heads whose terms cancel: 16 units in the
last place of float32. Over the same networks 5.6 units were seen; a head whose features hardly vary
came to 3e-5 of its logits, which is less than one unit."""
REAL_TOLERANCE = 1e-4
"""As ``LOGITS_TOLERANCE``, for a network that is real all the way: each layer multiplies the
rounding of those before it. Over 700 random networks 2.6e-5 was seen, and 3.6e-4 in one whose terms
cancel, which is refused as numerical."""


@dataclass(frozen=True)
class Comparison:
    """One runtime against the reference.

    Attributes:
        name: the runtime's name.
        images: number of images compared.
        sign_bits_compared, sign_bits_differing: over all sign tensors; in a network that is not
            exact, given the runtime's own bits before.
        sign_bits_rounded: those of the differing ones that rounding explains.
        first_difference: name of the first op, in order, with a differing bit ("" if none).
        images_flipped: images with at least one differing bit.
        logits_max_abs_diff, logits_max_rel_diff: largest difference; relative to the largest
            absolute logit of the same image (of probabilities: half of that, at least 1).
        images_beyond: images with a logit further off than :func:`allowed` says.
        top1_agreement: share of images with the same class, 0..1.
        correct: images classified as their label; None without labels.
    """

    name: str
    images: int
    sign_bits_compared: int
    sign_bits_differing: int
    sign_bits_rounded: int
    first_difference: str
    images_flipped: int
    logits_max_abs_diff: float
    logits_max_rel_diff: float
    images_beyond: int
    top1_agreement: float
    correct: int | None


@dataclass(frozen=True)
class ParityReport:
    """All comparisons, and what the Program promises.

    ``promised`` is False for a Program that :mod:`frostbit.kernels.ir.exact` cannot prove: bits
    that rounding explains are then counted but no failure. ``rounds_at`` names the first value
    where float32 rounds ("" if none does: it was promised, or the input is float).
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
        rounded = sum(each.sign_bits_rounded for each in self.comparisons)
        why = f"float32 rounds at '{self.rounds_at}'" if self.rounds_at else "its input is float"
        return (
            f"{said} within the tolerance (not exact: {why}; "
            f"{rounded:,} sign bits differ within {THRESHOLD_TOLERANCE:g} of a threshold)"
        )

    def keeps(self, each: Comparison) -> bool:
        """Whether one runtime's bits are equal, or explained, and its logits close enough."""
        compared = each.sign_bits_compared > 0 or not self.has_signs
        explained = each.sign_bits_differing == each.sign_bits_rounded
        return explained and compared and each.images_beyond == 0

    @property
    def total(self) -> dict[str, float | int]:
        """Figures over all runtimes, as in bench.json's ``parity``."""
        each = self.comparisons
        return {
            "images": self.images,
            "sign_bits_compared": sum(c.sign_bits_compared for c in each),
            "sign_bits_differing": sum(c.sign_bits_differing for c in each),
            "sign_bits_rounded": sum(c.sign_bits_rounded for c in each),
            "logits_max_abs_diff": max((c.logits_max_abs_diff for c in each), default=0.0),
            "top1_agreement": min((c.top1_agreement for c in each), default=0.0),
        }


@dataclass(frozen=True)
class _Expected:
    """What the reference gives for some images.

    Attributes:
        signs: packed words of every ``bits`` value by op name.
        logits: float32 ``[N, classes]``.
        scale: what a difference of logits is relative to, ``[N]``.
        allowance: as from :func:`allowed`, ``[N]``.
        largest: as from :func:`frostbit.export.rounding.scales`.
    """

    signs: dict[str, bits.Words]
    logits: Logits
    scale: NDArray[np.float64]
    allowance: NDArray[np.float64]
    largest: dict[str, float]


@dataclass
class _Tally:
    """Running counts of one runtime."""

    compared: int = 0
    differing: int = 0
    rounded: int = 0
    first: str = ""
    flipped: int = 0
    max_abs: float = 0.0
    max_rel: float = 0.0
    beyond: int = 0
    agree: int = 0
    correct: int = 0

    def signs(
        self, expected: dict[str, bits.Words], got: dict[str, bits.Words], channels: dict[str, int]
    ) -> NDArray[np.bool_] | None:
        """Count differing bits; returns which images have some, None without any signs."""
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
        return flipped

    def led(self, led: Led, before: tuple[int, str]) -> None:
        """Count again what was counted of a network that is not exact, as ``led`` finds it."""
        differing, first = before
        self.differing = differing + int(led.differing.sum())
        self.rounded += int(led.near.sum())
        self.first = first or led.first

    def logits(self, expected: _Expected, got: Logits, labels: NDArray[np.int64] | None) -> None:
        wanted = expected.logits
        if got.shape != wanted.shape or not np.isfinite(got).all():
            raise ParityError(f"logits of shape {got.shape}, expected finite {wanted.shape}")
        difference = np.abs(got.astype(np.float64) - wanted.astype(np.float64)).max(axis=1)
        self.max_abs = max(self.max_abs, float(difference.max()))
        self.max_rel = max(self.max_rel, float((difference / expected.scale).max()))
        self.beyond += int((difference > expected.allowance).sum())
        winners = got.argmax(axis=1)
        self.agree += int((winners == wanted.argmax(axis=1)).sum())
        if labels is not None:
            self.correct += int((winners == labels).sum())

    def comparison(self, name: str, images: int, labelled: bool) -> Comparison:
        return Comparison(
            name=name,
            images=images,
            sign_bits_compared=self.compared,
            sign_bits_differing=self.differing,
            sign_bits_rounded=self.rounded,
            first_difference=self.first,
            images_flipped=self.flipped,
            logits_max_abs_diff=self.max_abs,
            logits_max_rel_diff=self.max_rel,
            images_beyond=self.beyond,
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


def allowed(program: Program, values: Mapping[str, reference.Array]) -> NDArray[np.float64]:
    """By how much the logits of each image may differ from the reference's, ``[N]``.

    Args:
        program: a verified Program.
        values: the reference's, from :func:`frostbit.kernels.ir.reference.trace`.

    Returns:
        0 where the head is exact. Else ``LOGITS_TOLERANCE`` of the image's largest logit or, if
        that is more, ``TERMS_TOLERANCE`` of the magnitudes of the terms that make it up. For a
        network without signs, or not exact, ``REAL_TOLERANCE`` of the largest logit.
    """
    verdict, largest = analyse(program), logit_scale(program, values)
    if verdict.head_exact:
        return np.zeros_like(largest)
    if not (verdict.has_signs and verdict.body_exact):
        return REAL_TOLERANCE * largest
    summed = magnitudes(program, values).get(program.ops[-1].name, np.zeros((1, 1, 1, 1)))
    terms = TERMS_TOLERANCE * summed.max(axis=(1, 2, 3))
    return np.asarray(np.maximum(LOGITS_TOLERANCE * largest, terms))


def expected_values(program: Program, images: Images) -> tuple[dict[str, bits.Words], Logits]:
    """The reference's sign tensors (packed words by op name) and logits for ``images``."""
    expected = _expected(program, reference.trace(program, images))
    return expected.signs, expected.logits


def _expected(program: Program, values: dict[str, reference.Array]) -> _Expected:
    types = infer_types(program)
    return _Expected(
        {
            op.name: bits.pack(values[op.name])
            for op in program.ops
            if types[op.name].kind == "bits"
        },
        values[program.ops[-1].name][:, 0, 0],
        logit_scale(program, values),
        allowed(program, values),
        scales(program, values),
    )


def _compare_chunk(
    program: Program, runtime: Runtime, images: Images, expected: _Expected, tally: _Tally
) -> _Expected:
    """Compare the signs; returns what the logits should be given the runtime's own signs."""
    channels = {name: value.shape[2] for name, value in infer_types(program).items()}
    before = tally.differing, tally.first
    got = runtime.signs(images)
    flipped = tally.signs(expected.signs, got, channels)
    if flipped is None or not flipped.any() or analyse(program).body_exact:
        return expected
    own = {name: words[flipped] for name, words in got.items()}
    led = lead(program, images[flipped], own, expected.largest)
    tally.led(led, before)
    after = _expected(program, led.values)
    logits, scale = expected.logits.copy(), expected.scale.copy()
    logits[flipped], scale[flipped] = after.logits, after.scale
    allowance = expected.allowance.copy()
    allowance[flipped] = after.allowance
    return replace(expected, logits=logits, scale=scale, allowance=allowance)


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
        images: uint8 or float32 ``[N, H, W, C]``, as the Program takes them, with N >= 2.
        labels: int64 ``[N]``, to count correct answers.
        batch: images at a time (bounds memory).
        progress: wraps the iterable of batch starts, e.g. a progress bar.
        must_vary: whether constant outputs void the comparison.

    Raises:
        ParityError: if the outputs are constant, or a runtime does not give a sign tensor.
    """
    verdict = analyse(program)
    tallies = [_Tally() for _ in runtimes]
    variety = _Variety()
    for start in progress(range(0, len(images), batch)):
        chunk = images[start : start + batch]
        known = None if labels is None else labels[start : start + batch]
        expected = _expected(program, reference.trace(program, chunk))
        variety.see(expected.logits)
        for runtime, tally in zip(runtimes, tallies, strict=True):
            try:
                led = _compare_chunk(program, runtime, chunk, expected, tally)
                tally.logits(led, runtime.logits(chunk), known)
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
        rounds_at=verdict.rounds_at,
    )
