"""Binary convolution of a tile and two blocks of channels from activations to results in one go.

For CPUs that count words in vectors (AVX-512 VPOPCNTDQ) and multiply bytes (VNNI, which they have
too), with 32 registers: the counts of four pixels and 64 channels take 16 of them and never go to
memory, and each activation that is broadcast serves twice as many channels as in
:mod:`frostbit.kernels.micro.xnor`. The epilogues compute what those of
:mod:`frostbit.kernels.micro.epilogue` compute, which handle what is left: an odd block, a part of a
tile.

Operands are those of the micro-kernels (:mod:`frostbit.kernels.micro.operands`). Addresses of
weights, results and parameters are those of the first block; what belongs to the second lies right
behind.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.epilogue import ends
from frostbit.kernels.micro.integers import BYTE_FORM, MultiplyAdd, dot_unsigned, multiply_add
from frostbit.kernels.micro.operands import Affine, Limits, Parts, Switch, Taps, Tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    F32,
    I32,
    I64,
    Intrinsic,
    call,
    clamped,
    constant,
    emitted,
    load,
    load_steps,
    offset,
    part,
    power_of_two,
    sign_bits,
    splat,
    store,
    store_steps,
)
from frostbit.kernels.micro.xnor import TILE, entry, pixel_bases, zeroed
from frostbit.kernels.op_table import AT_BITS, AT_RESIDUAL, AT_START

HAS_FUSED = cpu.host_form().count == "words" and cpu.ByteForm("vpdpbusd", 64) == BYTE_FORM
_WIDTH = cpu.host_form().width
_VECTORS = 2 * BLOCK // _WIDTH
_WORDS, _REALS = (ir.VectorType(kind, _WIDTH // 4) for kind in (I32, F32))


def _mismatches(builder: IRBuilder, total: Value, weight: Value, activation: Value) -> Value:
    """How many bits of each word differ, added to ``total``."""
    differing = builder.xor(weight, activation)
    return builder.add(total, call(builder, f"llvm.ctpop.v{_WORDS.count}i32", differing))


def _counts(builder: IRBuilder, tile: Tile, taps: Taps, one: MultiplyAdd) -> list[list[Value]]:
    """Totals of ``one`` over all taps: vectors ``[pixel][vector]``, the first block's first.

    Registers, of 32: sixteen sums, the activations of four pixels, each in every lane, and the
    weights of one vector at a time, which all four pixels use before the next is loaded.
    """
    bases = pixel_bases(builder, tile)
    blocks = Parts(taps.weights, builder.mul(taps.count, I64(BLOCK)))
    starts = [
        offset(builder, part(builder, blocks, block), _WIDTH * v)
        for block in range(2)
        for v in range(_VECTORS // 2)
    ]
    slots = [zeroed(builder, _WORDS, _VECTORS) for _ in range(TILE)]
    with cgutils.for_range(builder, taps.count) as loop:
        step = load(builder, builder.add(taps.offsets, builder.mul(loop.index, I64(4))), I32)
        distance, row = builder.sext(step, I64), builder.mul(loop.index, I64(BLOCK))
        active = [
            splat(builder, load(builder, builder.add(base, distance), I32, 1), _WORDS)
            for base in bases
        ]
        for v, start in enumerate(starts):
            weight = load(builder, builder.add(start, row), _WORDS)
            for activation, mine in zip(active, slots, strict=True):
                builder.store(one(builder, builder.load(mine[v]), weight, activation), mine[v])
    return [[builder.load(slot) for slot in mine] for mine in slots]


def _above(builder: IRBuilder, counts: list[Value], limits: Value) -> Value:
    """64 bits with a 1 (-1) where the counts exceed the limits at an address."""
    places = [offset(builder, limits, _WIDTH * v) for v in range(_VECTORS)]
    pairs = zip(counts, places, strict=True)
    return sign_bits(
        builder,
        [builder.icmp_signed(">", value, load(builder, at, _WORDS)) for value, at in pairs],
    )


def _threshold_two(one: MultiplyAdd) -> Intrinsic:
    """The kernel of ``one`` with the threshold epilogue (``epilogue.threshold_tile``)."""

    @emitted(types.void)
    def threshold_two(
        builder: IRBuilder, tile: Tile, taps: Taps, limits: Value, bits: Value
    ) -> None:
        for p, counts in enumerate(_counts(builder, tile, taps, one)):
            place = builder.add(limits, entry(builder, tile.pixels, p, AT_START))
            word = _above(builder, counts, place)
            store(builder, word, builder.add(bits, entry(builder, tile.pixels, p, AT_BITS)))

    return threshold_two


threshold_two, threshold_int16, threshold_int8 = map(
    _threshold_two, (_mismatches, multiply_add, dot_unsigned)
)
"""Of bits, of 16-bit weights and of 8-bit ones (:mod:`frostbit.kernels.micro.integers`)."""


@emitted(types.void)
def switch_two(
    builder: IRBuilder, tile: Tile, taps: Taps, switch: Switch, residual: Value, bits: Value
) -> None:
    """With the switch epilogue (:func:`frostbit.kernels.micro.epilogue.switch_tile`)."""
    found = _counts(builder, tile, taps, _mismatches)
    flip = load(builder, switch.flips, I64)
    for p, counts in enumerate(found):
        limits = builder.add(switch.limits, entry(builder, tile.pixels, p, AT_START))
        plus = _above(builder, counts, limits)
        minus = _above(builder, counts, builder.add(limits, switch.second))
        at_residual = builder.add(residual, entry(builder, tile.pixels, p, AT_RESIDUAL))
        chosen = builder.and_(builder.xor(plus, minus), load(builder, at_residual, I64))
        word = builder.xor(builder.xor(plus, chosen), flip)
        store(builder, word, builder.add(bits, entry(builder, tile.pixels, p, AT_BITS)))


def _scaled(
    builder: IRBuilder, counted: Value, affine: Affine, v: int, limits: Limits | None
) -> Value:
    """``mul * acc + add`` of vector ``v`` of two blocks, whose counts are ``counted``."""
    start, mul, add = (offset(builder, place, _WIDTH * v) for place in affine)
    acc = builder.sub(load(builder, start, _WORDS), builder.add(counted, counted))
    if limits is not None:
        acc = clamped(builder, acc, *ends(builder, limits, I32, _WORDS.count))
    factors, added = load(builder, mul, _REALS), load(builder, add, _REALS)
    name = f"llvm.fmuladd.v{_REALS.count}f32"
    return call(builder, name, builder.sitofp(acc, _REALS), factors, added)


def _affine_two(
    from_steps: bool = False,
    to_steps: bool = False,
    has_limits: bool = False,
    product: MultiplyAdd = _mismatches,
) -> Intrinsic:
    """The kernel for a residual of int16 multiples of ``2**-exponent``, or such a result."""

    @emitted(types.void)
    def affine_two(
        builder: IRBuilder,
        tile: Tile,
        taps: Taps,
        affine: Affine,
        residual: Parts,
        out: Parts,
        bits: Value,
        exponent: Value,
        given: Limits,
    ) -> None:
        found = _counts(builder, tile, taps, product)
        limits = given if has_limits else None
        zero = constant(_REALS, 0.0)
        one = splat(builder, power_of_two(builder, builder.neg(exponent)), _REALS)
        per_one = splat(builder, power_of_two(builder, exponent), _REALS)
        for p, counts in enumerate(found):
            start = builder.add(affine.start, entry(builder, tile.pixels, p, AT_START))
            old, new = part(builder, residual, p), part(builder, out, p)
            signs = []
            for v, counted in enumerate(counts):
                scaled = _scaled(builder, counted, affine._replace(start=start), v, limits)
                shift_at = offset(builder, old, _WIDTH * v // (2 if from_steps else 1))
                out_at = offset(builder, new, _WIDTH * v // (2 if to_steps else 1))
                if from_steps:
                    shift = load_steps(builder, shift_at, _REALS, one)
                else:
                    shift = load(builder, shift_at, _REALS)
                total = builder.fadd(scaled, shift)
                if limits is not None:
                    total = clamped(builder, total, *ends(builder, limits, F32, _REALS.count))
                if to_steps:
                    store_steps(builder, total, out_at, per_one)
                else:
                    store(builder, total, out_at)
                signs.append(builder.fcmp_ordered("<", total, zero))
            place = builder.add(bits, entry(builder, tile.pixels, p, AT_BITS))
            store(builder, sign_bits(builder, signs), place)

    return affine_two


affine_two, affine_two_from, affine_two_to, affine_two_both = (
    _affine_two(from_steps, to_steps)
    for from_steps, to_steps in ((False, False), (True, False), (False, True), (True, True))
)
"""With the affine epilogue (``epilogue.affine_tile``) and a float32 residual, or one of
16 bits (``from``), and a float32 result, or one of 16 bits (``to``)."""
limited_two = _affine_two(has_limits=True)
"""With limits (``epilogue.limited_tile``)."""
affine_int16, affine_int8 = (_affine_two(product=each) for each in (multiply_add, dot_unsigned))
"""With the affine epilogue, of weights of 16 and of 8 bits."""
