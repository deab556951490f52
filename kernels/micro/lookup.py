"""Micro-kernel of the binary convolution for AVX2: a table look-up in place of xor and popcount.

``vpshufb`` looks up 32 nibbles at once. Weights lie one nibble (four input channels of one tap)
to a byte, 32 output channels to a vector; the table of 16 bytes is chosen by the activations: for
the nibbles a1, a2 of two output pixels, a *pair*, entry w is ``popcount(a1 ^ w) + 16 *
popcount(a2 ^ w)``. One look-up counts 256 products: no xor, no mask, no sum across lanes.

Three look-ups add up without a carry between the halves (3 * 4 < 16). Then ``total += s`` and
``high += s >> 4``, both modulo 256; after at most ``CHUNK`` nibbles (63 * 4 = 252) ``high`` is
the count of the second pixel and ``total - 16 * high`` that of the first.

The work is ordered for the first-level cache, as one nibble a byte doubles the size of weights:
``index_by_...`` write where the tables of a few tiles start, once for all output channels; then
for every two blocks of output channels, for every chunk of taps, for every one of these tiles,
``lookup_...`` count. Nine instructions of vectors for three look-ups, of which two blocks and
two pairs share what is loaded.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.operands import Parts, Taps, Tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    I8,
    I32,
    I64,
    LANES,
    V32I,
    Intrinsic,
    call,
    constant,
    emitted,
    load,
    offset,
    part,
    splat,
    store,
)
from frostbit.kernels.micro.xnor import TILE, pixel_bases, zeroed

PAIRS = TILE // 2
TRIPLE = 3
"""Look-ups added up before the halves of a byte are taken apart: 3 * 4 < 16."""
CHUNK = 63
"""Nibbles whose counts fit a byte, a multiple of three: 63 * 4 = 252."""
GROUP = 8
"""Tiles whose tables are looked up together: their indices and counts stay in the L1 cache."""
TILE_COUNTS = TILE * LANES * 2
COUNT_BYTES = 2 * GROUP * TILE_COUNTS
"""Counts of a group, uint16 ``[2 blocks][GROUP][TILE][32]``."""
NIBBLES = 8  # in a tap word
INDEX = ir.IntType(16)
V8I, V8X = ir.VectorType(I32, NIBBLES), ir.VectorType(INDEX, NIBBLES)
V32C, V16C, V16X = ir.VectorType(I8, 32), ir.VectorType(I8, 16), ir.VectorType(INDEX, 16)
V8C, V32X = ir.VectorType(I8, 8), ir.VectorType(INDEX, 32)
EVEN = 0x0F0F0F0F0F0F0F0F


def _nibbles(builder: IRBuilder, word: Value, up: int) -> Value:
    """The eight nibbles of a word in 32-bit lanes, each times ``2**up``."""
    places = ir.Constant(V8I, [4 * i for i in range(NIBBLES)])
    spread = builder.lshr(splat(builder, word, V8I), places)
    return builder.shl(builder.and_(spread, constant(V8I, 15)), constant(V8I, up))


def _one_word(builder: IRBuilder, one: Value, two: Value) -> Value:
    """Table distances of one word of two pixels, at these addresses: uint16 ``[8]``."""
    one, two = load(builder, one, I32), load(builder, two, I32)
    both = builder.or_(_nibbles(builder, one, 4), _nibbles(builder, two, 8))
    return builder.trunc(both, V8X)


def _two_words(builder: IRBuilder, one: Value, two: Value) -> Value:
    """Table distances of two neighbouring words of two pixels: uint16 ``[16]``.

    Tables are numbered ``a1 + 16 * a2`` first, for the nibbles of even and odd places apart.
    """
    one, two = load(builder, one, I64), load(builder, two, I64)
    mask, four = I64(EVEN), I64(4)
    even = builder.or_(builder.and_(one, mask), builder.shl(builder.and_(two, mask), four))
    odd = builder.and_(builder.lshr(one, four), mask)
    odd = builder.or_(odd, builder.and_(two, builder.not_(mask)))
    in_turn = [place for i in range(8) for place in (i, i + 8)]
    numbers = builder.shuffle_vector(
        builder.bitcast(even, V8C),
        builder.bitcast(odd, V8C),
        ir.Constant(ir.VectorType(I32, 16), in_turn),
    )
    return builder.shl(builder.zext(numbers, V16X), constant(V16X, 4))


def _index(make: Callable[[IRBuilder, Value, Value], Value], at_once: int) -> Intrinsic:
    """Intrinsic that indexes a tile, ``at_once`` words in a step."""

    @emitted(types.void)
    def index_tile(builder: IRBuilder, tile: Tile, taps: Taps, pairs: Parts) -> None:
        bases = pixel_bases(builder, tile)
        starts = [part(builder, pairs, pair) for pair in range(PAIRS)]
        with cgutils.for_range_slice(builder, I64(0), taps.count, I64(at_once)) as (word, _):
            step = load(builder, builder.add(taps.offsets, builder.mul(word, I64(4))), I32)
            distance, place = builder.sext(step, I64), builder.mul(word, I64(2 * NIBBLES))
            for pair, start in enumerate(starts):
                one, two = (builder.add(base, distance) for base in bases[2 * pair : 2 * pair + 2])
                store(builder, make(builder, one, two), builder.add(start, place), 2)
        for start in starts:
            end = builder.add(start, builder.mul(taps.count, I64(2 * NIBBLES)))
            store(builder, constant(V8X, 0), end, 2)

    return index_tile


index_by_one, index_by_two = _index(_one_word, 1), _index(_two_words, 2)
"""Byte distance in the tables for every nibble, uint16, for every pair of pixels.

