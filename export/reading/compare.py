"""A network that was read beside its source in the source's own runtime, layer by layer.

Every op gets the source's own values, numbers and bits, so that no difference spreads and each has
a cause of its own. A sign is taken of what our op makes of the source's values before it: its bit
may differ only where that number lies within ``SIGN_TOLERANCE`` of the threshold, as a share of the
largest of its channel (of a row: of the row). Such flips are counted. Bits made of bits (thresholds
of whole sums, pools) must be equal.

Beside that the Program runs by itself, from the image to its answer; only where a sign falls
otherwise than the source's does it go on with the source's bits. An image on which no sign does is
equal end to end, and its answer must be within ``ANSWERS_TOLERANCE`` of the source's, or within
what the roundings of all layers come to there (:mod:`frostbit.export.reading.allowance`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np

from frostbit.export.errors import SourceDiffers
from frostbit.export.inputs import Images
from frostbit.export.reading.allowance import passed_on
from frostbit.export.reading.imported import Imported
from frostbit.export.terms import CURVED, terms
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import (
    INPUT,
    Op,
    Sign,
    Softmax,
    ToFloat,
    ValueType,
)
from frostbit.kernels.ir.reference import Array
from frostbit.kernels.ir.verify import infer_types

Values = dict[str, Array]
SIGN_TOLERANCE = 1e-5
"""Distance from a threshold at which a bit may differ."""
NUMBER_TOLERANCE = 1e-4
"""Largest difference of numbers, as a share of the largest in the map; more only where terms that
cancel each other round by more."""
ROUNDING = 2.0**-21
"""Of the terms of a sum: four roundings of float32."""
ANSWERS_TOLERANCE = 1e-4
"""The same of the answers, as a share of their spread in one image."""


class Source(Protocol):
    """The source in its own runtime."""

    name: str

    def values(self, images: Images) -> Values:
        """Values by the source's names: ``[N, H, W, C]``, float32 or int8 of +1 and -1."""

    def close(self) -> None:
        """End the runtime."""


@dataclass
class Comparison:
    """What was compared; all of it equal as far as promised.

    Attributes:
        runtime: name and version of the source's runtime.
        values: layers whose values both sides have.
        images: how many.
        sign_bits: compared.
        flips: of those, different, each within ``SIGN_TOLERANCE`` of its threshold.
        whole: images on which the Program by itself gives every bit of the source's.
        numbers: largest difference of a layer's numbers, as a share of the largest.
        answers: the same of the answers of the Program by itself, of their spread; limited on
            those whole images.
        explained: images whose answers differ by more than ``ANSWERS_TOLERANCE``, each within what
            the roundings of all layers come to.
    """

    runtime: str
    values: int
    images: int = 0
    sign_bits: int = 0
    flips: int = 0
    whole: int = 0
    numbers: float = 0.0
    answers: float = 0.0
    explained: int = 0

    @property
    def verdict(self) -> str:
        """One line for people."""
        said = (
            f"{self.values} layers compared with {self.runtime} on {self.images} images: "
            f"{self.sign_bits - self.flips:,} of {self.sign_bits:,} sign bits equal"
        )
        if self.flips:
            said += f", {self.flips} within {SIGN_TOLERANCE:g} of their threshold"
        said += f"; answers within {self.answers:.1e} of their spread"
        if self.explained:
            said += f" (on {self.explained} images explained by sums that cancel)"
        return f"{said}, {self.whole} images equal end to end in every bit"


def wanted(imported: Imported) -> dict[str, ValueType]:
    """Type of every value that both sides have, by the source's name."""
    types = infer_types(imported.program)
    return {source: types[ours] for ours, source in imported.names.items()}


