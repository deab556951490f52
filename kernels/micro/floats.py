"""Micro-kernels of the full-precision convolutions (stem, depthwise, dense head), all float32.

Same tile as :mod:`frostbit.kernels.micro.xnor`, with tap values in place of tap words, and the
epilogue in registers. Products are added in any order and may be fused: on the grid of
:mod:`frostbit.kernels.ir.exact` nothing rounds, and elsewhere logits carry a stated tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.epilogue import ends
from frostbit.kernels.micro.operands import Limits, Taps, Tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    F32,
    I8,
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
    offset,
    sign_bits,
    splat,
    store,
)
from frostbit.kernels.micro.xnor import TILE, entry, pixel_bases, zeroed
from frostbit.kernels.op_table import AT_BITS, AT_OUT

_WIDTH = cpu.host_form().width
GROUP_BYTES = BLOCK if _WIDTH == 64 else BLOCK // 2
"""Bytes of channels at once. Registers: the sums of four pixels take eight vectors of 64 or of 32
bytes, or sixteen of 16, which leaves room for the weights of a tap and one activation."""
_VECTORS = GROUP_BYTES // _WIDTH
_KIND = ir.VectorType(F32, _WIDTH // 4)


def _broadcast(builder: IRBuilder, address: Value) -> list[Value]:
    """One float for all lanes."""
    return [splat(builder, load(builder, address, F32), _KIND)] * _VECTORS


def _by_lane(builder: IRBuilder, address: Value) -> list[Value]:
    """A float for each lane."""
    return [load(builder, offset(builder, address, _WIDTH * v), _KIND) for v in range(_VECTORS)]


Read = Callable[[IRBuilder, Value], list[Value]]
"""From the address of a tap to its values for a group of channels, in vectors."""


def _sums(builder: IRBuilder, tile: Tile, taps: Taps, read: Read) -> list[list[Value]]:
    """Sums of products: vectors ``[pixel][vector]``."""
    bases = pixel_bases(builder, tile)
    slots = [zeroed(builder, _KIND, _VECTORS) for _ in range(TILE)]
    with cgutils.for_range(builder, taps.count) as loop:
        step = load(builder, builder.add(taps.offsets, builder.mul(loop.index, I64(4))), I32)
        distance = builder.sext(step, I64)
        row = builder.add(taps.weights, builder.mul(loop.index, I64(GROUP_BYTES)))
        weights = _by_lane(builder, row)
        for base, mine in zip(bases, slots, strict=True):
            values = read(builder, builder.add(base, distance))
            for slot, value, weight in zip(mine, values, weights, strict=True):
                name = f"llvm.fmuladd.v{_KIND.count}f32"
                total = call(builder, name, value, weight, builder.load(slot))
                builder.store(total, slot)
    return [[builder.load(slot) for slot in mine] for mine in slots]


def _finish(
    builder: IRBuilder,
    sums: list[list[Value]],
    add: Value,
    limits: Limits,
    outs: list[Value],
    places: list[Value],
) -> None:
    """From sums to floats at ``outs`` and signs at ``places``."""
    added, zero = _by_lane(builder, add), constant(_KIND, 0.0)
    least, most = ends(builder, limits, F32, _KIND.count)
    for mine, out, place in zip(sums, outs, places, strict=True):
        signs = []
        for v, (total, shift) in enumerate(zip(mine, added, strict=True)):
            value = clamped(builder, builder.fadd(total, shift), least, most)
            store(builder, value, offset(builder, out, _WIDTH * v))
            signs.append(builder.fcmp_ordered("<", value, zero))
        store(builder, sign_bits(builder, signs), place, 1)


def _kernel(read: Read) -> Intrinsic:
    """The micro-kernel for a group of output channels, ``GROUP_BYTES`` bytes of them.

    ``clip(sum over taps of x[p][tap] * weight[tap][lane] + add[lane], least, most)``; ``out`` and
    ``bits`` are the places of pixel (0, 0), the pixel table says how far the others' are.
    """

    @emitted(types.void)
    def kernel(
        builder: IRBuilder,
        tile: Tile,
        taps: Taps,
        add: Value,
        limits: Limits,
        out: Value,
        bits: Value,
    ) -> None:
        sums = _sums(builder, tile, taps, read)
        outs, places = (
            [builder.add(start, entry(builder, tile.pixels, p, column)) for p in range(TILE)]
            for start, column in ((out, AT_OUT), (bits, AT_BITS))
        )
        _finish(builder, sums, add, limits, outs, places)

    return kernel


float_tile, depthwise_tile = _kernel(_broadcast), _kernel(_by_lane)
"""With one float of an activation for all lanes, or a float for each lane."""


def _dense_taps(
    builder: IRBuilder, source: Value, taps: Taps, scale: Value, index: Value, totals: list[Value]
) -> None:
    """Add the products of taps ``index``, ``index + 1``, ... to ``totals``, one each."""
    for step, slot in enumerate(totals):
        tap = builder.add(index, I64(step))
        row = builder.add(taps.weights, builder.mul(tap, I64(LANES)))
        small = builder.sitofp(load(builder, row, ir.VectorType(I8, LANES)), V32F)
        value = load(builder, builder.add(source, builder.mul(tap, I64(4))), F32)
        products = (builder.fmul(small, scale), splat(builder, value, V32F), builder.load(slot))
        builder.store(call(builder, "llvm.fmuladd.v32f32", *products), slot)


@emitted(types.void)
def dense_block(
    builder: IRBuilder,
    source: Value,
    taps: Taps,
    scale: Value,
    add: Value,
    limits: Limits,
    out: Value,
) -> None:
    """32 outputs of a dense layer of floats whose weights are int8 ``[taps][32]`` times a scale.

    A weight becomes a float before it is multiplied, so products are those of the float kernel.
    Two taps at once: one block's four vectors of totals (AVX2) would wait for one another.
    """
    factors = load(builder, scale, V32F)
    totals = zeroed(builder, V32F, 2)
    whole = builder.and_(taps.count, I64(-2))
    with cgutils.for_range_slice(builder, I64(0), whole, I64(2)) as (index, _):
        _dense_taps(builder, source, taps, factors, index, totals)
    with cgutils.for_range_slice(builder, whole, taps.count, I64(1)) as (index, _):
        _dense_taps(builder, source, taps, factors, index, totals[:1])
    value = builder.fadd(*(builder.load(slot) for slot in totals))
    value = builder.fadd(value, load(builder, add, V32F))
    store(builder, clamped(builder, value, *ends(builder, limits, F32, LANES)), out)
