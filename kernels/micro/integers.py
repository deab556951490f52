"""Micro-kernel of the full-precision convolution of pixels or bits, in integers, for x86.

Weights that are 16-bit multiples of ``2**-s`` (a settled network's are, mostly) meet pixels or +-1
in ``vpmaddwd``, which adds the products of two neighbouring 16-bit values to a 32-bit lane: twice
the work of a float instruction. Lanes are output channels, as in
:mod:`frostbit.kernels.micro.xnor`. Taps go in pairs; a run of values of odd length gets a weight of
0 at its end. Sums are whole numbers below 2**31, so they are exact, and become floats once: ``2**-s
* sum``.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.operands import Taps, Tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    F32,
    I32,
    I64,
    emitted,
    load,
    offset,
    power_of_two,
    splat,
    store,
)
from frostbit.kernels.micro.xnor import TILE, pixel_bases, zeroed

HAS_INTEGERS = bool(cpu.target_features().get("avx2"))
_WIDTH = 64 if cpu.target_features().get("avx512bw") else 32
_INSTRUCTION = {64: "llvm.x86.avx512.pmaddw.d.512", 32: "llvm.x86.avx2.pmadd.wd"}[_WIDTH]
_PASS = TILE if _WIDTH == 64 else 2
"""Pixels at once. Registers: a pixel's sums take two vectors of 64 bytes or four of 32, so four
pixels of 32 registers, or two of 16, leave room for the weights and one activation."""
_LANES = ir.VectorType(I32, _WIDTH // 4)


def multiply_add(builder: IRBuilder, weight: Value, activation: Value) -> Value:
    """Per 32-bit lane, the sum of the products of its two int16."""
    halves = ir.VectorType(ir.IntType(16), _WIDTH // 2)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_LANES, [halves, halves]), _INSTRUCTION
    )
    sides = [builder.bitcast(value, halves) for value in (activation, weight)]
    return builder.call(function, sides)


@emitted(types.void)
def _tile(builder: IRBuilder, tile: Tile, taps: Taps, sums: Value, exponent: Value) -> None:
    """The micro-kernel; operands as in :mod:`frostbit.kernels.micro.xnor`, and the exponent s."""
    vectors = BLOCK // _WIDTH
    bases = pixel_bases(builder, tile)
    real = ir.VectorType(F32, _LANES.count)
    scale = splat(builder, power_of_two(builder, builder.neg(exponent)), real)
    for first in range(0, TILE, _PASS):
        slots = zeroed(builder, _LANES, _PASS * vectors)
        with cgutils.for_range(builder, taps.count) as loop:
            step = load(builder, builder.add(taps.offsets, builder.mul(loop.index, I64(4))), I32)
            distance = builder.sext(step, I64)
            row = builder.add(taps.weights, builder.mul(loop.index, I64(BLOCK)))
            stored = [
                load(builder, offset(builder, row, _WIDTH * v), _LANES) for v in range(vectors)
            ]
            for p, base in enumerate(bases[first : first + _PASS]):
                pair = load(builder, builder.add(base, distance), I32, 2)
                value = splat(builder, pair, _LANES)
                for v, weight in enumerate(stored):
                    slot = slots[p * vectors + v]
                    product = multiply_add(builder, weight, value)
                    builder.store(builder.add(builder.load(slot), product), slot)
        for i, slot in enumerate(slots):
            scaled = builder.fmul(builder.sitofp(builder.load(slot), real), scale)
            store(builder, scaled, offset(builder, sums, BLOCK * first + _WIDTH * i))


@emitted(types.void)
def _absent(builder: IRBuilder, tile: Tile, taps: Taps, sums: Value, exponent: Value) -> None:
    """Stands for the micro-kernel where it cannot run; no plan asks for it there."""


integer_tile = _tile if HAS_INTEGERS else _absent
