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
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from frostbit.kernels.ir.program import Window
from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.vector import (
    BLOCK,
    I8,
    I32,
    I64,
    LANES,
    V32I,
    call,
    constant,
    emitted,
    load,
    offset,
    splat,
    store,
)
from frostbit.kernels.micro.xnor import TILE, pixel_bases, zeroed

PAIRS = TILE // 2
TRIPLE = 3
CHUNK = 63
GROUP = 8
"""Tiles whose tables are looked up together: their indices and counts stay in the L1 cache."""
TILE_COUNTS = TILE * LANES * 2
COUNT_BYTES = 2 * GROUP * TILE_COUNTS
"""Counts of a group, uint16 ``[2 blocks][GROUP][TILE][32]``."""
MAX_TAPS = 2**16 - 1
"""Most products that a count of 16 bits can hold; layers of more take another micro-kernel."""
NIBBLES = 8  # in a tap word
INDEX = ir.IntType(16)
V8I, V8X = ir.VectorType(I32, NIBBLES), ir.VectorType(INDEX, NIBBLES)
V32C, V16C, V16X = ir.VectorType(I8, 32), ir.VectorType(I8, 16), ir.VectorType(INDEX, 16)
V8C, V32X = ir.VectorType(I8, 8), ir.VectorType(INDEX, 32)
EVEN = 0x0F0F0F0F0F0F0F0F


def tables() -> NDArray[np.uint8]:
    """All tables, uint8 ``[256, 16]``: row ``a1 + 16 * a2``, column w."""
    nibble = np.arange(16, dtype=np.uint8)
    count = np.bitwise_count(nibble[:, None] ^ nibble)
    both = count[None, :, :] + 16 * count[:, None, :]
    return np.asarray(both.reshape(256, 16), np.uint8)


