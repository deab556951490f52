"""Micro-kernels of full-precision convolutions in integers: weights of 16 and of 8 bits.

They count as :mod:`frostbit.kernels.micro.xnor` does: the same tile, lanes are output channels,
and what comes out are int32, here sums of products of activations and *negated* weights. So a sum
is ``-count`` plus a constant, which :mod:`frostbit.kernels.plan.integer_layout` puts where a binary
convolution has its accumulator at 0 mismatches, and every epilogue of those serves here too.

A tap is four bytes of activations, at any address. ``int16``: two values of 16 bits, which x86's
``vpmaddwd`` multiplies and adds in pairs. ``int8``: four bytes, by the CPU's ``cpu.ByteForm``:

* ``vpdpbusd`` (VNNI) adds four products of an unsigned and a signed byte to an int32;
* ``vpmaddubsw`` (AVX2) adds two, and saturates at 16 bits. Bits are stored as 0 or 2 and padding
  as 1, so two products are 508 at most, and 64 of these fit 16 bits: they are widened every
  ``PAIR_TAPS`` taps. Pixels would saturate, so there they go the way of 16 bits;
* ``sdot`` (ARM with the dot product) adds four products of signed bytes;
* ``smull``, ``addp`` and ``sadalp`` (any NEON) do the same in four steps.

What is stored is the value plus :func:`byte_offset`, which makes it a byte of the right kind.
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
from frostbit.kernels.micro.operands import Taps, Tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    I8,
    I16,
    I32,
    I64,
    LANES,
    V32B,
    call_typed,
    constant,
    emitted,
    load,
    offset,
    splat,
    store,
)
from frostbit.kernels.micro.xnor import TILE, pixel_bases, zeroed

HAS_INT16 = bool(cpu.target_features().get("avx2"))
BYTE_FORM = cpu.byte_form(cpu.target_features())
INT8_KINDS = {"none": (), "vpmaddubsw": ("bits",)}.get(BYTE_FORM.instruction, ("u8", "bits"))
"""Kinds of maps that meet weights of 8 bits as bytes on this CPU."""
_SIGNED = BYTE_FORM.instruction in ("sdot", "smull")
PAIR_TAPS = 64
INT16_WIDTH = 64 if cpu.target_features().get("avx512bw") else 32
_PMADDWD = {64: "llvm.x86.avx512.pmaddw.d.512", 32: "llvm.x86.avx2.pmadd.wd"}
MultiplyAdd = Callable[[IRBuilder, Value, Value, Value], Value]
"""From a vector of totals, one of weights and one of activations to the new totals."""


def byte_offset(kind: str) -> int:
    """What is added to a value of a map of ``kind`` before it is stored as a byte."""
    if _SIGNED:
        return -128 if kind == "u8" else 0
    return 0 if kind == "u8" else 1


def multiply_add(builder: IRBuilder, total: Value, weight: Value, activation: Value) -> Value:
    """Per 32-bit lane, the sum of the products of its two int16, added to ``total``."""
    width = 4 * total.type.count
    halves = ir.VectorType(I16, width // 2)
    sides = [builder.bitcast(value, halves) for value in (activation, weight)]
    return builder.add(total, call_typed(builder, _PMADDWD[width], total.type, *sides))


def dot_unsigned(builder: IRBuilder, total: Value, weight: Value, activation: Value) -> Value:
    """``vpdpbusd``: per lane, four unsigned bytes times four signed ones, added to ``total``."""
    name = f"llvm.x86.avx512.vpdpbusd.{32 * total.type.count}"
    sides = [builder.bitcast(each, ir.VectorType(I8, 4 * total.type.count))
             for each in (activation, weight)]  # fmt: skip
    return call_typed(builder, name, total.type, total, *sides)


def dot_signed(builder: IRBuilder, total: Value, weight: Value, activation: Value) -> Value:
    """``sdot``: per lane, four signed bytes times four, added to ``total``."""
    bytes_ = ir.VectorType(I8, 16)
    sides = [builder.bitcast(value, bytes_) for value in (activation, weight)]
    return call_typed(builder, "llvm.aarch64.neon.sdot.v4i32.v16i8", total.type, total, *sides)


def widening_dot(builder: IRBuilder, total: Value, weight: Value, activation: Value) -> Value:
    """The same on any NEON. Two products are 2 * 127 * 128 at most, which fits 16 bits."""
    bytes_, halves = ir.VectorType(I8, 16), ir.VectorType(I16, 8)
    sides = [builder.bitcast(value, bytes_) for value in (activation, weight)]
    products = []
    for first in (0, 8):
        order = ir.Constant(ir.VectorType(I32, 8), list(range(first, first + 8)))
        parts = [builder.sext(builder.shuffle_vector(side, side, order), halves) for side in sides]
        products.append(builder.mul(*parts))
    pairs = call_typed(builder, "llvm.aarch64.neon.addp.v8i16", halves, *products)
    name = "llvm.aarch64.neon.saddlp.v4i32.v8i16"
    return builder.add(total, call_typed(builder, name, total.type, pairs))


DOTS: dict[str, MultiplyAdd] = {
    "vpdpbusd": dot_unsigned,
    "sdot": dot_signed,
    "smull": widening_dot,
}


def _add_pairs(builder: IRBuilder, total: Value, weight: Value, activation: Value) -> Value:
    """``vpmaddubsw``: per 16-bit lane, two unsigned bytes times two signed ones, added up."""
    bytes_ = ir.VectorType(I8, 32)
    sides = [builder.bitcast(value, bytes_) for value in (activation, weight)]
    return builder.add(total, call_typed(builder, "llvm.x86.avx2.pmadd.ub.sw", total.type, *sides))


def over_taps(
    builder: IRBuilder,
    bases: list[Value],
    taps: Taps,
    within: tuple[Value, Value],
    slots: list[Value],
    one: MultiplyAdd,
) -> None:
    """Add the products of taps ``within`` (first, last + 1) to ``slots``, vectors of a pixel first.

    Registers, of 32 bytes: a pass of two pixels has eight totals, two activations, one weight.
    """
    kind = slots[0].type.pointee
    words = ir.VectorType(I32, kind.count * kind.element.width // 32)
    vectors = len(slots) // len(bases)
    with cgutils.for_range_slice(builder, *within, I64(1)) as (index, _):
        step = load(builder, builder.add(taps.offsets, builder.mul(index, I64(4))), I32)
        distance = builder.sext(step, I64)
        row = builder.add(taps.weights, builder.mul(index, I64(BLOCK)))
        active = [
            splat(builder, load(builder, builder.add(base, distance), I32, 1), words)
            for base in bases
        ]
        for v in range(vectors):
            weight = load(builder, offset(builder, row, 4 * words.count * v), words)
            for p, activation in enumerate(active):
                slot = slots[p * vectors + v]
                builder.store(one(builder, builder.load(slot), weight, activation), slot)


def emit_words(
    builder: IRBuilder, tile: Tile, taps: Taps, counts: Value, width: int, one: MultiplyAdd
) -> None:
    """Totals in int32 lanes throughout, vectors of ``width`` bytes, two pixels or four at once.

    Registers, of 64 bytes: four pixels have eight totals; of 16 (NEON has 32), two have sixteen.
    """
    bases, pixels = pixel_bases(builder, tile), TILE if width == 64 else 2
    for first in range(0, TILE, pixels):
        slots = zeroed(builder, ir.VectorType(I32, width // 4), pixels * BLOCK // width)
        mine = bases[first : first + pixels]
        over_taps(builder, mine, taps, (I64(0), taps.count), slots, one)
        for i, slot in enumerate(slots):
            store(builder, builder.load(slot), offset(builder, counts, BLOCK * first + width * i))


def emit_pairs(builder: IRBuilder, tile: Tile, taps: Taps, counts: Value) -> None:
    """Totals in int16 lanes, widened into ``counts`` every ``PAIR_TAPS`` taps (``vpmaddubsw``)."""
    halves, words = ir.VectorType(I16, 16), ir.VectorType(I32, 8)
    bases = pixel_bases(builder, tile)
    for first in range(0, TILE, 2):
        out = offset(builder, counts, BLOCK * first)
        cgutils.memset(builder, builder.inttoptr(out, I8.as_pointer()), I64(2 * BLOCK), 0)
        chunks = cgutils.for_range_slice(builder, I64(0), taps.count, I64(PAIR_TAPS))
        with chunks as (start, _):
            end = builder.add(start, I64(PAIR_TAPS))
            stop = builder.select(builder.icmp_signed("<", end, taps.count), end, taps.count)
            slots = zeroed(builder, halves, 2 * BLOCK // 32)
            over_taps(builder, bases[first : first + 2], taps, (start, stop), slots, _add_pairs)
            for i, slot in enumerate(slots):
                place = offset(builder, out, 32 * i)
                pairs = [builder.load(slot), constant(halves, 1)]
                total = call_typed(builder, _PMADDWD[32], words, *pairs)
                store(builder, builder.add(load(builder, place, words), total), place)


@emitted(types.void)
def _int16(builder: IRBuilder, tile: Tile, taps: Taps, counts: Value) -> None:
    emit_words(builder, tile, taps, counts, INT16_WIDTH, multiply_add)


@emitted(types.void)
def _int8(builder: IRBuilder, tile: Tile, taps: Taps, counts: Value) -> None:
    if BYTE_FORM.instruction == "vpmaddubsw":
        emit_pairs(builder, tile, taps, counts)
    else:
        emit_words(builder, tile, taps, counts, BYTE_FORM.width, DOTS[BYTE_FORM.instruction])


@emitted(types.void)
def _absent(builder: IRBuilder, tile: Tile, taps: Taps, counts: Value) -> None:
    """Stands for a micro-kernel where it cannot run; no plan asks for it there."""


int16_tile = _int16 if HAS_INT16 else _absent
int8_tile = _int8 if INT8_KINDS else _absent


@emitted(types.void)
def lanes_tile(builder: IRBuilder, tile: Tile, taps: Taps, counts: Value) -> None:
    """Depthwise: an int16 of the activation for each lane, so totals must fit 16 bits.

    Registers, of 32 bytes: eight totals and the two weights of a tap. Any CPU with vectors of
    integers multiplies them so (``pmullw``, ``mla``).
    """
    kind = ir.VectorType(I16, LANES)
    bases, slots = pixel_bases(builder, tile), zeroed(builder, kind, TILE)
    with cgutils.for_range(builder, taps.count) as loop:
        step = load(builder, builder.add(taps.offsets, builder.mul(loop.index, I64(4))), I32)
        distance = builder.sext(step, I64)
        row = builder.add(taps.weights, builder.mul(loop.index, I64(BLOCK // 2)))
        weight = load(builder, row, kind)
        for base, slot in zip(bases, slots, strict=True):
            values = load(builder, builder.add(base, distance), kind)
            builder.store(builder.add(builder.load(slot), builder.mul(values, weight)), slot)
    for p, slot in enumerate(slots):
        wide = builder.sext(builder.load(slot), ir.VectorType(I32, LANES))
        store(builder, wide, offset(builder, counts, BLOCK * p))


@emitted(types.void)
def widen_u8_8(builder: IRBuilder, source: Value, out: Value) -> None:
    """One uint8 at ``source`` to the byte that is stored for it at ``out``."""
    value = load(builder, source, I8, 1)
    store(builder, builder.add(value, ir.Constant(I8, byte_offset("u8") & 255)), out, 1)


@emitted(types.void)
def convert8(builder: IRBuilder, source: Value, out: Value) -> None:
    """32 uint8 at ``source`` to the bytes that are stored for them at ``out``."""
    kind = ir.VectorType(I8, LANES)
    value = load(builder, source, kind, 1)
    store(builder, builder.add(value, constant(kind, byte_offset("u8") & 255)), out, 1)


@emitted(types.void)
def unpack8(builder: IRBuilder, word: Value, out: Value) -> None:
    """One word of bits at ``word`` to the 32 bytes that are stored for +1 or -1 at ``out``."""
    kind = ir.VectorType(I8, LANES)
    negative = builder.bitcast(load(builder, word, I32), V32B)
    ends = (constant(kind, (value + byte_offset("bits")) & 255) for value in (-1, 1))
    store(builder, builder.select(negative, *ends), out, 1)
