"""Functions of 32 channels of float maps, one block at a time.

Those of one or two maps write the 32 results at ``out`` and return their sign word. Spare lanes
hold numbers that are not negative, and parameters of 0, which leaves them so.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.micro.operands import Parts
from frostbit.kernels.micro.vector import (
    F32,
    I32,
    I64,
    LANES,
    V32F,
    Intrinsic,
    call,
    clamped,
    constant,
    emitted,
    load,
    sign_word,
    splat,
    store,
)

F64 = ir.DoubleType()


def _finish(builder: IRBuilder, value: Value, out: Value) -> Value:
    store(builder, value, out)
    return sign_word(builder, value)


@emitted(types.int64)
def sum32(builder: IRBuilder, a: Value, b: Value, out: Value) -> Value:
    """``a + b``."""
    return _finish(builder, builder.fadd(load(builder, a, V32F), load(builder, b, V32F)), out)


@emitted(types.int64)
def product32(builder: IRBuilder, a: Value, b: Value, out: Value) -> Value:
    """``a * b``."""
    return _finish(builder, builder.fmul(load(builder, a, V32F), load(builder, b, V32F)), out)


@emitted(types.int64)
def clip32(builder: IRBuilder, source: Value, low: Value, high: Value, out: Value) -> Value:
    """``clip(source, low, high)``."""
    limits = load(builder, low, V32F), load(builder, high, V32F)
    return _finish(builder, clamped(builder, load(builder, source, V32F), *limits), out)


@emitted(types.int64)
def scaled32(builder: IRBuilder, source: Value, mul: Value, add: Value, out: Value) -> Value:
    """``mul * source + add``, fused where the machine can."""
    operands = (load(builder, at, V32F) for at in (source, mul, add))
    return _finish(builder, call(builder, "llvm.fmuladd.v32f32", *operands), out)


@emitted(types.int64)
def prelu32(builder: IRBuilder, source: Value, slope: Value, out: Value) -> Value:
    """``source`` where it is not negative, else ``slope * source``."""
    value = load(builder, source, V32F)
    scaled = builder.fmul(value, load(builder, slope, V32F))
    kept = builder.fcmp_ordered(">=", value, constant(V32F, 0.0))
    return _finish(builder, builder.select(kept, value, scaled), out)


@emitted(types.int64)
def quantize32(
    builder: IRBuilder, source: Value, step: Value, low: Value, high: Value, out: Value
) -> Value:
    """``step * clip(round(source / step), low, high)``; ``step`` is the bits of a float32."""
    steps = splat(builder, builder.bitcast(builder.trunc(step, I32), F32), V32F)
    whole = call(builder, "llvm.rint.v32f32", builder.fdiv(load(builder, source, V32F), steps))
    whole = clamped(builder, whole, load(builder, low, V32F), load(builder, high, V32F))
    return _finish(builder, builder.fmul(whole, steps), out)


@emitted(types.int64)
def sigmoid32(builder: IRBuilder, source: Value, out: Value) -> Value:
    """``1 / (1 + exp(-source))`` in float64, rounded once; far below 0 exp is infinite: 0."""
    kind = ir.VectorType(F64, LANES)
    one = constant(kind, 1.0)
    negative = builder.fsub(constant(kind, 0.0), builder.fpext(load(builder, source, V32F), kind))
    power = call(builder, f"llvm.exp.v{LANES}f64", negative)
    value = builder.fdiv(one, builder.fadd(one, power))
    return _finish(builder, builder.fptrunc(value, V32F), out)


def _larger(builder: IRBuilder, a: Value, b: Value) -> Value:
    return builder.select(builder.fcmp_ordered(">", b, a), b, a)


def _sum(builder: IRBuilder, a: Value, b: Value) -> Value:
    return builder.fadd(a, b)


def _over_window(join: Callable[[IRBuilder, Value, Value], Value]) -> Intrinsic:
    """``out = join(join(tap, tap), ...)`` over the taps of ``rows`` lines, ``columns`` in each.

    ``lines`` are where the first taps lie, ``step`` is the distance of two taps of a line; there is
    at least one tap. The result stays in registers until it is whole.
    """

    @emitted(types.void)
    def over_window(
        builder: IRBuilder, lines: Parts, rows: Value, step: Value, columns: Value, out: Value
    ) -> None:
        found = cgutils.alloca_once(builder, V32F)
        builder.store(load(builder, lines.address, V32F), found)
        with cgutils.for_range(builder, rows) as down:
            line = builder.add(lines.address, builder.mul(lines.step, down.index))
            is_first = builder.icmp_signed("==", down.index, I64(0))
            begin = builder.select(is_first, I64(1), I64(0))
            with cgutils.for_range_slice(builder, begin, columns, I64(1)) as (right, _):
                tap = load(builder, builder.add(line, builder.mul(step, right)), V32F)
                builder.store(join(builder, builder.load(found), tap), found)
        store(builder, builder.load(found), out)

    return over_window


maximum_of, sum_of = _over_window(_larger), _over_window(_sum)


@emitted(types.void)
def softmax(builder: IRBuilder, source: Value, count: Value, out: Value) -> None:
    """``exp(x) / sum(exp(x))`` of ``count`` floats in float64, rounded once."""

    def at(base: Value, index: Value) -> Value:
        return builder.add(base, builder.mul(index, I64(4)))

    def power(index: Value) -> Value:
        value = builder.fpext(load(builder, at(source, index), F32), F64)
        return call(builder, "llvm.exp.f64", builder.fsub(value, builder.load(most)))

    most, total = (cgutils.alloca_once(builder, F64) for _ in range(2))
    builder.store(builder.fpext(load(builder, source, F32), F64), most)
    builder.store(ir.Constant(F64, 0.0), total)
    with cgutils.for_range(builder, count) as loop:
        value, old = (
            builder.fpext(load(builder, at(source, loop.index), F32), F64),
            builder.load(most),
        )
        builder.store(builder.select(builder.fcmp_ordered(">", value, old), value, old), most)
    with cgutils.for_range(builder, count) as loop:
        builder.store(builder.fadd(builder.load(total), power(loop.index)), total)
    with cgutils.for_range(builder, count) as loop:
        share = builder.fdiv(power(loop.index), builder.load(total))
        store(builder, builder.fptrunc(share, F32), at(out, loop.index))
