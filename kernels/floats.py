"""Micro-kernel of the full-precision convolutions (stem, dense head): float32 in, float32 out.

Same tile and interface as :mod:`kernels.xnor`, with tap values in place of tap words. Products
are added in any order and may be fused: on the grid of :mod:`kernels.exact` nothing rounds, and
elsewhere logits carry a stated tolerance.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from kernels import features
from kernels.vector import BLOCK, F32, I32, I64, call, emitted, load, offset, splat, store
from kernels.xnor import TILE, pixel_bases, zeroed

_WIDTH = features.host_form().width
_PASS = TILE if _WIDTH == 64 else 2  # pixels at once: as many accumulators as registers allow


@emitted(types.void)
def float_tile(
    builder: Any, source: Any, pixels: Any, offsets: Any, taps: Any, weights: Any, sums: Any
) -> None:
    """``sums[p][lane] = sum over taps of x[p][tap] * weight[tap][lane]``."""
    kind = ir.VectorType(F32, _WIDTH // 4)
    vectors = BLOCK // _WIDTH
    bases = pixel_bases(builder, source, pixels)
    for first in range(0, TILE, _PASS):
        slots = zeroed(builder, kind, _PASS * vectors)
        with cgutils.for_range(builder, taps) as loop:
            step = load(builder, builder.add(offsets, builder.mul(loop.index, I64(4))), I32)
            distance = builder.sext(step, I64)
            row = builder.add(weights, builder.mul(loop.index, I64(BLOCK)))
            loaded = [load(builder, offset(builder, row, _WIDTH * v), kind) for v in range(vectors)]
            for p, base in enumerate(bases[first : first + _PASS]):
                value = splat(builder, load(builder, builder.add(base, distance), F32), kind)
                for v, weight in enumerate(loaded):
                    slot = slots[p * vectors + v]
                    name = f"llvm.fmuladd.v{kind.count}f32"
                    total = call(builder, name, value, weight, builder.load(slot))
                    builder.store(total, slot)
        for i, slot in enumerate(slots):
            place = offset(builder, sums, BLOCK * first + _WIDTH * i)
            store(builder, builder.load(slot), place)
