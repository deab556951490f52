"""Epilogues of the binary convolution: from counts of mismatches to floats and sign bits.

``acc = start - 2 * mismatches``, where ``start`` is the accumulator at 0 mismatches. Then either

* affine: ``y = mul * acc + add + residual``, stored as float32 and as its sign; or
* threshold: the sign of ``acc >= level``, that is ``mismatches <= limit`` with the limit
  ``floor((start - level) / 2)`` computed once, at load; or
* switch: the sign of ``mul * acc + add + residual`` where nobody needs the number and the residual
  is bits: a threshold for either sign of the residual, also computed at load.

The product and the first sum are fused where the machine can, which rounds no more often than
the reference does. ``..._tile`` handles a whole tile without a branch, ``affine32`` one pixel.
"""

from __future__ import annotations

from typing import Any

from numba import types

from frostbit.kernels.micro.vector import (
    BLOCK,
    I32,
    I64,
    V32F,
    V32I,
    call,
    emitted,
    load,
    offset,
    sign_word,
    store,
)
from frostbit.kernels.micro.xnor import PIXEL_BYTES, TILE
from frostbit.kernels.op_table import AT_BITS, AT_RESIDUAL, AT_START


def _affine(builder: Any, counts: Any, start: Any, mul: Any, add: Any, residual: Any) -> Any:
    """The 32 floats of one pixel; ``mul`` and ``add`` are loaded, the rest addresses."""
    counted = load(builder, counts, V32I)
    acc = builder.sub(load(builder, start, V32I), builder.add(counted, counted))
    scaled = call(builder, "llvm.fmuladd.v32f32", builder.sitofp(acc, V32F), mul, add)
    return builder.fadd(scaled, load(builder, residual, V32F))


def _above(builder: Any, counted: Any, limit: Any) -> Any:
    """32-bit word with a 1 (-1) where the int32 counts exceed the limit at an address."""
    above = builder.icmp_signed(">", counted, load(builder, limit, V32I))
    return builder.bitcast(above, I32)


def _entry(builder: Any, entry: Any, pixel: int, column: int) -> Any:
    """A distance in row ``pixel`` of the pixel table at ``entry``."""
    place = offset(builder, entry, PIXEL_BYTES * pixel + column)
    return builder.sext(load(builder, place, I32), I64)


@emitted(types.int64)
def affine32(
    builder: Any, counts: Any, start: Any, mul: Any, add: Any, residual: Any, out: Any
) -> Any:
    """Affine epilogue of one pixel and block; returns the sign word."""
    factors, added = load(builder, mul, V32F), load(builder, add, V32F)
    total = _affine(builder, counts, start, factors, added, residual)
    store(builder, total, out)
    return sign_word(builder, total)


@emitted(types.void)
def affine_tile(
    builder: Any,
    counts: Any,
    entry: Any,
    start: Any,
    mul: Any,
    add: Any,
    residual: Any,
    residual_pixel: Any,
    out: Any,
    out_pixel: Any,
    bits: Any,
) -> None:
    """Affine epilogue of TILE pixels; ``entry`` is the tile's part of the pixel table."""
    factors, added = load(builder, mul, V32F), load(builder, add, V32F)
    for p in range(TILE):
        total = _affine(
            builder,
            offset(builder, counts, BLOCK * p),
            builder.add(start, _entry(builder, entry, p, AT_START)),
            factors,
            added,
            residual,
        )
        store(builder, total, out)
        word = builder.trunc(sign_word(builder, total), I32)
        store(builder, word, builder.add(bits, _entry(builder, entry, p, AT_BITS)))
        residual, out = builder.add(residual, residual_pixel), builder.add(out, out_pixel)


@emitted(types.void)
def threshold_tile(builder: Any, counts: Any, entry: Any, limit: Any, bits: Any) -> None:
    """Threshold epilogue of TILE pixels (a pixel listed twice is written twice)."""
    for p in range(TILE):
        place = builder.add(limit, _entry(builder, entry, p, AT_START))
        word = _above(builder, load(builder, offset(builder, counts, BLOCK * p), V32I), place)
        store(builder, word, builder.add(bits, _entry(builder, entry, p, AT_BITS)))


@emitted(types.void)
def switch_tile(
    builder: Any,
    counts: Any,
    entry: Any,
    limit: Any,
    second: Any,
    flips: Any,
    residual: Any,
    bits: Any,
) -> None:
    """Switch epilogue of TILE pixels (a pixel listed twice is written twice).

    ``limit`` holds for a residual of +1; ``second`` bytes further lies the one for -1. ``flips``
    is the address of a word with a 1 where the sign is the other way round.
    """
    flip = load(builder, flips, I32)
    for p in range(TILE):
        place = builder.add(limit, _entry(builder, entry, p, AT_START))
        counted = load(builder, offset(builder, counts, BLOCK * p), V32I)
        plus, minus = (_above(builder, counted, at) for at in (place, builder.add(place, second)))
        chosen = load(builder, builder.add(residual, _entry(builder, entry, p, AT_RESIDUAL)), I32)
        word = builder.xor(plus, builder.and_(builder.xor(plus, minus), chosen))
        word = builder.xor(word, flip)
        store(builder, word, builder.add(bits, _entry(builder, entry, p, AT_BITS)))
