"""What one step of the plan does: read a row of the op table, walk the map, call intrinsics.

Every function takes the addresses of a ``row`` (see :mod:`kernels.table`), of the ``arena`` and
of the ``constants``, and returns nothing. Bits maps may have margins of +1 around them, so a
convolution never tests for borders; whoever writes such a map clears it first.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from kernels import table as t
from kernels._jit import inlined, inner
from kernels.epilogue import affine32, affine_tile, threshold_tile
from kernels.floats import depthwise_tile, float_tile, grouped_float_tile
from kernels.pools import clip, pool, repeat
from kernels.vector import (
    BLOCK,
    LANES,
    clear,
    convert32,
    copy,
    field,
    load_i32,
    load_u32,
    store_u32,
    sum32,
    unpack32,
    widen_u8,
)
from kernels.xnor import PIXEL_BYTES, TILE, grouped_tile, portable_tile, xnor_tile


@inlined
def accumulate(row, source, constants, block, pixels, counts):
    """Run the micro-kernel on one tile: TILE pixels x one block of output channels."""
    taps = field(row, t.TAPS)
    offsets = constants + field(row, t.OFFSETS)
    weights = constants + field(row, t.WEIGHTS) + block * taps * BLOCK
    if field(row, t.MICRO) == t.XNOR:
        xnor_tile(source, pixels, offsets, taps, weights, counts)
    elif field(row, t.MICRO) == t.FLOAT:
        float_tile(source, pixels, offsets, taps, weights, counts)
    elif field(row, t.MICRO) == t.PORTABLE:
        portable_tile(source, pixels, offsets, taps, weights, counts)
    elif field(row, t.MICRO) == t.DEPTHWISE:
        depthwise_tile(source + block * BLOCK, pixels, offsets, taps, weights, counts)
    else:
        lanes = constants + field(row, t.LANES) + block * BLOCK
        if field(row, t.MICRO) == t.GROUPED:
            grouped_tile(source, pixels, offsets, taps, weights, counts, lanes)
        else:
            grouped_float_tile(source, pixels, offsets, taps, weights, counts, lanes)


@inlined
def operand(address, kind, scratch):
    """Address of 32 floats: ``address`` itself, or ``scratch`` after unpacking its bits."""
    if kind == t.BITS:
        unpack32(address, scratch)
        return scratch
    return address


@inlined
def one_pixel(row, arena, constants, block, pixel, entry, counts):
    """Epilogue to float32 and sign bits of one pixel and block."""
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
        residual = operand(residual, field(row, t.RESIDUAL_KIND), arena + t.SCRATCH_B)
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
def epilogue(row, arena, constants, block, first, entry, counts):
    """From the accumulators of one tile to float32 and sign bits."""
    left = field(row, t.PIXELS) - first
    is_float = field(row, t.MICRO) >= t.FLOAT
    if not is_float and field(row, t.MUL) < 0:
        limit = constants + field(row, t.START) + block * BLOCK
        bits = arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK)
        threshold_tile(counts, entry, limit, bits)
    elif left >= TILE and not is_float and field(row, t.RESIDUAL_KIND) == t.F32:
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


@inner
def convolve(row, arena, constants):
    """Convolution or dense layer of bits or floats, with its fused epilogue."""
    clear(arena + field(row, t.CLEAR), field(row, t.CLEAR_BYTES))
    source = arena + field(row, t.SOURCE)
    counts = arena + t.COUNTS
    for block in range(field(row, t.BLOCKS)):
        for first in range(0, field(row, t.PIXELS), TILE):
            entry = constants + field(row, t.PIXEL_TABLE) + first * PIXEL_BYTES
            accumulate(row, source, constants, block, entry, counts)
            epilogue(row, arena, constants, block, first, entry, counts)


@inner
def elementwise(row, arena, constants):
    """Sum of one or two maps, each bits or float32, to float32 and sign bits."""
    clear(arena + field(row, t.CLEAR), field(row, t.CLEAR_BYTES))
    for pixel in range(field(row, t.PIXELS)):
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
                a + block * field(row, t.SOURCE_BLOCK), field(row, t.KIND), arena + t.SCRATCH_A
            )
            right = operand(
                b + block * field(row, t.RESIDUAL_BLOCK),
                field(row, t.RESIDUAL_KIND),
                arena + t.SCRATCH_B,
            )
            word = sum32(left, right, out + block * field(row, t.OUT_BLOCK))
            store_u32(bits + block * field(row, t.BITS_BLOCK), word)


@inner
def widen_row(row, source, out):
    """One row of a map to float32: from uint8, float32 (a copy) or bits."""
    if field(row, t.KIND) == t.U8:
        values = field(row, t.WIDTH) * field(row, t.CHANNELS)
        whole = values - values % LANES
        for i in range(0, whole, LANES):
            convert32(source + i, out + 4 * i)
        for i in range(whole, values):
            widen_u8(source + i, out + 4 * i)
    elif field(row, t.KIND) == t.F32:
        copy(out, source, field(row, t.WIDTH) * field(row, t.SOURCE_PIXEL))
    else:
        for i in range(field(row, t.WIDTH) * field(row, t.BLOCKS)):
            unpack32(source + 4 * i, out + BLOCK * i)


@inner
def widen(row, arena, constants, image):
    """Any map to float32 with its padding written around it, for FLOAT convolutions."""
    origin = image if field(row, t.KIND) == t.U8 else arena + field(row, t.SOURCE)
    pad, pixel = constants + field(row, t.PAD), field(row, t.OUT_PIXEL)
    for y in range(field(row, t.OUT_HEIGHT)):
        out = arena + field(row, t.OUT) + y * field(row, t.OUT_ROW)
        inside = y - field(row, t.TOP)
        left = field(row, t.LEFT)
        width = field(row, t.WIDTH)
        if inside < 0 or inside >= field(row, t.HEIGHT):
            left = field(row, t.OUT_WIDTH)
            width = 0
        else:
            widen_row(row, origin + inside * field(row, t.SOURCE_ROW), out + left * pixel)
        for x in range(left):
            copy(out + x * pixel, pad, pixel)
        for x in range(left + width, field(row, t.OUT_WIDTH)):
            copy(out + x * pixel, pad, pixel)


@inner
def regroup(row, arena, constants):
    """Bits map to one whose groups of channels start at whole words, for GROUPED."""
    clear(arena + field(row, t.CLEAR), field(row, t.CLEAR_BYTES))
    per_group = field(row, t.DIVISOR)
    words = (per_group + LANES - 1) // LANES
    for y in range(field(row, t.HEIGHT)):
        for x in range(field(row, t.WIDTH)):
            source = (
                arena
                + field(row, t.SOURCE)
                + y * field(row, t.SOURCE_ROW)
                + x * field(row, t.SOURCE_PIXEL)
            )
            out = (
                arena + field(row, t.OUT) + y * field(row, t.OUT_ROW) + x * field(row, t.OUT_PIXEL)
            )
            for c in range(field(row, t.CHANNELS)):
                bit = (load_u32(source + 4 * (c // LANES)) >> (c % LANES)) & 1
                group, rest = c // per_group, c % per_group
                place = out + 4 * (group * words + rest // LANES)
                store_u32(place, load_u32(place) | (bit << (rest % LANES)))


@inner
def step(row, arena, constants, image):
    """Run one row of the op table."""
    code = field(row, t.CODE)
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
    elif code == t.CLIP:
        clip(row, arena, constants)
    else:
        pool(row, arena, constants)
