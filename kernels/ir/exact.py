"""Proof that a Program's float32 values are exact, by interval arithmetic.

float32 addition and multiplication round nothing as long as every intermediate is an integer
multiple of ``2**-s`` and smaller than ``2**(24 - s)``; sums are then independent of order,
fusion and FMA, so every runtime computes the same bits. For each value this module derives a
grid exponent ``s`` and a bound per channel from the parameters alone (no calibration data).
The bound covers all partial sums: it adds absolute values.

LCE evaluates a binary convolution's float output as ``2p * (-mul) + (add + K * mul)``. Both
terms obey the same bound at the same grid: ``2p * mul`` is a multiple of twice the grid step
and at most ``2K|mul|``, and ``|add + K * mul|`` is at most ``K|mul| + |add|``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.program import (
    INPUT,
    INPUT_LIMIT,
    Add,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalSum,
    MaxPool,
    Mul,
    Op,
    Pad,
    PRelu,
    Program,
    Quantize,
    Repeat,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    Threshold,
    ToFloat,
)
from frostbit.kernels.ir.verify import infer_types

MANTISSA_BITS = 24
"""Of float32: whole numbers of so many bits are exact."""
F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Grid:
    """What is known of one value.

    Attributes:
        exponent: s; every element is an integer multiple of ``2**-s``.
        bound: float64 ``[C]``, largest absolute value per channel, partial sums included.
        exact: whether this value and all it depends on is free of rounding.
    """

    exponent: int
    bound: F64
    exact: bool

    @property
    def bits(self) -> float:
        """Mantissa bits that the largest element needs (24 are there)."""
        return math.log2(max(float(self.bound.max(initial=0.0)), 2.0**-60)) + self.exponent


@dataclass(frozen=True)
class Exactness:
    """Verdict over a Program.

    Attributes:
        body_exact: every value that some sign depends on is exact: sign bits cannot differ (nor
            where there are none).
        head_exact: the logits are exact too.
        exponent: largest grid exponent s among the body's values (of a network without signs:
            of its first op's, which is then its whole body).
        bound: largest absolute value among the body's f32 values.
        bits_left: mantissa bits left over at the body's tightest value (negative: too few).
        tightest: name of that value.
        has_signs: whether there is any sign bit at all (not in a binary-weight network).
        rounds_at: the first value on which a sign depends that rounds by itself; "" if none does.
    """

    body_exact: bool
    head_exact: bool
    exponent: int
    bound: float
    bits_left: float
    tightest: str
    has_signs: bool
    rounds_at: str = ""


def grid_exponent(values: NDArray[Any]) -> int:
    """Smallest s >= 0 such that every float32 in ``values`` is a multiple of ``2**-s``."""
    flat = np.asarray(values, dtype=np.float32).ravel()
    flat = flat[flat != 0]
    if flat.size == 0:
        return 0
    fraction, exponent = np.frexp(flat.astype(np.float64))
    mantissa = np.abs(fraction * 2.0**MANTISSA_BITS).astype(np.int64)
    lowest_bit = (mantissa & -mantissa).astype(np.float64)
    steps = MANTISSA_BITS - exponent - np.log2(lowest_bit).astype(np.int64)
    return max(0, int(steps.max()))


def _made(exponent: int, bound: F64, inputs_exact: bool) -> Grid:
    grid = Grid(exponent, bound, True)
    return Grid(exponent, bound, inputs_exact and grid.bits < MANTISSA_BITS)


def _linear(weights: NDArray[Any], added: NDArray[Any], source: Grid, groups: int = 1) -> Grid:
    """Sums of products: ``weights`` is ``[O, ..., I]`` and reads ``I * groups`` channels."""
    exponent = max(source.exponent + grid_exponent(weights), grid_exponent(added))
    size = np.abs(weights.astype(np.float64)).reshape(
        groups, len(weights) // groups, -1, weights.shape[-1]
    )
    per_group = source.bound.reshape(groups, -1)
    bound = np.einsum("gohi,gi->go", size, per_group).ravel() + np.abs(added)
    return _made(exponent, bound, source.exact)


def _conv(op: Conv, source: Grid) -> Grid:
    padded = np.maximum(source.bound, op.pad_value)
    return _linear(op.weights, op.add, Grid(source.exponent, padded, source.exact), op.groups)


def _binary_conv(op: BinaryConv, source: Grid) -> Grid:
    if isinstance(op.epilogue, Threshold):
        return Grid(0, np.ones(op.channels_out), source.exact)
    mul, added = op.epilogue.mul.astype(np.float64), op.epilogue.add
    padded = np.maximum(source.bound, op.pad_value).reshape(op.groups, -1)
    taps = op.window.kernel[0] * op.window.kernel[1]
    acc = np.repeat(taps * padded.sum(axis=1), op.channels_out // op.groups)
    exponent = max(source.exponent + grid_exponent(op.epilogue.mul), grid_exponent(added))
    sums = _made(source.exponent, acc, source.exact)
    return _made(exponent, np.abs(mul) * acc + np.abs(added), sums.exact)


def _one(op: Sign | ToFloat, source: Grid) -> Grid:
    return Grid(0, np.ones_like(source.bound), source.exact)


def _add(op: Add, a: Grid, b: Grid) -> Grid:
    return _made(max(a.exponent, b.exponent), a.bound + b.bound, a.exact and b.exact)


def _same(op: MaxPool, source: Grid) -> Grid:
    return source


def _avg_pool(op: AvgPool, source: Grid) -> Grid:
    area = op.window.kernel[0] * op.window.kernel[1]
    shift = area.bit_length() - 1
    return _made(source.exponent + shift, source.bound, source.exact and area == 1 << shift)


def _repeat(op: Repeat, source: Grid) -> Grid:
    return Grid(source.exponent, np.tile(source.bound, op.times), source.exact)


def _concat(op: Concat, *sources: Grid) -> Grid:
    return Grid(
        max(source.exponent for source in sources),
        np.concatenate([source.bound for source in sources]),
        all(source.exact for source in sources),
    )


def _dense(op: Dense, source: Grid) -> Grid:
    return _linear(op.weights, op.add, source)


def _clip(op: Clip, source: Grid) -> Grid:
    ends = np.stack([np.clip(end, op.low, op.high) for end in (-source.bound, source.bound)])
    exponent = max(source.exponent, grid_exponent(np.array([op.low, op.high])))
    return Grid(exponent, np.abs(ends).max(axis=0), source.exact)


def _mul(op: Mul, a: Grid, b: Grid) -> Grid:
    return _made(a.exponent + b.exponent, a.bound * b.bound, a.exact and b.exact)


def _scale(op: Scale, source: Grid) -> Grid:
    exponent = max(source.exponent + grid_exponent(op.mul), grid_exponent(op.add))
    bound = np.abs(op.mul.astype(np.float64)) * source.bound + np.abs(op.add)
    return _made(exponent, bound, source.exact)


def _prelu(op: PRelu, source: Grid) -> Grid:
    bound = source.bound * np.maximum(1.0, np.abs(op.slope))
    return _made(source.exponent + grid_exponent(op.slope), bound, source.exact)


def _quantize(op: Quantize, source: Grid) -> Grid:
    """A quotient by a power of two is exact; another may round to either side of a half."""
    bound = np.full_like(source.bound, op.step * max(abs(op.low), abs(op.high)))
    by_shift = math.frexp(op.step)[0] == 0.5
    return _made(grid_exponent(np.array([op.step])), bound, source.exact and by_shift)


def _rounded(op: Sigmoid | Softmax, source: Grid) -> Grid:
    return Grid(MANTISSA_BITS, np.ones_like(source.bound), False)


def _slice(op: Slice, source: Grid) -> Grid:
    return Grid(source.exponent, source.bound[op.start : op.stop], source.exact)


def _pad(op: Pad, source: Grid) -> Grid:
    return Grid(source.exponent, np.pad(source.bound, op.channels), source.exact)


RULES: dict[type[Op], Callable[..., Grid]] = {
    Conv: _conv,
    BinaryConv: _binary_conv,
    Sign: _one,
    Clip: _clip,
    ToFloat: _one,
    Add: _add,
    MaxPool: _same,
    AvgPool: _avg_pool,
    Repeat: _repeat,
    Concat: _concat,
    Dense: _dense,
    Mul: _mul,
    Scale: _scale,
    PRelu: _prelu,
    Quantize: _quantize,
    Sigmoid: _rounded,
    Softmax: _rounded,
    Slice: _slice,
    Pad: _pad,
}


def grids(program: Program) -> dict[str, Grid]:
    """Grid of every value by name, ``"input"`` included; raises FormatError if malformed."""
    types = infer_types(program)
    is_pixels = program.input_kind == "u8"
    most = np.full(program.input_shape[2], 255.0 if is_pixels else INPUT_LIMIT)
    found = {INPUT: Grid(0 if is_pixels else MANTISSA_BITS, most, is_pixels)}
    for op in program.ops:
        sources = [found[name] for name in op.inputs]
        if isinstance(op, GlobalSum):
            height, width, _ = types[op.inputs[0]].shape
            source = sources[0]
            found[op.name] = _made(source.exponent, source.bound * height * width, source.exact)
        elif isinstance(op, Flatten):
            height, width, _ = types[op.inputs[0]].shape
            source = sources[0]
            bound = np.tile(source.bound, height * width)
            found[op.name] = Grid(source.exponent, bound, source.exact)
        else:
            found[op.name] = RULES[type(op)](op, *sources)
    return found


def _feeds_a_sign(program: Program) -> set[str]:
    """Names of the values on which some sign bit depends."""
    needed: set[str] = set()
    for op in reversed(program.ops):
        is_sign = isinstance(op, Sign) or (
            isinstance(op, BinaryConv) and isinstance(op.epilogue, Threshold)
        )
        if is_sign or op.name in needed:
            needed.update(op.inputs)
            if is_sign:
                needed.add(op.name)
    return needed


def analyse(program: Program) -> Exactness:
    """Prove (or not) that ``program`` computes the same bits on every float32 runtime.

    Raises:
        FormatError: if the program is malformed.
    """
    found = grids(program)
    signs = _feeds_a_sign(program)
    body = sorted(signs - {INPUT}) or [program.ops[0].name]
    tightest = max(body, key=lambda name: found[name].bits)
    return Exactness(
        body_exact=all(found[name].exact for name in signs),
        head_exact=found[program.ops[-1].name].exact,
        exponent=max(found[name].exponent for name in body),
        bound=max(float(found[name].bound.max()) for name in body),
        bits_left=MANTISSA_BITS - found[tightest].bits,
        tightest=tightest,
        has_signs=bool(signs),
        rounds_at=next(
            (
                op.name
                for op in program.ops
                if op.name in signs
                and not found[op.name].exact
                and all(found[name].exact for name in op.inputs)
            ),
            "",
        ),
    )
