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

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numpy.typing import NDArray

from frostbit.kernels.ir.exact import LARGEST, as_int16
from frostbit.kernels.ir.program import Conv, Window
from frostbit.kernels.machine import cpu
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
_PASS = TILE if _WIDTH == 64 else 2  # pixels at once: as many accumulators as registers allow
_LANES = ir.VectorType(I32, _WIDTH // 4)


def integer_weights(op: Conv, kind: str) -> tuple[NDArray[np.int16], int] | None:
    """:func:`as_int16` of a convolution that this micro-kernel can do; else None."""
    if not HAS_INTEGERS or op.groups > 1 or kind not in LARGEST:
        return None
    return as_int16(op.weights, LARGEST[kind])


def _runs(weights: NDArray[np.int16], joined: bool) -> NDArray[np.int16]:
    """OHWI as ``[O, runs, values]``, values even: a run is a row of taps, or one tap."""
    out, height, _, channels = weights.shape
    runs = weights.reshape(out, height, -1) if joined else weights.reshape(out, -1, channels)
    return np.pad(runs, [(0, 0), (0, 0), (0, runs.shape[2] % 2)])


def is_joined(window: Window, pixel: int, channels: int) -> bool:
    """Whether a kernel row's taps lie side by side in a map of ``pixel`` bytes a pixel."""
    return pixel == 2 * channels and window.dilation[1] == 1


def pair_rows(weights: NDArray[np.int16], joined: bool) -> NDArray[np.uint32]:
    """Weights as uint32 ``[O, pairs]``."""
    runs = np.ascontiguousarray(_runs(weights, joined))
    return runs.reshape(len(runs), -1).astype("<i2").view("<u4").astype(np.uint32)


def pair_offsets(
    window: Window, row: int, pixel: int, channels: int, joined: bool
) -> NDArray[np.int32]:
    """Distance in bytes of each pair from its output pixel's first tap."""
    down = np.arange(window.kernel[0])[:, None, None] * window.dilation[0] * row
    taps = 1 if joined else window.kernel[1]
    right = np.arange(taps)[:, None] * window.dilation[1] * pixel
    values = channels * window.kernel[1] if joined else channels
    return np.asarray(down + right + 4 * np.arange(-(-values // 2)), np.int32).ravel()


def multiply_add(builder: Any, weight: Any, activation: Any) -> Any:
    """Per 32-bit lane, the sum of the products of its two int16."""
    halves = ir.VectorType(ir.IntType(16), _WIDTH // 2)
    function = cgutils.get_or_insert_function(
        builder.module, ir.FunctionType(_LANES, [halves, halves]), _INSTRUCTION
    )
    sides = [builder.bitcast(value, halves) for value in (activation, weight)]
    return builder.call(function, sides)


@emitted(types.void)
def _tile(
    builder: Any,
    source: Any,
    pixels: Any,
    offsets: Any,
    pairs: Any,
    weights: Any,
    sums: Any,
    exponent: Any,
) -> None:
    """The micro-kernel; arguments as in :mod:`frostbit.kernels.micro.xnor`, and the exponent s."""
    vectors = BLOCK // _WIDTH
    bases = pixel_bases(builder, source, pixels)
    real = ir.VectorType(F32, _LANES.count)
    scale = splat(builder, power_of_two(builder, builder.neg(exponent)), real)
    for first in range(0, TILE, _PASS):
        slots = zeroed(builder, _LANES, _PASS * vectors)
        with cgutils.for_range(builder, pairs) as loop:
            step = load(builder, builder.add(offsets, builder.mul(loop.index, I64(4))), I32)
            distance = builder.sext(step, I64)
            row = builder.add(weights, builder.mul(loop.index, I64(BLOCK)))
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
def _absent(builder: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any) -> None:
    """Stands for the micro-kernel where it cannot run; no plan asks for it there."""


integer_tile = _tile if HAS_INTEGERS else _absent
