"""What one step of the plan does: read a row of the op table, walk the map, call intrinsics.

Every function takes ``row`` (see :mod:`kernels.table`), the addresses of ``arena`` and
``constants``, and returns nothing. Bits maps may have margins of +1 around them, so a
convolution never tests for borders; whoever writes such a map clears it first.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses and one int64 row

from __future__ import annotations

from kernels import table as t
from kernels._jit import inner
from kernels.floats import float_tile
from kernels.vector import (
    BLOCK,
    LANES,
    above32,
    accumulate32,
    affine32,
    clear,
    convert32,
    copy,
    divide32,
    load_i32,
    load_u32,
    maximum32,
    store_u32,
    sum32,
    unpack32,
    widen_u8,
)
from kernels.xnor import PIXEL_BYTES, TILE, grouped_tile, portable_tile, xnor_tile


@inner
def accumulate(row, source, constants, block, pixels, counts):
    """Run the micro-kernel on one tile: TILE pixels x one block of output channels."""
    taps = row[t.TAPS]
    offsets = constants + row[t.OFFSETS]
    weights = constants + row[t.WEIGHTS] + block * taps * BLOCK
    if row[t.MICRO] == t.XNOR:
        xnor_tile(source, pixels, offsets, taps, weights, counts)
    elif row[t.MICRO] == t.FLOAT:
        float_tile(source, pixels, offsets, taps, weights, counts)
    elif row[t.MICRO] == t.PORTABLE:
        portable_tile(source, pixels, offsets, taps, weights, counts)
    else:
        lanes = constants + row[t.LANES] + block * BLOCK
        grouped_tile(source, pixels, offsets, taps, weights, counts, lanes)


@inner
def operand(address, kind, scratch):
    """Address of 32 floats: ``address`` itself, or ``scratch`` after unpacking its bits."""
    if kind == t.BITS:
        unpack32(address, scratch)
        return scratch
    return address


@inner
def epilogue(row, arena, constants, block, pixel, entry, counts):
    """From accumulators to float32 and sign bits, for one pixel and block."""
    add = constants + row[t.ADD] + block * BLOCK
    start = constants + row[t.START] + load_i32(entry + t.AT_START) + block * BLOCK
    out = arena + row[t.OUT] + pixel * row[t.OUT_PIXEL] + block * row[t.OUT_BLOCK]
    if row[t.MICRO] == t.FLOAT:
        word = sum32(counts, add, out)
    elif row[t.MUL] < 0:
        word = above32(counts, start)
    else:
        residual = arena + row[t.RESIDUAL] + load_i32(entry + t.AT_RESIDUAL)
        residual += pixel * row[t.RESIDUAL_PIXEL] + block * row[t.RESIDUAL_BLOCK]
        residual = operand(residual, row[t.RESIDUAL_KIND], arena + t.SCRATCH_B)
        word = affine32(counts, start, constants + row[t.MUL] + block * BLOCK, add, residual, out)
    bits = arena + row[t.BITS_OUT] + load_i32(entry + t.AT_BITS)
    store_u32(bits + block * row[t.BITS_BLOCK], word)


@inner
def convolve(row, arena, constants):
    """Convolution or dense layer of bits or floats, with its fused epilogue."""
    clear(arena + row[t.CLEAR], row[t.CLEAR_BYTES])
    source = arena + row[t.SOURCE]
    counts = arena + t.COUNTS
    pixels = row[t.PIXELS]
    for block in range(row[t.BLOCKS]):
        for first in range(0, pixels, TILE):
            entry = constants + row[t.PIXEL_TABLE] + first * PIXEL_BYTES
            accumulate(row, source, constants, block, entry, counts)
            for p in range(min(TILE, pixels - first)):
                epilogue(
                    row,
                    arena,
                    constants,
                    block,
                    first + p,
                    entry + p * PIXEL_BYTES,
                    counts + p * BLOCK,
                )


@inner
def elementwise(row, arena, constants):
    """Sum of one or two maps, each bits or float32, to float32 and sign bits."""
    clear(arena + row[t.CLEAR], row[t.CLEAR_BYTES])
    for pixel in range(row[t.PIXELS]):
        entry = constants + row[t.PIXEL_TABLE] + pixel * PIXEL_BYTES
        a = arena + row[t.SOURCE] + load_i32(entry + t.AT_SOURCE) + pixel * row[t.SOURCE_PIXEL]
        b = arena + row[t.RESIDUAL] + load_i32(entry + t.AT_RESIDUAL)
        b += pixel * row[t.RESIDUAL_PIXEL]
        out = arena + row[t.OUT] + pixel * row[t.OUT_PIXEL]
        bits = arena + row[t.BITS_OUT] + load_i32(entry + t.AT_BITS)
        for block in range(row[t.BLOCKS]):
            left = operand(a + block * row[t.SOURCE_BLOCK], row[t.KIND], arena + t.SCRATCH_A)
            right = operand(
                b + block * row[t.RESIDUAL_BLOCK], row[t.RESIDUAL_KIND], arena + t.SCRATCH_B
            )
            word = sum32(left, right, out + block * row[t.OUT_BLOCK])
            store_u32(bits + block * row[t.BITS_BLOCK], word)


@inner
def widen_row(row, source, out):
    """One row of a map to float32: from uint8, float32 (a copy) or bits."""
    if row[t.KIND] == t.U8:
        values = row[t.WIDTH] * row[t.CHANNELS]
        whole = values - values % LANES
        for i in range(0, whole, LANES):
            convert32(source + i, out + 4 * i)
        for i in range(whole, values):
            widen_u8(source + i, out + 4 * i)
    elif row[t.KIND] == t.F32:
        copy(out, source, row[t.WIDTH] * row[t.SOURCE_PIXEL])
    else:
        for i in range(row[t.WIDTH] * row[t.BLOCKS]):
            unpack32(source + 4 * i, out + BLOCK * i)


@inner
def widen(row, arena, constants, image):
    """Any map to float32 with its padding written around it, for FLOAT convolutions."""
    origin = image if row[t.KIND] == t.U8 else arena + row[t.SOURCE]
    pad, pixel = constants + row[t.PAD], row[t.OUT_PIXEL]
    for y in range(row[t.OUT_HEIGHT]):
        out = arena + row[t.OUT] + y * row[t.OUT_ROW]
        inside = y - row[t.TOP]
        left = row[t.LEFT]
        width = row[t.WIDTH]
        if inside < 0 or inside >= row[t.HEIGHT]:
            left = row[t.OUT_WIDTH]
            width = 0
        else:
            widen_row(row, origin + inside * row[t.SOURCE_ROW], out + left * pixel)
        for x in range(left):
            copy(out + x * pixel, pad, pixel)
        for x in range(left + width, row[t.OUT_WIDTH]):
            copy(out + x * pixel, pad, pixel)


@inner
def regroup(row, arena, constants):
    """Bits map to one whose groups of channels start at whole words, for GROUPED."""
    clear(arena + row[t.CLEAR], row[t.CLEAR_BYTES])
    per_group = row[t.DIVISOR]
    words = (per_group + LANES - 1) // LANES
    for y in range(row[t.HEIGHT]):
        for x in range(row[t.WIDTH]):
            source = arena + row[t.SOURCE] + y * row[t.SOURCE_ROW] + x * row[t.SOURCE_PIXEL]
            out = arena + row[t.OUT] + y * row[t.OUT_ROW] + x * row[t.OUT_PIXEL]
            for c in range(row[t.CHANNELS]):
                bit = (load_u32(source + 4 * (c // LANES)) >> (c % LANES)) & 1
                group, rest = c // per_group, c % per_group
                place = out + 4 * (group * words + rest // LANES)
                store_u32(place, load_u32(place) | (bit << (rest % LANES)))


@inner
def first_inside(start, dilation):
    """Smallest tap index whose position ``start + index * dilation`` is not negative."""
    return max(0, (-start + dilation - 1) // dilation)


@inner
def taps_inside(start, dilation, taps, size):
    """One past the largest tap index whose position lies below ``size``."""
    return min(taps, (size - start + dilation - 1) // dilation)


@inner
def pool_block(row, source, y0, x0, out):
    """One block of one pooled pixel; taps outside the map are left out."""
    down, right = row[t.DILATION_H], row[t.DILATION_W]
    x_first = first_inside(x0, right)
    x_last = taps_inside(x0, right, row[t.KERNEL_W], row[t.WIDTH])
    fresh = True
    for i in range(first_inside(y0, down), taps_inside(y0, down, row[t.KERNEL_H], row[t.HEIGHT])):
        line = source + (y0 + i * down) * row[t.SOURCE_ROW]
        for j in range(x_first, x_last):
            tap = line + (x0 + j * right) * row[t.SOURCE_PIXEL]
            if row[t.CODE] == t.MAX_BITS:
                store_u32(out, load_u32(tap) & (0xFFFFFFFF if fresh else load_u32(out)))
            elif fresh:
                copy(out, tap, BLOCK)
            elif row[t.CODE] == t.SUM:
                accumulate32(tap, out)
            else:
                maximum32(tap, out)
            fresh = False
    if row[t.CODE] == t.SUM:
        if fresh:
            clear(out, BLOCK)
        divide32(row[t.DIVISOR], out)


@inner
def pool(row, arena, constants):
    """Sum or maximum over a window; bits or float32."""
    clear(arena + row[t.CLEAR], row[t.CLEAR_BYTES])
    for y in range(row[t.OUT_HEIGHT]):
        for x in range(row[t.OUT_WIDTH]):
            out = arena + row[t.OUT] + y * row[t.OUT_ROW] + x * row[t.OUT_PIXEL]
            for block in range(row[t.BLOCKS]):
                pool_block(
                    row,
                    arena + row[t.SOURCE] + block * row[t.SOURCE_BLOCK],
                    y * row[t.STRIDE_H] - row[t.TOP],
                    x * row[t.STRIDE_W] - row[t.LEFT],
                    out + block * row[t.OUT_BLOCK],
                )


@inner
def repeat(row, arena, constants):
    """Copy the channels of each pixel ``DIVISOR`` times, side by side."""
    clear(arena + row[t.CLEAR], row[t.CLEAR_BYTES])
    size = 4 * row[t.CHANNELS]
    for pixel in range(row[t.PIXELS]):
        source = arena + row[t.SOURCE] + pixel * row[t.SOURCE_PIXEL]
        out = arena + row[t.OUT] + pixel * row[t.OUT_PIXEL]
        for i in range(row[t.DIVISOR]):
            copy(out + i * size, source, size)


@inner
def step(row, arena, constants, image):
    """Run one row of the op table."""
    code = row[t.CODE]
    if code == t.CONVOLVE:
        convolve(row, arena, constants)
    elif code == t.ELEMENTWISE:
        elementwise(row, arena, constants)
    elif code == t.WIDEN:
        widen(row, arena, constants, image)
    elif code == t.REGROUP:
        regroup(row, arena, constants)
    elif code == t.REPEAT:
        repeat(row, arena, constants)
    else:
        pool(row, arena, constants)
