"""Pooling and sums over windows.

Same conventions as :mod:`frostbit.kernels.loops.steps`. A window is clipped to the map, so what
lies outside adds nothing to a sum and never wins a maximum.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.parts import clear_rows
from frostbit.kernels.machine.jit import inlined, inner
from frostbit.kernels.micro.functions import maximum_of, sum_of
from frostbit.kernels.micro.operands import Parts
from frostbit.kernels.micro.vector import (
    BLOCK,
    clear,
    divide32,
    field,
    load_u32,
    load_u64,
    scale32,
    store_u32,
    store_u64,
)


@inner
def first_inside(start, step):
    """Smallest index whose position ``start + index * step`` is not negative."""
    return max(0, -start if step == 1 else (-start + step - 1) // step)


@inner
def taps_inside(start, step, count, size):
    """One past the largest index below ``count`` whose position lies below ``size``."""
    return min(count, size - start if step == 1 else (size - start + step - 1) // step)


@inlined
def pool_block(row, lines, rows, step, columns, out):
    """One block of a pooled pixel: ``columns`` taps, ``step`` apart, in each of ``rows`` lines."""
    if field(row, t.CODE) == t.MAX_F32:
        maximum_of(lines, rows, step, columns, out)
        return
    if rows <= 0 or columns <= 0:
        clear(out, BLOCK)
    else:
        sum_of(lines, rows, step, columns, out)
    divisor = field(row, t.DIVISOR)
    if divisor == 0:
        scale32(field(row, t.EXPONENT), out)
    elif divisor > 1:
        divide32(divisor, out)


@inner
def pool_row(row, source, rows, out):
    """One row of pooled pixels; ``source`` is the first of ``rows`` rows of taps."""
    right, distance = field(row, t.DILATION_W), field(row, t.SOURCE_PIXEL)
    down = field(row, t.DILATION_H) * field(row, t.SOURCE_ROW)
    for x in range(field(row, t.OUT_WIDTH)):
        x0 = x * field(row, t.STRIDE_W) - field(row, t.LEFT)
        first = first_inside(x0, right)
        columns = taps_inside(x0, right, field(row, t.KERNEL_W), field(row, t.WIDTH)) - first
        start, place = source + (x0 + first * right) * distance, out + x * field(row, t.OUT_PIXEL)
        for block in range(field(row, t.FIRST_BLOCK), field(row, t.END_BLOCK)):
            lines = Parts(start + block * field(row, t.SOURCE_BLOCK), down)
            to = place + block * field(row, t.OUT_BLOCK)
            pool_block(row, lines, rows, right * distance, columns, to)


@inlined
def and_words(out, tap, words):
    """``out &= tap`` over ``words`` words of 32 bits."""
    for word in range(0, words - 1, 2):
        store_u64(out + 4 * word, load_u64(out + 4 * word) & load_u64(tap + 4 * word))
    if words % 2:
        last = 4 * (words - 1)
        store_u32(out + last, load_u32(out + last) & load_u32(tap + last))


@inlined
def max_bits_row(row, lines, count, out):
    """One row of the maximum over a window of bits, which is the AND of their words.

    ``lines`` is the address of the first of ``count`` rows of taps. Every tap of the window goes
    over the whole row at once, so that no loop is short.
    """
    words, out_pixel, step = field(row, t.BLOCKS), field(row, t.OUT_PIXEL), field(row, t.STRIDE_W)
    out_width, width = field(row, t.OUT_WIDTH), field(row, t.WIDTH)
    pixel, down = field(row, t.SOURCE_PIXEL), field(row, t.DILATION_H) * field(row, t.SOURCE_ROW)
    for word in range(out_width * words):
        store_u32(out + 4 * word, 0xFFFFFFFF)
    for j in range(field(row, t.KERNEL_W)):
        at = j * field(row, t.DILATION_W) - field(row, t.LEFT)
        begin, end = first_inside(at, step), taps_inside(at, step, out_width, width)
        for i in range(count):
            line = lines + i * down + at * pixel
            for x in range(begin, end):
                and_words(out + x * out_pixel, line + x * step * pixel, words)


@inner
def max_bits(row, arena):
    """Maximum over a window of bits; every window meets the map, so tail bits stay 0."""
    source, target = arena + field(row, t.SOURCE), arena + field(row, t.OUT)
    down = field(row, t.DILATION_H)
    for y in range(field(row, t.BEGIN), field(row, t.END)):
        y0 = y * field(row, t.STRIDE_H) - field(row, t.TOP)
        first = first_inside(y0, down)
        last = taps_inside(y0, down, field(row, t.KERNEL_H), field(row, t.HEIGHT))
        lines = source + (y0 + first * down) * field(row, t.SOURCE_ROW)
        max_bits_row(row, lines, last - first, target + y * field(row, t.OUT_ROW))


@inner
def pool(row, arena, constants):
    """Sum or maximum over a window; bits or float32."""
    clear_rows(row, arena, field(row, t.OUT_HEIGHT))
    if field(row, t.CODE) == t.MAX_BITS:
        max_bits(row, arena)
        return
    for y in range(field(row, t.BEGIN), field(row, t.END)):
        y0, down = y * field(row, t.STRIDE_H) - field(row, t.TOP), field(row, t.DILATION_H)
        first = first_inside(y0, down)
        rows = taps_inside(y0, down, field(row, t.KERNEL_H), field(row, t.HEIGHT)) - first
        source = arena + field(row, t.SOURCE) + (y0 + first * down) * field(row, t.SOURCE_ROW)
        pool_row(row, source, rows, arena + field(row, t.OUT) + y * field(row, t.OUT_ROW))
