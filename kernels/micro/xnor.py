"""Micro-kernels of the binary convolution: mismatches by xor and popcount.

One call handles a *tile*: ``TILE`` output pixels times one block of 32 output channels. Lanes
are output channels: weights lie as ``[block][tap word][32]`` uint32, so one load serves the
same word of 32 filters; a word of activations is broadcast and compared with all of them; and
each loaded weight serves ``TILE`` pixels. A word holds 32 input channels of one tap, so layers
of 32 channels waste nothing.

All micro-kernels have the same interface, and count the same integers::

    kernel(tile, taps, counts)

    tile, taps  :mod:`frostbit.kernels.micro.operands`; a tap is a word, weights are uint32
    counts      address of int32 [TILE][32], written: popcount(activation xor weight), all words

Instructions per vector of weights and pixel: xor, popcount, add. With AVX-512 that is 3 for
512 products. Without a vector popcount (``bytes``) LLVM expands a count per byte to two nibble
look-ups; at most 31 counts of 8 fit a byte, then they are widened.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

from llvmlite import ir
from llvmlite.ir import IRBuilder, Type, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.jit import inner
from frostbit.kernels.micro.operands import Taps, Tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    I8,
    I32,
    I64,
    LANES,
    Intrinsic,
    call,
    clear,
    constant,
    emitted,
    load,
    load_i32,
    load_u32,
    offset,
    popcount,
    splat,
    store,
    store_u32,
)

TILE = 4
"""Output pixels at once: each weight that is loaded serves all of them."""
PIXEL_BYTES = 16
"""A row of the pixel table: four int32."""
BYTE_TAPS = 31
"""Words whose counts fit a byte: 31 * 8 = 248 <= 255."""


def pixel_bases(builder: IRBuilder, tile: Tile) -> list[Value]:
    """Addresses of the first tap of each pixel of a tile."""
    rows = [offset(builder, tile.pixels, PIXEL_BYTES * p) for p in range(TILE)]
    distances = [load(builder, row, I32) for row in rows]
    return [builder.add(tile.source, builder.sext(distance, I64)) for distance in distances]


def entry(builder: IRBuilder, pixels: Value, pixel: int, column: int) -> Value:
    """A distance in row ``pixel`` of the pixel table at ``pixels``."""
    place = offset(builder, pixels, PIXEL_BYTES * pixel + column)
    return builder.sext(load(builder, place, I32), I64)


def zeroed(builder: IRBuilder, kind: Type, count: int) -> list[Value]:
    """Stack slots that LLVM turns into registers, set to 0 here."""
    slots = [cgutils.alloca_once(builder, kind) for _ in range(count)]
    for slot in slots:
        builder.store(constant(kind, 0), slot)
    return slots


def _count(
    builder: IRBuilder, bases: list[Value], taps: Taps, index: Value, slots: list[Value]
) -> None:
    """Add the mismatches of tap word ``index`` to ``slots`` (pixel by pixel, then vectors)."""
    kind = slots[0].type.pointee
    lanes = kind.count * kind.element.width // 32
    words = ir.VectorType(I32, lanes)
    step = load(builder, builder.add(taps.offsets, builder.mul(index, I64(4))), I32)
    distance = builder.sext(step, I64)
    row = builder.add(taps.weights, builder.mul(index, I64(BLOCK)))
    active = [
        splat(builder, load(builder, builder.add(base, distance), I32), words) for base in bases
    ]
    vectors = LANES // lanes
    for v in range(vectors):
        weight = load(builder, offset(builder, row, 4 * lanes * v), words)
        for p, activation in enumerate(active):
            slot = slots[p * vectors + v]
            mismatch = builder.bitcast(builder.xor(weight, activation), kind)
            counted = call(builder, f"llvm.ctpop.v{kind.count}i{kind.element.width}", mismatch)
            builder.store(builder.add(builder.load(slot), counted), slot)


def _by_words(
    builder: IRBuilder, bases: list[Value], taps: Taps, counts: Value, width: int
) -> None:
    """Counts in 32-bit lanes throughout.

    Registers, of 64 bytes: eight hold the counts of four pixels, four their activations, one the
    weights; of 32 there is room to spare.
    """
    kind = ir.VectorType(I32, width // 4)
    slots = zeroed(builder, kind, TILE * BLOCK // width)
    with cgutils.for_range(builder, taps.count) as loop:
        _count(builder, bases, taps, loop.index, slots)
    for i, slot in enumerate(slots):
        store(builder, builder.load(slot), offset(builder, counts, width * i))


def _widened(builder: IRBuilder, counted: Value, width: int) -> Value:
    """Sum of the four bytes of each 32-bit lane, as int32 lanes."""
    kind = ir.VectorType(I32, width // 4)
    value = builder.bitcast(counted, kind)
    for shift, mask in ((8, 0x00FF00FF), (16, 0x0000FFFF)):
        high = builder.lshr(value, constant(kind, shift))
        keep = constant(kind, mask)
        value = builder.add(builder.and_(value, keep), builder.and_(high, keep))
    return value


def _by_bytes(
    builder: IRBuilder, bases: list[Value], taps: Taps, counts: Value, width: int
) -> None:
    """Counts in bytes, widened into ``counts`` every ``BYTE_TAPS`` words; two pixels at a time.

    Registers, of 32 bytes: eight hold the counts of two pixels, two their activations, one the
    weights; the rest of sixteen the nibble table and what a count per byte is made of. Four pixels
    would not fit.
    """
    kind = ir.VectorType(I8, width)
    lanes = ir.VectorType(I32, width // 4)
    zero, chunk = I64(0), I64(BYTE_TAPS)
    for first in range(0, TILE, 2):
        out = offset(builder, counts, BLOCK * first)
        cgutils.memset(builder, builder.inttoptr(out, I8.as_pointer()), I64(2 * BLOCK), 0)
        with cgutils.for_range_slice(builder, zero, taps.count, chunk) as (start, _):
            end = builder.add(start, chunk)
            stop = builder.select(builder.icmp_signed("<", end, taps.count), end, taps.count)
            slots = zeroed(builder, kind, 2 * BLOCK // width)
            with cgutils.for_range_slice(builder, start, stop, I64(1)) as (index, _):
                _count(builder, bases[first : first + 2], taps, index, slots)
            for i, slot in enumerate(slots):
                place = offset(builder, out, width * i)
                total = _widened(builder, builder.load(slot), width)
                store(builder, builder.add(load(builder, place, lanes), total), place)


def make_tile(form: cpu.Form) -> Intrinsic:
    """The micro-kernel of ``form`` as an intrinsic for jitted code (interface: see above)."""
    body = _by_words if form.count == "words" else _by_bytes

    @emitted(types.void)
    def kernel(builder: IRBuilder, tile: Tile, taps: Taps, counts: Value) -> None:
        body(builder, pixel_bases(builder, tile), taps, counts, form.width)

    return kernel


xnor_tile = make_tile(cpu.host_form())


@inner
def portable_tile(tile, taps, counts):  # type: ignore[no-untyped-def]
    """The same counts in scalar code."""
    for p in range(TILE):
        base = tile.source + load_i32(tile.pixels + PIXEL_BYTES * p)
        out = counts + BLOCK * p
        clear(out, BLOCK)
        for k in range(taps.count):
            active = load_u32(base + load_i32(taps.offsets + 4 * k))
            row = taps.weights + BLOCK * k
            for lane in range(LANES):
                count = popcount(active ^ load_u32(row + 4 * lane))
                store_u32(out + 4 * lane, load_u32(out + 4 * lane) + count)


@inner
def grouped_tile(tile, taps, counts, lanes):  # type: ignore[no-untyped-def]
    """Grouped convolution: lane i reads its group's words, ``lanes`` int32 [32] bytes further."""
    for p in range(TILE):
        base = tile.source + load_i32(tile.pixels + PIXEL_BYTES * p)
        for lane in range(LANES):
            start = base + load_i32(lanes + 4 * lane)
            count = 0
            for k in range(taps.count):
                active = load_u32(start + load_i32(taps.offsets + 4 * k))
                count += popcount(active ^ load_u32(taps.weights + BLOCK * k + 4 * lane))
            store_u32(counts + BLOCK * p + 4 * lane, count)
