"""Functions of one or two maps of the same size, and the softmax.

Same conventions as :mod:`frostbit.kernels.loops.steps`.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.parts import clear_pixels, own
from frostbit.kernels.loops.tile_epilogue import operand
from frostbit.kernels.machine.jit import inlined, inner
from frostbit.kernels.micro import functions as f
from frostbit.kernels.micro.vector import BLOCK, field, load_i32, store_u32
from frostbit.kernels.micro.xnor import PIXEL_BYTES


@inlined
def one_block(row, constants, block, left, right, out):
    """The step's function of 32 channels; returns the sign word."""
    function = field(row, t.FUNCTION)
    mul = constants + field(row, t.MUL) + block * BLOCK
    add = constants + field(row, t.ADD) + block * BLOCK
    if function == t.SUMMED:
        return f.sum32(left, right, out)
    if function == t.PRODUCT:
        return f.product32(left, right, out)
    if function == t.CLIPPED:
        return f.clip32(left, mul, add, out)
    if function == t.SCALED:
        return f.scaled32(left, mul, add, out)
    if function == t.PRELU:
        return f.prelu32(left, mul, out)
    if function == t.QUANTIZED:
        return f.quantize32(left, field(row, t.DIVISOR), mul, add, out)
    return f.sigmoid32(left, out)


@inner
def elementwise(row, arena, constants):
    """A function of one or two maps, each bits or float32, to float32 and sign bits."""
    clear_pixels(row, arena, constants)
    for pixel in range(field(row, t.BEGIN), field(row, t.END)):
        entry = constants + field(row, t.PIXEL_TABLE) + pixel * PIXEL_BYTES
        a = (
            arena
            + field(row, t.SOURCE)
            + load_i32(entry + t.AT_SOURCE)
            + pixel * field(row, t.SOURCE_PIXEL)
        )
        b = arena + field(row, t.RESIDUAL) + load_i32(entry + t.AT_RESIDUAL)
        b += pixel * field(row, t.RESIDUAL_PIXEL)
        out = arena + field(row, t.OUT) + pixel * field(row, t.OUT_PIXEL)
        bits = arena + field(row, t.BITS_OUT) + load_i32(entry + t.AT_BITS)
        for block in range(field(row, t.BLOCKS)):
            left = operand(
                a + block * field(row, t.SOURCE_BLOCK),
                field(row, t.KIND),
                own(row, arena) + t.SCRATCH_A,
            )
            right = operand(
                b + block * field(row, t.RESIDUAL_BLOCK),
                field(row, t.RESIDUAL_KIND),
                own(row, arena) + t.SCRATCH_B,
            )
            word = one_block(
                row, constants, block, left, right, out + block * field(row, t.OUT_BLOCK)
            )
            store_u32(bits + block * field(row, t.BITS_BLOCK), word)


@inner
def softmax(row, arena):
    """Softmax over the channels of one pixel."""
    f.softmax(arena + field(row, t.SOURCE), field(row, t.CHANNELS), arena + field(row, t.OUT))