def compare(
    imported: Imported,
    source: Source,
    images: Images,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Comparison:
    """Compare ``imported`` with its source on ``images``, one at a time.

    Args:
        imported: what was read.
        source: the file in its own runtime; gives all of :func:`wanted`.
        images: ``[N, H, W, C]`` as the source takes them.
        progress: wraps the iterable of image numbers, e.g. a progress bar.

    Raises:
        SourceDiffers: a difference that rounding does not explain; the text names the layer.
        ValueError: ``images`` do not fit the model.
    """
    reference.check_images(images, imported.program)
    found = Comparison(source.name, len(imported.names))
    for number in progress(range(len(images))):
        _one_image(imported, source, images[number : number + 1], found)
    return found


def _answer(imported: Imported) -> str:
    """The op whose value is compared as the answer: the logits, where both sides have them.

    A softmax magnifies differences: what counts is their share of the spread before it. Of signs
    as the answer the source has no numbers beside them.
    """
    last = imported.program.ops[-1]
    before = last.inputs[0]
    is_before = isinstance(last, Softmax | ToFloat) and before in imported.names
    answer = before if is_before else last.name
    if answer not in imported.names:
        raise SourceDiffers(f"op '{answer}': the source has no such answer")
    return answer


@dataclass(frozen=True, eq=False)
class _Value:
    """One value three times over.

    Attributes:
        fed: the source's, where it has one.
        ours: of our op on the source's values.
        alone: of the Program by itself, with the source's bits.
        rounding: about what float32 rounds in it; asked for only where something differs.
    """

    fed: Array
    ours: Array
    alone: Array
    rounding: Callable[[], Array] = lambda: np.zeros(1)


def _one_image(imported: Imported, source: Source, image: Images, found: Comparison) -> None:
    theirs, ops = source.values(image), imported.program.ops
    values = {INPUT: _Value(image, image, image)}
    last_use = {name: op for op in ops for name in op.inputs}
    answer, whole = _answer(imported), True
    for op in ops:
        inputs = [values[name] for name in op.inputs]
        ours, alone = _run(op, inputs)
        rounding = partial(_rounding, op, [value.fed for value in inputs])
        known = _known(op, imported, theirs)
        if known is None:
            values[op.name] = _Value(ours, ours, alone, rounding)
        elif ours.dtype == np.int8:
            whole &= bool((alone == known).all())
            ours = np.where(inputs[0].ours >= 0, 1, -1) if isinstance(op, Sign) else ours
            _compare_bits(op, inputs[0], ours, known, found)
            values[op.name] = _Value(known, known, known)
        else:
            _compare_numbers(op, ours, known, rounding, found)
            values[op.name] = _Value(known, ours, alone, rounding)
        if op.name == answer:
            limits = partial(_limits, imported, theirs, image) if whole else None
            _compare_answers(op, alone, theirs[imported.names[answer]], found, limits)
        for name in op.inputs:
            if last_use[name] is op:
                values.pop(name, None)
    found.images += 1
    found.whole += whole


def _known(op: Op, imported: Imported, theirs: Values) -> Array | None:
    """The source's value of ``op``, if it has one."""
    if op.name not in imported.names:
        return None
    known = theirs[imported.names[op.name]]
    return known[..., imported.orders[op.name]] if op.name in imported.orders else known


def _limits(imported: Imported, theirs: Values, image: Images) -> Array:
    """How far rounding may put each number of the answer from the source's."""
    ops, answer = imported.program.ops, _answer(imported)
    values: Values = {INPUT: image}
    errors: Values = {INPUT: np.zeros(image.shape)}
    last_use = {name: op for op in ops for name in op.inputs}
    for op in ops:
        inputs = [values[name] for name in op.inputs]
        value, known = reference.RULES[type(op)](op, *inputs), _known(op, imported, theirs)
        if value.dtype == np.int8:
            values[op.name] = value if known is None else known
            errors[op.name] = np.zeros(value.shape)
        else:
            before = [errors[name] for name in op.inputs]
            values[op.name], errors[op.name] = value, passed_on(op, inputs, before, ROUNDING)
        if op.name == answer:
            return errors[answer]
        for name in op.inputs:
            if last_use[name] is op:
                values.pop(name, None)
                errors.pop(name, None)
    raise SourceDiffers(f"op '{answer}': the source has no such answer")


def _run(op: Op, inputs: list[_Value]) -> tuple[Array, Array]:
    """``op`` on the source's values, and on those of the Program by itself."""
    rule = reference.RULES[type(op)]
    ours = rule(op, *(value.fed for value in inputs))
    if all(value.fed is value.alone for value in inputs):
        return ours, ours
    return ours, rule(op, *(value.alone for value in inputs))


def _compare_bits(op: Op, source: _Value, ours: Array, theirs: Array, found: Comparison) -> None:
    different = ours != theirs
    count = int(different.sum())
    found.sign_bits += different.size
    found.flips += count
    if not count:
        return
    excused = np.zeros_like(different)
    if isinstance(op, Sign):
        x = source.ours
        of_channel = x.shape[1:3] != (1, 1)
        largest = np.abs(x).max(axis=(1, 2) if of_channel else (1, 2, 3), keepdims=True)
        excused = np.abs(x) <= np.maximum(SIGN_TOLERANCE * largest, source.rounding())
    unexplained = int((different & ~excused).sum())
    if unexplained:
        raise SourceDiffers(
            f"op '{op.name}' ({type(op).__name__}): {unexplained:,} of {different.size:,} bits "
            "differ from the source's, and no rounding explains it"
        )


def _rounding(op: Op, fed: Sequence[Array]) -> Array:
    """About what float32 rounds in each value of ``op``; it counts where its terms cancel.

    Larq Compute Engine adds ``K * mul`` to a binary convolution's addend and takes it away again,
    which doubles the terms.
    """
    if isinstance(op, CURVED):
        return np.zeros(1)
    return ROUNDING * terms(op, *fed)


def _compare_numbers(
    op: Op, ours: Array, theirs: Array, rounding: Callable[[], Array], found: Comparison
) -> None:
    difference = np.abs(ours.astype(np.float64) - theirs)
    largest = max(np.abs(ours).max(), np.abs(theirs).max(), np.finfo(np.float32).tiny)
    share = float(difference.max() / largest)
    near = difference <= NUMBER_TOLERANCE * largest
    if not near.all() and not (near | (difference <= rounding())).all():
        raise SourceDiffers(
            f"op '{op.name}' ({type(op).__name__}): its numbers differ from the source's by "
            f"{share:.2g} of the largest, more than {NUMBER_TOLERANCE:g}"
        )
    found.numbers = max(found.numbers, share)


def _compare_answers(
    op: Op, ours: Array, theirs: Array, found: Comparison, limits: Callable[[], Array] | None
) -> None:
    """Compare; ``limits``, asked only if needed, is what rounding may do, None after a flip."""
    differences = np.abs(ours.astype(np.float64) - theirs)
    difference = float(differences.max())
    largest = float(np.abs(ours).max())
    spread = float(ours.max() - ours.min()) if ours.size > 1 else largest
    smallest = float(np.finfo(np.float32).tiny)
    share = difference / max(spread, largest * 2.0**-8, smallest)  # where all are equal
    found.answers = max(found.answers, share)
    if limits is None or share <= ANSWERS_TOLERANCE:
        return
    found.explained += 1
    if not (differences <= limits()).all():
        raise SourceDiffers(
            f"op '{op.name}': the answers differ from the source's by {share:.2g} of their "
            f"spread, more than {ANSWERS_TOLERANCE:g} and than rounding explains"
        )
