"""What one step of the plan does: read a row of the op table, walk the map, call intrinsics.

Every function takes the addresses of a ``row`` (see :mod:`frostbit.kernels.op_table`), of the
``arena`` and of the ``constants``, and returns nothing. Bits maps may have margins of +1 around
them, so a convolution never tests for borders; whoever writes such a map clears it first. A row can
stand for a part of its step.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.convolve import (
    convolve,
    convolve_by_lookup,
    convolve_floats,
    convolve_quads,
    dense,
)
from frostbit.kernels.loops.copies import floats, join, repeat, spread
from frostbit.kernels.loops.elementwise import elementwise, softmax
from frostbit.kernels.loops.parts import clear_rows
from frostbit.kernels.loops.pools import pool
from frostbit.kernels.machine.jit import inner
from frostbit.kernels.micro.integers import convert8, unpack8, widen_u8_8
from frostbit.kernels.micro.quads import difference32
from frostbit.kernels.micro.vector import (
    BLOCK,
    LANES,
    convert16,
    copy,
    field,
    load_u32,
    store_u32,
    unpack16,
    unpack32,
    widen_u8_16,
)


@inner
def widen_row(row, source, out):
    """One row of a map to float32: from an image, float32 (a copy) or bits."""
    if field(row, t.KIND) <= t.F32_IMAGE:
        floats(field(row, t.KIND), source, field(row, t.WIDTH) * field(row, t.CHANNELS), out)
    elif field(row, t.KIND) == t.F32:
        pixel = field(row, t.OUT_PIXEL)
        for x in range(field(row, t.WIDTH)):
            copy(out + x * pixel, source + x * field(row, t.SOURCE_PIXEL), pixel)
    else:
        for i in range(field(row, t.WIDTH) * field(row, t.BLOCKS)):
            unpack32(source + 4 * i, out + BLOCK * i)


@inner
def widen_row_16(row, source, out):
    """One row of a map to int16: from uint8 or bits."""
    if field(row, t.KIND) == t.U8:
        values = field(row, t.WIDTH) * field(row, t.CHANNELS)
        whole = values - values % LANES
        for i in range(0, whole, LANES):
            convert16(source + i, out + 2 * i)
        for i in range(whole, values):
            widen_u8_16(source + i, out + 2 * i)
    else:
        for i in range(field(row, t.WIDTH) * field(row, t.BLOCKS)):
            unpack16(source + 4 * i, out + BLOCK // 2 * i)


@inner
def widen_row_8(row, source, out):
    """One row of a map to the bytes that integer kernels read: from uint8 or bits."""
    if field(row, t.KIND) == t.U8:
        values = field(row, t.WIDTH) * field(row, t.CHANNELS)
        whole = values - values % LANES
        for i in range(0, whole, LANES):
            convert8(source + i, out + i)
        for i in range(whole, values):
            widen_u8_8(source + i, out + i)
    else:
        for i in range(field(row, t.WIDTH) * field(row, t.BLOCKS)):
            unpack8(source + 4 * i, out + LANES * i)


@inner
def widen(row, arena, constants, image):
    """Any map to float32, int16 or bytes with its padding written around it."""
    origin = image if field(row, t.KIND) <= t.F32_IMAGE else arena + field(row, t.SOURCE)
    pad, pixel = constants + field(row, t.PAD), field(row, t.OUT_PIXEL)
    for y in range(field(row, t.BEGIN), field(row, t.END)):
        out = arena + field(row, t.OUT) + y * field(row, t.OUT_ROW)
        inside = y - field(row, t.TOP)
        left = field(row, t.LEFT)
        width = field(row, t.WIDTH)
        if inside < 0 or inside >= field(row, t.HEIGHT):
            left = field(row, t.OUT_WIDTH)
            width = 0
        else:
            start = origin + inside * field(row, t.SOURCE_ROW)
            if field(row, t.MICRO) == t.INT16:
                widen_row_16(row, start, out + left * pixel)
            elif field(row, t.MICRO) == t.INT8:
                widen_row_8(row, start, out + left * pixel)
            else:
                widen_row(row, start, out + left * pixel)
        for x in range(left):
            copy(out + x * pixel, pad, pixel)
        for x in range(left + width, field(row, t.OUT_WIDTH)):
            copy(out + x * pixel, pad, pixel)


@inner
def difference(row, arena):
    """Rows of an int16 map less itself some bytes further; the end of a row is written twice."""
    size, half = field(row, t.OUT_ROW), BLOCK // 2
    for y in range(field(row, t.BEGIN), field(row, t.END)):
        source = arena + field(row, t.SOURCE) + y * size
        out = arena + field(row, t.OUT) + y * size
        for i in range(0, size - half, half):
            difference32(source + i, field(row, t.SECOND), out + i)
        last = size - half
        difference32(source + last, field(row, t.SECOND), out + last)


@inner
def regroup(row, arena, constants):
    """Bits map to one whose groups of channels start at whole words, for GROUPED."""
    clear_rows(row, arena, field(row, t.HEIGHT))
    per_group = field(row, t.DIVISOR)
    words = (per_group + LANES - 1) // LANES
    for y in range(field(row, t.BEGIN), field(row, t.END)):
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
    if code == t.CONVOLVE and field(row, t.MICRO) == t.LOOKUP:
        convolve_by_lookup(row, arena, constants)
    elif code == t.CONVOLVE and field(row, t.MICRO) in (t.FLOAT, t.DEPTHWISE):
        convolve_floats(row, arena, constants)
    elif code == t.CONVOLVE and field(row, t.MICRO) == t.QUADS:
        convolve_quads(row, arena, constants)
    elif code == t.DIFFERENCE:
        difference(row, arena)
    elif code == t.CONVOLVE and field(row, t.MICRO) == t.DENSE:
        dense(row, arena, constants)
    elif code == t.CONVOLVE:
        convolve(row, arena, constants)
    elif code == t.ELEMENTWISE:
        elementwise(row, arena, constants)
    elif code == t.WIDEN:
        widen(row, arena, constants, image)
    elif code == t.REGROUP:
        regroup(row, arena, constants)
    elif code == t.REPEAT:
        repeat(row, arena, constants)
    elif code == t.SPREAD:
        spread(row, arena, image)
    elif code == t.JOIN:
        join(row, arena, constants)
    elif code == t.SOFTMAX:
        softmax(row, arena)
    else:
        pool(row, arena, constants)
