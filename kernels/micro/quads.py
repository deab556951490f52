"""Micro-kernel of a strided convolution of pixels with a large window, with a third fewer products.

Two neighbouring outputs of a filter with two taps need three products instead of four::

    y0 = x0 g0 + x1 g1 = (x0 - x1) g0 + x1 (g0 + g1)
    y1 = x1 g0 + x2 g1 = x1 (g0 + g1) - (x1 - x2) g1

(Winograd's F(2, 2); S. Winograd, Arithmetic Complexity of Computations, SIAM 1980). A row of taps
is a sum of such pairs, a tap and the one a stride further; so is a column of rows. Two by two
outputs, a *quad*, then need 9 products instead of 16, of differences of pixels, which are computed
once for the whole map, and of sums of weights, which are computed at load. All numbers are small
integers, so nothing is rounded, and weights of 8 bits become 10 at most: they meet in
``vpmaddwd``. Only signs come out, by the threshold epilogue.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types

from frostbit.kernels.micro.integers import HAS_INT16, INT16_WIDTH, multiply_add, over_taps
from frostbit.kernels.micro.operands import Taps
from frostbit.kernels.micro.vector import (
    BLOCK,
    I16,
    I32,
    I64,
    LANES,
    emitted,
    load,
    offset,
    sign_bits,
    store,
)
from frostbit.kernels.micro.xnor import TILE, entry, zeroed
from frostbit.kernels.op_table import AT_BITS, AT_SOURCE, AT_START

QUADS = 2
"""Quads at once. Registers, of 32 bytes: eight totals, two activations, one weight."""
ORDER = (1, 0, 2)
"""Classes of products along an axis as they are summed: those of both outputs first."""
_VECTORS = BLOCK // INT16_WIDTH
_WORDS = ir.VectorType(I32, INT16_WIDTH // 4)
Totals = list[Value]
"""A vector for each quad and part of a block."""


def _row_of_classes(
    builder: IRBuilder, bases: list[Value], taps: Taps, ends: Value, first: int
) -> tuple[Totals, Totals]:
    """Totals of the left and the right outputs of three classes, from class ``first`` on."""
    slots = zeroed(builder, _WORDS, QUADS * _VECTORS)

    def total(number: int) -> Totals:
        begin, end = (
            builder.sext(load(builder, offset(builder, ends, 4 * (number + i)), I32), I64)
            for i in range(2)
        )
        over_taps(builder, bases, taps, (begin, end), slots, multiply_add)
        return [builder.load(slot) for slot in slots]

    both = total(first)
    left = total(first + 1)
    for slot, value in zip(slots, both, strict=True):
        builder.store(value, slot)
    return left, total(first + 2)


def _finish(
    builder: IRBuilder, totals: Totals, pixels: Value, limits: Value, bits: Value, within: int
) -> None:
    """Signs of pixel ``within`` of every quad."""
    for quad in range(QUADS):
        pixel = quad * TILE + within
        place = builder.add(limits, entry(builder, pixels, pixel, AT_START))
        masks = []
        for v, total in enumerate(totals[quad * _VECTORS : (quad + 1) * _VECTORS]):
            limit = load(builder, offset(builder, place, INT16_WIDTH * v), _WORDS)
            masks.append(builder.icmp_signed(">", total, limit))
        at = builder.add(bits, entry(builder, pixels, pixel, AT_BITS))
        store(builder, sign_bits(builder, masks), at)


@emitted(types.void)
def _quads(
    builder: IRBuilder,
    source: Value,
    pixels: Value,
    taps: Taps,
    ends: Value,
    limits: Value,
    bits: Value,
) -> None:
    """``QUADS`` quads and a block of channels, from activations to signs.

    ``pixels`` is their part of the pixel table, four rows each; ``ends`` is the address of int32
    ``[10]``: where each class of taps begins, and where the last one ends.
    """
    starts = (entry(builder, pixels, quad * TILE, AT_SOURCE) for quad in range(QUADS))
    bases = [builder.add(source, start) for start in starts]
    both = _row_of_classes(builder, bases, taps, ends, 0)
    for row in range(2):
        mine = _row_of_classes(builder, bases, taps, ends, 3 * (row + 1))
        for column, (one, two) in enumerate(zip(both, mine, strict=True)):
            totals = [builder.add(*pair) for pair in zip(one, two, strict=True)]
            _finish(builder, totals, pixels, limits, bits, 2 * row + column)


@emitted(types.void)
def _absent(
    builder: IRBuilder,
    source: Value,
    pixels: Value,
    taps: Taps,
    ends: Value,
    limits: Value,
    bits: Value,
) -> None:
    """Stands for the micro-kernel where it cannot run; no plan asks for it there."""


quads_tile = _quads if HAS_INT16 else _absent


@emitted(types.void)
def difference32(builder: IRBuilder, source: Value, distance: Value, out: Value) -> None:
    """32 int16 at ``source`` less those ``distance`` bytes further, at ``out``."""
    kind = ir.VectorType(I16, LANES)
    far = load(builder, builder.add(source, distance), kind, 2)
    store(builder, builder.sub(load(builder, source, kind, 2), far), out, 2)
