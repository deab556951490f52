"""How far rounding may put the answers of two right runtimes apart that have the same bits.

Each layer may differ by what :data:`frostbit.export.reading.compare.ROUNDING` allows a single
layer: a share of the sum of the magnitudes of its terms. A layer behind it passes that on, each
difference times the magnitude of the weight that reads it, and adds its own. Signs pass on nothing,
since both go on with the same bits. This is the running error analysis of N. Higham, Accuracy and
Stability of Numerical Algorithms, 2nd ed., section 3.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from frostbit.export.terms import CURVED, terms
from frostbit.kernels.ir.program import (
    Affine,
    BinaryConv,
    Conv,
    Dense,
    Mul,
    Op,
    PRelu,
    Scale,
    Sigmoid,
    Softmax,
)
from frostbit.kernels.ir.reference import Array

SIGMOID_SLOPE, SOFTMAX_SLOPE = 0.25, 0.5
"""The largest of either, in any direction where no number moves by more than 1."""


def passed_on(op: Op, values: Sequence[Array], errors: Sequence[Array], rounding: float) -> Array:
    """Largest difference of each number that ``op`` gives, ``[N, H, W, C]``.

    Args:
        op: gives numbers.
        values: what it reads.
        errors: largest difference of each of these.
        rounding: what one layer may add, as a share of its terms.
    """
    match op:
        case PRelu():
            before = errors[0] + rounding * np.abs(values[0])
            return np.asarray(before * np.maximum(1, np.abs(op.slope)))
        case Sigmoid():
            return np.asarray(errors[0] * SIGMOID_SLOPE + rounding)
        case Softmax():
            return np.full_like(errors[0], errors[0].max() * SOFTMAX_SLOPE + rounding)
        case Mul():
            first, second = (np.abs(value) for value in values)
            crossed = terms(op, first, errors[1]) + terms(op, errors[0], second + errors[1])
            return np.asarray(crossed + rounding * terms(op, *values))
    if isinstance(op, CURVED):  # a step of a Quantize up or down is explained by no rounding
        return np.zeros_like(errors[0])
    return np.asarray(terms(_without_constants(op), *errors) + rounding * terms(op, *values))


def _without_constants(op: Op) -> Op:
    """``op`` without what does not depend on its input."""
    match op:
        case Conv():
            nothing = np.zeros_like(op.pad_value)
            return replace(op, add=np.zeros_like(op.add), pad_value=nothing)
        case Dense() | Scale():
            return replace(op, add=np.zeros_like(op.add))
        case BinaryConv(epilogue=Affine(mul, add)):
            return replace(op, pad_value=0, epilogue=Affine(mul, np.zeros_like(add)))
    return op
