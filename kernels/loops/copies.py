"""Repetition, joining, cutting out and spreading: the steps that only move values.

Same conventions as :mod:`frostbit.kernels.loops.steps`.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.parts import clear_floats, clear_rows
from frostbit.kernels.machine.jit import inlined, inner
from frostbit.kernels.micro.vector import (
    LANES,
    convert32,
    copy,
    field,
    load_u32,
    load_u64,
    store_u32,
    widen_u8,
)


@inner
def repeat(row, arena, constants):
    """Copy the channels of each pixel ``DIVISOR`` times, side by side."""
    clear_floats(row, arena)
    size = 4 * field(row, t.CHANNELS)
    for pixel in range(field(row, t.BEGIN), field(row, t.END)):
        source = arena + field(row, t.SOURCE) + pixel * field(row, t.SOURCE_PIXEL)
        out = arena + field(row, t.OUT) + pixel * field(row, t.OUT_PIXEL)
        for i in range(field(row, t.DIVISOR)):
            copy(out + i * size, source, size)


@inner
def some_bits(source, first, channels, word):
    """Word ``word`` of ``channels`` bits from bit ``first`` of a pixel on, tail bits 0."""
    at = first + LANES * word
    value = (load_u64(source + 4 * (at // LANES)) >> (at % LANES)) & 0xFFFFFFFF
    left = channels - LANES * word
    return value if left >= LANES else value & ((1 << left) - 1)


@inlined
def append_bits(source, first, channels, out, at):
    """Write bits ``first`` and on of a pixel into the pixel at ``out``, from its bit ``at`` on.

    Parts are written in order: ``carry`` holds what the parts before left in a word that they
    did not fill. Tail bits of ``source`` are 0, so those of the result are.
    """
    words, shift = (channels + LANES - 1) // LANES, at % LANES
    out += 4 * (at // LANES)
    if shift == 0 and first == 0 and channels % LANES == 0:
        copy(out, source, 4 * words)
        return
    carry = load_u32(out) if shift else 0
    for word in range(words):
        value = some_bits(source, first, channels, word)
        store_u32(out + 4 * word, carry | (value << shift))
        carry = value >> (LANES - shift)
    if shift + channels > LANES * words:
        store_u32(out + 4 * words, carry)


@inner
def join(row, arena, constants):
    """Copy channels of ``PARTS`` maps, all bits or all float32, one map after the other."""
    clear_rows(row, arena, field(row, t.HEIGHT))
    for i in range(field(row, t.PARTS)):
        part = constants + field(row, t.PART_TABLE) + i * (8 * t.PART_COLUMNS)
        channels, at = field(part, t.PART_CHANNELS), field(part, t.PART_AT)
        first = field(part, t.PART_FIRST)
        for y in range(field(row, t.BEGIN), field(row, t.END)):
            source = arena + field(part, t.PART_SOURCE) + y * field(part, t.PART_ROW)
            out = arena + field(row, t.OUT) + y * field(row, t.OUT_ROW)
            for _ in range(field(row, t.WIDTH)):
                if field(row, t.KIND) == t.BITS:
                    append_bits(source, first, channels, out, at)
                else:
                    copy(out + 4 * at, source + 4 * first, 4 * channels)
                source += field(part, t.PART_PIXEL)
                out += field(row, t.OUT_PIXEL)
                at += field(part, t.PART_STEP)


@inner
def floats(kind, source, count, out):
    """``count`` values that lie side by side, uint8 or float32, to float32."""
    if kind == t.F32_IMAGE:
        copy(out, source, 4 * count)
        return
    whole = count - count % LANES
    for i in range(0, whole, LANES):
        convert32(source + i, out + 4 * i)
    for i in range(whole, count):
        widen_u8(source + i, out + 4 * i)


@inner
def spread(row, arena, image):
    """The image as a float32 map, whose pixels are whole blocks."""
    clear_floats(row, arena)
    for pixel in range(field(row, t.BEGIN), field(row, t.END)):
        source = image + pixel * field(row, t.SOURCE_PIXEL)
        out = arena + field(row, t.OUT) + pixel * field(row, t.OUT_PIXEL)
        floats(field(row, t.KIND), source, field(row, t.CHANNELS), out)