def padded_nibbles(words: int) -> int:
    """Nibbles of ``words`` tap words, rounded up to whole triples."""
    return -(-NIBBLES * words // TRIPLE) * TRIPLE


def index_bytes(words: int) -> int:
    """Bytes of the indices of one pair: 16 bits a nibble, and zeros for the last triple."""
    return 2 * NIBBLES * (words + 1)


def scratch_bytes(words: int) -> int:
    """Working memory of a layer with ``words`` tap words: counts, then indices of a group."""
    return COUNT_BYTES + GROUP * PAIRS * index_bytes(words)


def nibble_rows(rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Weights uint32 ``[O, words]`` as uint8 ``[O, nibbles]``, padded to whole triples."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    split = ((rows[:, :, None] >> shifts) & np.uint32(15)).astype(np.uint8)
    flat = split.reshape(len(rows), -1)
    return np.pad(flat, [(0, 0), (0, padded_nibbles(rows.shape[1]) - flat.shape[1])])


def _nibbles(builder: Any, word: Any, up: int) -> Any:
    """The eight nibbles of a word in 32-bit lanes, each times ``2**up``."""
    places = ir.Constant(V8I, [4 * i for i in range(NIBBLES)])
    spread = builder.lshr(splat(builder, word, V8I), places)
    return builder.shl(builder.and_(spread, constant(V8I, 15)), constant(V8I, up))


def _one_word(builder: Any, one: Any, two: Any) -> Any:
    """Table distances of one word of two pixels, at these addresses: uint16 ``[8]``."""
    one, two = load(builder, one, I32), load(builder, two, I32)
    both = builder.or_(_nibbles(builder, one, 4), _nibbles(builder, two, 8))
    return builder.trunc(both, V8X)


def _two_words(builder: Any, one: Any, two: Any) -> Any:
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


def _index(make: Callable[..., Any], at_once: int) -> Any:
    """Intrinsic that indexes a tile, ``at_once`` words in a step."""

    @emitted(types.void)
    def index_tile(
        builder: Any, source: Any, pixels: Any, offsets: Any, words: Any, indices: Any, stride: Any
    ) -> None:
        bases = pixel_bases(builder, source, pixels)
        starts = [builder.add(indices, builder.mul(stride, I64(pair))) for pair in range(PAIRS)]
        with cgutils.for_range_slice(builder, I64(0), words, I64(at_once)) as (word, _):
            step = load(builder, builder.add(offsets, builder.mul(word, I64(4))), I32)
            distance, place = builder.sext(step, I64), builder.mul(word, I64(2 * NIBBLES))
            for pair, start in enumerate(starts):
                one, two = (builder.add(base, distance) for base in bases[2 * pair : 2 * pair + 2])
                store(builder, make(builder, one, two), builder.add(start, place), 2)
        for start in starts:
            end = builder.add(start, builder.mul(words, I64(2 * NIBBLES)))
            store(builder, constant(V8X, 0), end, 2)

    return index_tile


index_by_one, index_by_two = _index(_one_word, 1), _index(_two_words, 2)
"""Byte distance in the tables for every nibble: uint16 ``[PAIRS][stride / 2]``.

The first four arguments are those of the micro-kernels in :mod:`frostbit.kernels.micro.xnor`. The
second takes two tap words at a time, which must lie side by side.
"""


def is_paired(window: Window, values: int) -> bool:
    """Whether the tap words lie side by side two by two; ``values`` words in a pixel."""
    joined = values * (window.kernel[1] if window.dilation[1] == 1 else 1)
    return joined % 2 == 0


def _table(builder: Any, tables_at: Any, index: Any) -> Any:
    """The table at the uint16 distance stored at ``index``, in both halves of a vector."""
    distance = builder.zext(load(builder, index, INDEX, 2), I64)
    half = load(builder, builder.add(tables_at, distance), V16C, 16)
    twice = ir.Constant(ir.VectorType(I32, 32), [*range(16), *range(16)])
    return builder.shuffle_vector(half, ir.Constant(V16C, ir.Undefined), twice)


def _halves(builder: Any, sums: Any) -> Any:
    """The upper four bits of every byte."""
    shifted = builder.lshr(builder.bitcast(sums, V16X), constant(V16X, 4))
    return builder.and_(builder.bitcast(shifted, V32C), constant(V32C, 15))


def _flush(builder: Any, total: Any, high: Any, counts: Any) -> None:
    """Add one pair's byte sums to uint16 counts ``[2][32]``."""
    sixteen = builder.shl(high, constant(V32C, 4))
    for pixel, value in enumerate((builder.sub(total, sixteen), high)):
        place = offset(builder, counts, 2 * LANES * pixel)
        summed = builder.add(load(builder, place, V32X, 2), builder.zext(value, V32X))
        store(builder, summed, place, 2)


@emitted(types.void)
def widen_counts(builder: Any, counts: Any, out: Any) -> None:
    """A tile's uint16 counts as the int32 ``[TILE][32]`` that the epilogues read."""
    for pixel in range(TILE):
        value = load(builder, offset(builder, counts, 2 * LANES * pixel), V32X, 2)
        store(builder, builder.zext(value, V32I), offset(builder, out, BLOCK * pixel))


def _lookup(blocks: int) -> Any:
    """The micro-kernel for one or two blocks of output channels."""

    @emitted(types.void)
    def tile(
        builder: Any,
        tables_at: Any,
        indices: Any,
        stride: Any,
        weights: Any,
        weight_stride: Any,
        triples: Any,
        counts: Any,
        count_stride: Any,
    ) -> None:
        places = [(pair, block) for pair in range(PAIRS) for block in range(blocks)]
        slots = zeroed(builder, V32C, 2 * len(places))
        with cgutils.for_range(builder, triples) as loop:
            at = builder.add(indices, builder.mul(loop.index, I64(2 * TRIPLE)))
            row = builder.add(weights, builder.mul(loop.index, I64(LANES * TRIPLE)))
            rows = [builder.add(row, builder.mul(weight_stride, I64(b))) for b in range(blocks)]
            starts = [builder.add(at, builder.mul(stride, I64(p))) for p in range(PAIRS)]
            sums: dict[tuple[int, int], Any] = {}
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
            out = builder.add(counts, builder.mul(count_stride, I64(block)))
            out = offset(builder, out, 4 * LANES * pair)
            _flush(builder, builder.load(slots[2 * i]), builder.load(slots[2 * i + 1]), out)

    return tile


@emitted(types.void)
def _absent(builder: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> None:
    """Stands for the micro-kernel on CPUs that have no AVX2; no plan asks for it there."""


HAS_LOOKUP = "lookup" in cpu.available()
lookup_one, lookup_two = (_lookup(1), _lookup(2)) if HAS_LOOKUP else (_absent, _absent)
