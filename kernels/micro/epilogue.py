"""Epilogues of the binary convolution: from counts of mismatches to floats and sign bits.

``acc = start - 2 * mismatches``, where ``start`` is the accumulator at 0 mismatches. Then either

* affine: ``y = mul * acc + add + residual``, stored as float32 and as its sign; with limits (of
  imported networks), ``y = clip(mul * clip(acc, low, high) + add + residual, least, most)``; or
* threshold: the sign of ``acc >= level``, that is ``mismatches <= limit`` with the limit
  ``floor((start - level) / 2)`` computed once, at load; or
* switch: the sign of ``mul * acc + add + residual`` where nobody needs the number and the residual
  is bits: a threshold for either sign of the residual, also computed at load.

The product and the first sum are fused where the machine can, which rounds no more often than
the reference does. ``..._tile`` handles a whole tile without a branch, ``affine32`` one pixel.
Kernels with limits are apart, so that the others do nothing for them.
"""

from __future__ import annotations

from llvmlite import ir
from llvmlite.ir import IRBuilder, Type, Value
from numba import types

from frostbit.kernels.micro.operands import Affine, Limits, Parts, Switch
from frostbit.kernels.micro.vector import (
    BLOCK,
    F32,
    I32,
    LANES,
    V32F,
    V32I,
    call,
    clamped,
    emitted,
    load,
    offset,
    part,
    sign_word,
    splat,
    store,
)
from frostbit.kernels.micro.xnor import TILE, entry
from frostbit.kernels.op_table import AT_BITS, AT_RESIDUAL, AT_START

Ends = tuple[Value, Value]
"""The least and the largest of something, as vectors."""


def ends(builder: IRBuilder, limits: Limits, kind: Type, lanes: int) -> Ends:
    """The limits of accumulators (``I32``) or of results (``F32``)."""
    pair = (limits.low, limits.high) if kind == I32 else (limits.least, limits.most)
    low, high = (builder.bitcast(builder.trunc(value, I32), kind) for value in pair)
    vector = ir.VectorType(kind, lanes)
    return splat(builder, low, vector), splat(builder, high, vector)


def _affine(
    builder: IRBuilder,
    counts: Value,
    start: Value,
    loaded: tuple[Value, Value],
    residual: Value,
    limits: Limits | None = None,
) -> Value:
    """The 32 floats of one pixel; ``loaded`` are factors and addends, the rest addresses."""
    counted = load(builder, counts, V32I)
    acc = builder.sub(load(builder, start, V32I), builder.add(counted, counted))
    if limits is not None:
        acc = clamped(builder, acc, *ends(builder, limits, I32, LANES))
    scaled = call(builder, "llvm.fmuladd.v32f32", builder.sitofp(acc, V32F), *loaded)
    total = builder.fadd(scaled, load(builder, residual, V32F))
    if limits is None:
        return total
    return clamped(builder, total, *ends(builder, limits, F32, LANES))


def _above(builder: IRBuilder, counted: Value, limit: Value) -> Value:
    """32-bit word with a 1 (-1) where the int32 counts exceed the limit at an address."""
    above = builder.icmp_signed(">", counted, load(builder, limit, V32I))
    return builder.bitcast(above, I32)


def _pixel(
    builder: IRBuilder,
    counts: Value,
    affine: Affine,
    residual: Value,
    out: Value,
    limits: Limits | None = None,
) -> Value:
    """Affine epilogue of one pixel and block; returns the sign word."""
    loaded = load(builder, affine.mul, V32F), load(builder, affine.add, V32F)
    total = _affine(builder, counts, affine.start, loaded, residual, limits)
    store(builder, total, out)
    return sign_word(builder, total)


@emitted(types.int64)
def affine32(
    builder: IRBuilder, counts: Value, affine: Affine, residual: Value, out: Value
) -> Value:
    """Affine epilogue of one pixel and block; returns the sign word."""
    return _pixel(builder, counts, affine, residual, out)


@emitted(types.int64)
def limited32(
    builder: IRBuilder, counts: Value, affine: Affine, residual: Value, out: Value, limits: Limits
) -> Value:
    """The same with limits."""
    return _pixel(builder, counts, affine, residual, out, limits)


def _tile(
    builder: IRBuilder,
    counts: Value,
    pixels: Value,
    affine: Affine,
    residual: Parts,
    out: Parts,
    bits: Value,
    limits: Limits | None = None,
) -> None:
    """Affine epilogue of TILE pixels; ``pixels`` is the tile's part of the pixel table.

    ``residual`` and ``out`` go from pixel to pixel. Registers: factors and addends of the block
    stay in two vectors of 32 (eight of AVX2's sixteen), one pixel's floats pass through the rest.
    """
    loaded = load(builder, affine.mul, V32F), load(builder, affine.add, V32F)
    for p in range(TILE):
        start = builder.add(affine.start, entry(builder, pixels, p, AT_START))
        at_counts = offset(builder, counts, BLOCK * p)
        total = _affine(builder, at_counts, start, loaded, part(builder, residual, p), limits)
        store(builder, total, part(builder, out, p))
        word = builder.trunc(sign_word(builder, total), I32)
        store(builder, word, builder.add(bits, entry(builder, pixels, p, AT_BITS)))


@emitted(types.void)
def affine_tile(
    builder: IRBuilder,
    counts: Value,
    pixels: Value,
    affine: Affine,
    residual: Parts,
    out: Parts,
    bits: Value,
) -> None:
    """Affine epilogue of TILE pixels."""
    _tile(builder, counts, pixels, affine, residual, out, bits)


@emitted(types.void)
def limited_tile(
    builder: IRBuilder,
    counts: Value,
    pixels: Value,
    affine: Affine,
    residual: Parts,
    out: Parts,
    bits: Value,
    limits: Limits,
) -> None:
    """The same with limits."""
    _tile(builder, counts, pixels, affine, residual, out, bits, limits)


@emitted(types.void)
def threshold_tile(
    builder: IRBuilder, counts: Value, pixels: Value, limit: Value, bits: Value
) -> None:
    """Threshold epilogue of TILE pixels (a pixel listed twice is written twice)."""
    for p in range(TILE):
        place = builder.add(limit, entry(builder, pixels, p, AT_START))
        word = _above(builder, load(builder, offset(builder, counts, BLOCK * p), V32I), place)
        store(builder, word, builder.add(bits, entry(builder, pixels, p, AT_BITS)))


@emitted(types.void)
def switch_tile(
    builder: IRBuilder, counts: Value, pixels: Value, switch: Switch, residual: Value, bits: Value
) -> None:
    """Switch epilogue of TILE pixels (a pixel listed twice is written twice).

    Registers: one pixel's 32 counts are compared twice where they lie; what stays is words.
    """
    flip = load(builder, switch.flips, I32)
    for p in range(TILE):
        limits = builder.add(switch.limits, entry(builder, pixels, p, AT_START))
        counted = load(builder, offset(builder, counts, BLOCK * p), V32I)
        plus = _above(builder, counted, limits)
        minus = _above(builder, counted, builder.add(limits, switch.second))
        chosen = load(builder, builder.add(residual, entry(builder, pixels, p, AT_RESIDUAL)), I32)
        word = builder.xor(plus, builder.and_(builder.xor(plus, minus), chosen))
        word = builder.xor(word, flip)
        store(builder, word, builder.add(bits, entry(builder, pixels, p, AT_BITS)))
