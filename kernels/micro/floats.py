"""Micro-kernels of the full-precision convolutions (stem, depthwise, dense head), all float32.

Same tile and interface as :mod:`frostbit.kernels.micro.xnor`, with tap values in place of tap
words. Products are added in any order and may be fused: on the grid of
:mod:`frostbit.kernels.ir.exact` nothing rounds, and elsewhere logits carry a stated tolerance.
"""

from __future__ import annotations

from collections.abc import Callable

from llvmlite import ir
from llvmlite.ir import IRBuilder, Type, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.jit import inner
from frostbit.kernels.micro.operands import Taps, Tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    F32,
    I32,
    I64,
    LANES,
    add_product,
    call,
    clear,
    emitted,
    load,
    load_i32,
    offset,
    splat,
    store,
)
from frostbit.kernels.micro.xnor import PIXEL_BYTES, TILE, pixel_bases, zeroed

_WIDTH = cpu.host_form().width
_PASS = TILE if _WIDTH == 64 else 2
"""Pixels at once, as in :mod:`frostbit.kernels.micro.integers`: as the registers allow."""


Read = Callable[[IRBuilder, Value, Type], list[Value]]


def _broadcast(builder: IRBuilder, address: Value, kind: Type) -> list[Value]:
    """One float for all lanes."""
    value = splat(builder, load(builder, address, F32), kind)
    return [value] * (BLOCK // _WIDTH)


def _by_lane(builder: IRBuilder, address: Value, kind: Type) -> list[Value]:
    """A float for each lane."""
    return [
        load(builder, offset(builder, address, start), kind) for start in range(0, BLOCK, _WIDTH)
    ]


def _sums(builder: IRBuilder, tile: Tile, taps: Taps, sums: Value, read: Read) -> None:
    """A tile's sums of products; ``read`` gives the 32 values of one tap in vectors."""
    kind = ir.VectorType(F32, _WIDTH // 4)
    vectors, bases = BLOCK // _WIDTH, pixel_bases(builder, tile)
    for first in range(0, TILE, _PASS):
        slots = zeroed(builder, kind, _PASS * vectors)
        with cgutils.for_range(builder, taps.count) as loop:
            step = load(builder, builder.add(taps.offsets, builder.mul(loop.index, I64(4))), I32)
            distance = builder.sext(step, I64)
            row = builder.add(taps.weights, builder.mul(loop.index, I64(BLOCK)))
            loaded = [load(builder, offset(builder, row, _WIDTH * v), kind) for v in range(vectors)]
            for p, base in enumerate(bases[first : first + _PASS]):
                values = read(builder, builder.add(base, distance), kind)
                for v, (value, weight) in enumerate(zip(values, loaded, strict=True)):
                    slot = slots[p * vectors + v]
                    name = f"llvm.fmuladd.v{kind.count}f32"
                    total = call(builder, name, value, weight, builder.load(slot))
                    builder.store(total, slot)
        for i, slot in enumerate(slots):
            place = offset(builder, sums, BLOCK * first + _WIDTH * i)
            store(builder, builder.load(slot), place)


@emitted(types.void)
def float_tile(builder: IRBuilder, tile: Tile, taps: Taps, sums: Value) -> None:
    """``sums[p][lane] = sum over taps of x[p][tap] * weight[tap][lane]``."""
    _sums(builder, tile, taps, sums, _broadcast)


@emitted(types.void)
def depthwise_tile(builder: IRBuilder, tile: Tile, taps: Taps, sums: Value) -> None:
    """``sums[p][lane] = sum over taps of x[p][tap][lane] * weight[tap][lane]``."""
    _sums(builder, tile, taps, sums, _by_lane)


@inner
def grouped_float_tile(tile, taps, sums, lanes):  # type: ignore[no-untyped-def]
    """Groups of several channels: lane i reads its group, ``lanes`` int32 [32] bytes further."""
    for p in range(TILE):
        base = tile.source + load_i32(tile.pixels + PIXEL_BYTES * p)
        out = sums + BLOCK * p
        clear(out, BLOCK)
        for lane in range(LANES):
            start = base + load_i32(lanes + 4 * lane)
            for k in range(taps.count):
                value = start + load_i32(taps.offsets + 4 * k)
                add_product(value, taps.weights + BLOCK * k + 4 * lane, out + 4 * lane)
