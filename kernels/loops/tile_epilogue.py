"""From the accumulators of one tile to its results: which epilogue a row of the table asks for.

Every function takes the addresses of a ``row`` (see :mod:`frostbit.kernels.op_table`), of the
``arena`` and of the ``constants``, a block of channels, the first pixel of a tile with its
``entry`` in the pixel table, and the address of its ``counts``.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.parts import own
from frostbit.kernels.machine.jit import inlined
from frostbit.kernels.micro.epilogue import (
    affine32,
    affine_tile,
    limited32,
    limited_tile,
    switch_tile,
    threshold_tile,
)
from frostbit.kernels.micro.operands import Affine, Limits, Parts, Switch
from frostbit.kernels.micro.vector import (
    BLOCK,
    field,
    from_steps32,
    load_i32,
    store_u32,
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
def affine_of(row, constants, block):
    """The parameters of one block of channels."""
    at = constants + block * BLOCK
    return Affine(at + field(row, t.START), at + field(row, t.MUL), at + field(row, t.ADD))


@inlined
def switch_of(row, constants, block):
    """The thresholds of one block of channels."""
    limits = constants + field(row, t.START) + block * BLOCK
    return Switch(limits, field(row, t.SECOND), constants + field(row, t.FLIPS) + 4 * block)


@inlined
def limits_of(row):
    """The limits of a step that has them."""
    return Limits(field(row, t.LOW), field(row, t.HIGH), field(row, t.LEAST), field(row, t.MOST))


@inlined
def residual_of(row, arena, block, pixel):
    """One block of the residual, pixel by pixel from ``pixel`` on."""
    at = arena + field(row, t.RESIDUAL) + block * field(row, t.RESIDUAL_BLOCK)
    step = field(row, t.RESIDUAL_PIXEL)
    return Parts(at + pixel * step, step)


@inlined
def out_of(row, arena, block, pixel):
    """One block of the float result, pixel by pixel from ``pixel`` on."""
    at = arena + field(row, t.OUT) + block * field(row, t.OUT_BLOCK)
    step = field(row, t.OUT_PIXEL)
    return Parts(at + pixel * step, step)


@inlined
def one_pixel(row, arena, constants, block, pixel, entry, counts):
    """Epilogue to floats (in 32 or 16 bits) and sign bits of one pixel and block."""
    out = out_of(row, arena, block, pixel).address
    block_affine = affine_of(row, constants, block)
    start = block_affine.start + load_i32(entry + t.AT_START)
    affine = Affine(start, block_affine.mul, block_affine.add)
    residual = residual_of(row, arena, block, pixel).address + load_i32(entry + t.AT_RESIDUAL)
    if field(row, t.RESIDUAL_KIND) == t.I16:
        from_steps32(residual, field(row, t.EXPONENT), own(row, arena) + t.SCRATCH_B)
        residual = own(row, arena) + t.SCRATCH_B
    else:
        residual = operand(residual, field(row, t.RESIDUAL_KIND), own(row, arena) + t.SCRATCH_B)
    if field(row, t.HAS_LIMITS):
        word = limited32(counts, affine, residual, out, limits_of(row))
    elif field(row, t.OUT_KIND) == t.I16:
        word = affine32(counts, affine, residual, own(row, arena) + t.SCRATCH_A)
        to_steps32(own(row, arena) + t.SCRATCH_A, field(row, t.EXPONENT), out)
    else:
        word = affine32(counts, affine, residual, out)
    bits = arena + field(row, t.BITS_OUT) + load_i32(entry + t.AT_BITS)
    store_u32(bits + block * field(row, t.BITS_BLOCK), word)


@inlined
def one_tile(row, arena, constants, block, first, entry, counts):
    """Affine epilogue of a whole tile whose residual is float32 or absent."""
    affine, bits = affine_of(row, constants, block), arena + field(row, t.BITS_OUT)
    residual, out = residual_of(row, arena, block, first), out_of(row, arena, block, first)
    bits += block * field(row, t.BITS_BLOCK)
    if field(row, t.HAS_LIMITS):
        limited_tile(counts, entry, affine, residual, out, bits, limits_of(row))
    else:
        affine_tile(counts, entry, affine, residual, out, bits)


@inlined
def is_float32(row):
    """Whether residual and result are float32, or absent."""
    return field(row, t.RESIDUAL_KIND) == t.F32 and field(row, t.OUT_KIND) == t.F32


@inlined
def epilogue(row, arena, constants, block, first, entry, counts):
    """From the accumulators of one tile to float32 and sign bits."""
    left = field(row, t.PIXELS) - first
    if field(row, t.MUL) < 0:
        limit = constants + field(row, t.START) + block * BLOCK
        bits = arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK)
        if field(row, t.MUL) == t.THRESHOLD:
            threshold_tile(counts, entry, limit, bits)
        else:
            residual = arena + field(row, t.RESIDUAL) + block * field(row, t.RESIDUAL_BLOCK)
            switch_tile(counts, entry, switch_of(row, constants, block), residual, bits)
    elif left >= TILE and is_float32(row):
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
