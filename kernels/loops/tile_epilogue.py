"""From the accumulators of one tile to its results: which epilogue a row of the table asks for.

Every function takes the addresses of a ``row`` (see :mod:`frostbit.kernels.op_table`), of the
``arena`` and of the ``constants``, a block of channels, the first pixel of a tile with its
``entry`` in the pixel table, and the address of its ``counts``.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.machine.jit import inlined
from frostbit.kernels.micro.epilogue import affine32, affine_tile, switch_tile, threshold_tile
from frostbit.kernels.micro.vector import (
    BLOCK,
    field,
    from_steps32,
    load_i32,
    store_u32,
    sum32,
    to_steps32,
    unpack32,
)
from frostbit.kernels.micro.xnor import PIXEL_BYTES, TILE


@inlined
def operand(address, kind, scratch):
    """Address of 32 floats: ``address`` itself, or ``scratch`` after unpacking its bits."""
    if kind == t.BITS:
        unpack32(address, scratch)
        return scratch
    return address


@inlined
def one_pixel(row, arena, constants, block, pixel, entry, counts):
    """Epilogue to floats (in 32 or 16 bits) and sign bits of one pixel and block."""
    add = constants + field(row, t.ADD) + block * BLOCK
    out = arena + field(row, t.OUT) + pixel * field(row, t.OUT_PIXEL)
    out += block * field(row, t.OUT_BLOCK)
    if field(row, t.MICRO) >= t.FLOAT:
        word = sum32(counts, add, out)
    else:
        start = constants + field(row, t.START) + load_i32(entry + t.AT_START) + block * BLOCK
        mul = constants + field(row, t.MUL) + block * BLOCK
        residual = arena + field(row, t.RESIDUAL) + load_i32(entry + t.AT_RESIDUAL)
        residual += pixel * field(row, t.RESIDUAL_PIXEL) + block * field(row, t.RESIDUAL_BLOCK)
        if field(row, t.RESIDUAL_KIND) == t.I16:
            from_steps32(residual, field(row, t.EXPONENT), arena + t.SCRATCH_B)
            residual = arena + t.SCRATCH_B
        else:
            residual = operand(residual, field(row, t.RESIDUAL_KIND), arena + t.SCRATCH_B)
        if field(row, t.OUT_KIND) == t.I16:
            word = affine32(counts, start, mul, add, residual, arena + t.SCRATCH_A)
            to_steps32(arena + t.SCRATCH_A, field(row, t.EXPONENT), out)
        else:
            word = affine32(counts, start, mul, add, residual, out)
    bits = arena + field(row, t.BITS_OUT) + load_i32(entry + t.AT_BITS)
    store_u32(bits + block * field(row, t.BITS_BLOCK), word)


@inlined
def one_tile(row, arena, constants, block, first, entry, counts):
    """Affine epilogue of a whole tile whose residual is float32 or absent."""
    residual_pixel, out_pixel = field(row, t.RESIDUAL_PIXEL), field(row, t.OUT_PIXEL)
    residual = arena + field(row, t.RESIDUAL) + block * field(row, t.RESIDUAL_BLOCK)
    out = arena + field(row, t.OUT) + block * field(row, t.OUT_BLOCK)
    affine_tile(
        counts,
        entry,
        constants + field(row, t.START) + block * BLOCK,
        constants + field(row, t.MUL) + block * BLOCK,
        constants + field(row, t.ADD) + block * BLOCK,
        residual + first * residual_pixel,
        residual_pixel,
        out + first * out_pixel,
        out_pixel,
        arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK),
    )


@inlined
def is_float32(row):
    """Whether residual and result are float32, or absent."""
    return field(row, t.RESIDUAL_KIND) == t.F32 and field(row, t.OUT_KIND) == t.F32


@inlined
def epilogue(row, arena, constants, block, first, entry, counts):
    """From the accumulators of one tile to float32 and sign bits."""
    left = field(row, t.PIXELS) - first
    is_float = field(row, t.MICRO) >= t.FLOAT
    if not is_float and field(row, t.MUL) < 0:
        limit = constants + field(row, t.START) + block * BLOCK
        bits = arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK)
        if field(row, t.MUL) == t.THRESHOLD:
            threshold_tile(counts, entry, limit, bits)
        else:
            flips = constants + field(row, t.FLIPS) + 4 * block
            residual = arena + field(row, t.RESIDUAL) + block * field(row, t.RESIDUAL_BLOCK)
            second = field(row, t.SECOND)
            switch_tile(counts, entry, limit, second, flips, residual, bits)
    elif left >= TILE and not is_float and is_float32(row):
        one_tile(row, arena, constants, block, first, entry, counts)
    else:
        for p in range(min(TILE, left)):
            one_pixel(
                row,
                arena,
                constants,
                block,
                first + p,
                entry + p * PIXEL_BYTES,
                counts + p * BLOCK,
            )
