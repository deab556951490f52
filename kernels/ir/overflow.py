"""How large values can get: a Program whose float32 values could overflow is refused.

An overflow makes infinities, their difference NaN, and runtimes differ in what they make of it.
Checked at every load, so one number a value; the proof that ``pack`` asks for, with bounds and
grids per channel, is :mod:`frostbit.kernels.ir.exact` and takes longer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.program import (
    INPUT,
    INPUT_LIMIT,
    Add,
    Affine,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    FormatError,
    GlobalSum,
    Mul,
    Op,
    PRelu,
    Program,
    Quantize,
    Scale,
    Sigmoid,
    Sign,
    Softmax,
    ToFloat,
    ValueType,
)

LIMIT = 2.0**120
"""float32 ends at 2^128; the rest is room for what runtimes compute on their way."""


def _most(values: NDArray[Any]) -> float:
    return float(np.abs(values.astype(np.float64)).max(initial=0.0))


def _sum_of(weights: NDArray[Any]) -> float:
    """Largest sum of absolute weights of one output ``[O, ...]``."""
    return float(np.abs(weights.astype(np.float64)).reshape(len(weights), -1).sum(axis=1).max())


def _largest(op: Op, sources: Sequence[float], pixels: int) -> tuple[float, float]:
    """Largest sum on the way, and largest value of the result."""
    source = sources[0]
    match op:
        case Conv():
            reached = _sum_of(op.weights) * max(source, _most(op.pad_value)) + _most(op.add)
        case Dense():
            reached = _sum_of(op.weights) * source + _most(op.add)
        case BinaryConv():
            counted = op.taps * max(source, 1.0)
            if not isinstance(op.epilogue, Affine):
                return counted, 1.0
            result = counted * _most(op.epilogue.mul) + _most(op.epilogue.add)
            return max(counted, result), result
        case Sign() | ToFloat() | Sigmoid():
            return source, 1.0
        case Quantize():
            return source / op.step, op.step * max(abs(op.low), abs(op.high))
        case Softmax():
            return 2.0 * source, 1.0
        case Clip():
            ends = (min(max(end, op.low), op.high) for end in (-source, source))
            return source, max(abs(end) for end in ends)
        case AvgPool():
            return source * op.window.kernel[0] * op.window.kernel[1], source
        case GlobalSum():
            reached = source * pixels
        case Add():
            reached = source + sources[1]
        case Mul():
            reached = source * sources[1]
        case Scale():
            reached = source * _most(op.mul) + _most(op.add)
        case PRelu():
            reached = source * max(1.0, _most(op.slope))
        case Concat():
            reached = max(sources)
        case _:
            reached = source
    return reached, reached


def check(program: Program, types: Mapping[str, ValueType]) -> None:
    """Raise :class:`FormatError` if a value of ``program`` could overflow float32."""
    largest = {INPUT: 255.0 if program.input_kind == "u8" else INPUT_LIMIT}
    for op in program.ops:
        height, width, _ = types[op.inputs[0]].shape
        sources = [largest[name] for name in op.inputs]
        reached, largest[op.name] = _largest(op, sources, height * width)
        if not reached <= LIMIT:
            raise FormatError(f"op '{op.name}': its values could overflow float32")
