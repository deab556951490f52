"""Pooling, global sum, repetition and clip: the steps that do no arithmetic worth tuning.

Same conventions as :mod:`kernels.layers`. A window is clipped to the map, so what lies outside
adds nothing to a sum and never wins a maximum.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from kernels import table as t
from kernels._jit import inlined, inner
from kernels.vector import (
    BLOCK,
    accumulate32,
    clear,
    clip32,
    copy,
    divide32,
    field,
    load_u32,
    load_u64,
    maximum32,
    scale32,
    store_u32,
    store_u64,
)


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
    down, right = field(row, t.DILATION_H), field(row, t.DILATION_W)
    x_first = first_inside(x0, right)
    x_last = taps_inside(x0, right, field(row, t.KERNEL_W), field(row, t.WIDTH))
    fresh = True
    for i in range(
        first_inside(y0, down), taps_inside(y0, down, field(row, t.KERNEL_H), field(row, t.HEIGHT))
    ):
        line = source + (y0 + i * down) * field(row, t.SOURCE_ROW)
        for j in range(x_first, x_last):
            tap = line + (x0 + j * right) * field(row, t.SOURCE_PIXEL)
            if fresh:
                copy(out, tap, BLOCK)
            elif field(row, t.CODE) == t.SUM:
                accumulate32(tap, out)
            else:
                maximum32(tap, out)
            fresh = False
    if field(row, t.CODE) == t.SUM:
        if fresh:
            clear(out, BLOCK)
        divisor = field(row, t.DIVISOR)
        if divisor == 0:
            scale32(field(row, t.EXPONENT), out)
        elif divisor > 1:
            divide32(divisor, out)


@inlined
def common_bits(load_bits, tap, rows, columns, source_row, across):
    """AND of ``load_bits`` over ``rows`` x ``columns`` taps from ``tap`` on."""
    both = load_bits(tap)
    for i in range(rows):
        for j in range(columns):
            both &= load_bits(tap + i * source_row + j * across)
    return both


@inner
def max_bits(row, arena):
    """Maximum over a window of bits, which is the AND of their words, for all pixels.

    Whatever does not change is read before the loops: a store could change it, for all LLVM knows.
    """
    height, width = field(row, t.HEIGHT), field(row, t.WIDTH)
    down, right = field(row, t.DILATION_H), field(row, t.DILATION_W)
    taps_h, taps_w = field(row, t.KERNEL_H), field(row, t.KERNEL_W)
    step_h, step_w = field(row, t.STRIDE_H), field(row, t.STRIDE_W)
    top, left = field(row, t.TOP), field(row, t.LEFT)
    source_row, source_pixel = field(row, t.SOURCE_ROW), field(row, t.SOURCE_PIXEL)
    out_row, out_pixel = field(row, t.OUT_ROW), field(row, t.OUT_PIXEL)
    source, target = arena + field(row, t.SOURCE), arena + field(row, t.OUT)
    out_height, out_width = field(row, t.OUT_HEIGHT), field(row, t.OUT_WIDTH)
    words = field(row, t.BLOCKS)
    for y in range(out_height):
        y0 = y * step_h - top
        first, last = first_inside(y0, down), taps_inside(y0, down, taps_h, height)
        for x in range(out_width):
            x0 = x * step_w - left
            begin, end = first_inside(x0, right), taps_inside(x0, right, taps_w, width)
            out = target + y * out_row + x * out_pixel
            tap = source + (y0 + first * down) * source_row + (x0 + begin * right) * source_pixel
            size = (last - first, end - begin, down * source_row, right * source_pixel)
            for word in range(0, words - 1, 2):
                store_u64(out + 4 * word, common_bits(load_u64, tap + 4 * word, *size))
            if words % 2:
                word = words - 1
                store_u32(out + 4 * word, common_bits(load_u32, tap + 4 * word, *size))


@inner
def pool(row, arena, constants):
    """Sum or maximum over a window; bits or float32."""
    clear(arena + field(row, t.CLEAR), field(row, t.CLEAR_BYTES))
    if field(row, t.CODE) == t.MAX_BITS:
        max_bits(row, arena)
        return
    for y in range(field(row, t.OUT_HEIGHT)):
        for x in range(field(row, t.OUT_WIDTH)):
            out = (
                arena + field(row, t.OUT) + y * field(row, t.OUT_ROW) + x * field(row, t.OUT_PIXEL)
            )
            for block in range(field(row, t.BLOCKS)):
                pool_block(
                    row,
                    arena + field(row, t.SOURCE) + block * field(row, t.SOURCE_BLOCK),
                    y * field(row, t.STRIDE_H) - field(row, t.TOP),
                    x * field(row, t.STRIDE_W) - field(row, t.LEFT),
                    out + block * field(row, t.OUT_BLOCK),
                )


@inner
def repeat(row, arena, constants):
    """Copy the channels of each pixel ``DIVISOR`` times, side by side."""
    clear(arena + field(row, t.CLEAR), field(row, t.CLEAR_BYTES))
    size = 4 * field(row, t.CHANNELS)
    for pixel in range(field(row, t.PIXELS)):
        source = arena + field(row, t.SOURCE) + pixel * field(row, t.SOURCE_PIXEL)
        out = arena + field(row, t.OUT) + pixel * field(row, t.OUT_PIXEL)
        for i in range(field(row, t.DIVISOR)):
            copy(out + i * size, source, size)


@inner
def clip(row, arena, constants):
    """clip(x, -1, 1) of a float map, which lies block after block."""
    source, out = arena + field(row, t.SOURCE), arena + field(row, t.OUT)
    for i in range(field(row, t.PIXELS) * field(row, t.BLOCKS)):
        clip32(source + i * BLOCK, out + i * BLOCK)