Operands as in :mod:`frostbit.kernels.micro.xnor`; ``taps.weights`` is not read. The second takes
two tap words at a time, which must lie side by side.
"""


def _table(builder: IRBuilder, tables_at: Value, index: Value) -> Value:
    """The table at the uint16 distance stored at ``index``, in both halves of a vector."""
    distance = builder.zext(load(builder, index, INDEX, 2), I64)
    half = load(builder, builder.add(tables_at, distance), V16C, 16)
    twice = ir.Constant(ir.VectorType(I32, 32), [*range(16), *range(16)])
    return builder.shuffle_vector(half, ir.Constant(V16C, ir.Undefined), twice)


def _halves(builder: IRBuilder, sums: Value) -> Value:
    """The upper four bits of every byte."""
    shifted = builder.lshr(builder.bitcast(sums, V16X), constant(V16X, 4))
    return builder.and_(builder.bitcast(shifted, V32C), constant(V32C, 15))


def _flush(builder: IRBuilder, total: Value, high: Value, counts: Value) -> None:
    """Add one pair's byte sums to uint16 counts ``[2][32]``."""
    sixteen = builder.shl(high, constant(V32C, 4))
    for pixel, value in enumerate((builder.sub(total, sixteen), high)):
        place = offset(builder, counts, 2 * LANES * pixel)
        summed = builder.add(load(builder, place, V32X, 2), builder.zext(value, V32X))
        store(builder, summed, place, 2)


@emitted(types.void)
def widen_counts(builder: IRBuilder, counts: Value, out: Value) -> None:
    """A tile's uint16 counts as the int32 ``[TILE][32]`` that the epilogues read."""
    for pixel in range(TILE):
        value = load(builder, offset(builder, counts, 2 * LANES * pixel), V32X, 2)
        store(builder, builder.zext(value, V32I), offset(builder, out, BLOCK * pixel))


def _lookup(blocks: int) -> Intrinsic:
    """The micro-kernel for one or two blocks of output channels.

    ``pairs`` are the indices of a tile's pairs of pixels, ``weights`` and ``counts`` those of the
    blocks. Registers: for two pairs and two blocks, eight vectors hold ``total`` and ``high``; a
    turn of three look-ups loads two tables and two vectors of weights at a time and adds up four
    sums, so all sixteen of AVX2 are taken and none is spilled.
    """

    @emitted(types.void)
    def kernel(
        builder: IRBuilder,
        tables_at: Value,
        pairs: Parts,
        weights: Parts,
        triples: Value,
        counts: Parts,
    ) -> None:
        places = [(pair, block) for pair in range(PAIRS) for block in range(blocks)]
        slots = zeroed(builder, V32C, 2 * len(places))
        with cgutils.for_range(builder, triples) as loop:
            move = builder.mul(loop.index, I64(2 * TRIPLE))
            at = Parts(builder.add(pairs.address, move), pairs.step)
            move = builder.mul(loop.index, I64(LANES * TRIPLE))
            row = Parts(builder.add(weights.address, move), weights.step)
            rows = [part(builder, row, b) for b in range(blocks)]
            starts = [part(builder, at, p) for p in range(PAIRS)]
            sums: dict[tuple[int, int], Value] = {}
            for j in range(TRIPLE):
                chosen = [_table(builder, tables_at, offset(builder, at, 2 * j)) for at in starts]
                stored = [load(builder, offset(builder, at, LANES * j), V32C) for at in rows]
                for pair, block in places:
                    args = (chosen[pair], stored[block])
                    found = call(builder, "llvm.x86.avx2.pshuf.b", *args)
                    before = sums.get((pair, block))
                    sums[pair, block] = found if before is None else builder.add(before, found)
            for i, place in enumerate(places):
                total = builder.add(builder.load(slots[2 * i]), sums[place])
                high = builder.add(builder.load(slots[2 * i + 1]), _halves(builder, sums[place]))
                builder.store(total, slots[2 * i])
                builder.store(high, slots[2 * i + 1])
        for i, (pair, block) in enumerate(places):
            out = offset(builder, part(builder, counts, block), 4 * LANES * pair)
            _flush(builder, builder.load(slots[2 * i]), builder.load(slots[2 * i + 1]), out)

    return kernel


@emitted(types.void)
def _absent(
    builder: IRBuilder,
    tables_at: Value,
    pairs: Parts,
    weights: Parts,
    triples: Value,
    counts: Parts,
) -> None:
    """Stands for the micro-kernel on CPUs that have no AVX2; no plan asks for it there."""


HAS_LOOKUP = "lookup" in cpu.available()
lookup_one, lookup_two = (_lookup(1), _lookup(2)) if HAS_LOOKUP else (_absent, _absent)
