"""What the parts of a step have of their own: a head of the arena, and a share of what is cleared.

A map is cleared from the place of a part's first pixel (or row) to that of the next part's, the
first and the last part to the ends of the map. So every part clears what lies around its own
pixels and nothing that another writes.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.machine.jit import inlined, inner
from frostbit.kernels.micro.vector import clear, field, load_i32
from frostbit.kernels.micro.xnor import PIXEL_BYTES


@inlined
def own(row, arena):
    """Address of the head of the arena that this thread may write."""
    return arena + field(row, t.SCRATCH)


@inner
def _clear(row, arena, start, stop, total):
    """Clear from ``start`` to ``stop``, distances in the arena; ``total`` pixels or rows in all."""
    if field(row, t.CLEAR_BYTES) == 0:
        return
    first = field(row, t.CLEAR) if field(row, t.BEGIN) == 0 else start
    last = stop
    if field(row, t.END) >= total:
        last = field(row, t.CLEAR) + field(row, t.CLEAR_BYTES)
    clear(arena + first, last - first)


@inner
def clear_rows(row, arena, total):
    """The share of a part that writes rows of a map of ``total`` rows."""
    start, step = field(row, t.OUT), field(row, t.OUT_ROW)
    _clear(row, arena, start + field(row, t.BEGIN) * step, start + field(row, t.END) * step, total)


@inner
def clear_floats(row, arena):
    """The share of a part that writes pixels of a float map, which lie side by side."""
    start, step = field(row, t.OUT), field(row, t.OUT_PIXEL)
    begin, end = start + field(row, t.BEGIN) * step, start + field(row, t.END) * step
    _clear(row, arena, begin, end, field(row, t.PIXELS))


@inlined
def _place(row, constants, pixel):
    """Distance in the arena of the signs of a pixel."""
    entry = constants + field(row, t.PIXEL_TABLE) + pixel * PIXEL_BYTES
    return field(row, t.BITS_OUT) + load_i32(entry + t.AT_BITS)


@inner
def _clear_around(row, arena, constants):
    """The same between pixels alone: other parts write other blocks of them at the same time."""
    size = field(row, t.BLOCKS) * field(row, t.BITS_BLOCK)
    at = field(row, t.CLEAR)
    if field(row, t.BEGIN) > 0:
        at = _place(row, constants, field(row, t.BEGIN))
    for pixel in range(field(row, t.BEGIN), field(row, t.END)):
        place = _place(row, constants, pixel)
        if place > at:
            clear(arena + at, place - at)
        at = place + size
    last = field(row, t.CLEAR) + field(row, t.CLEAR_BYTES)
    if field(row, t.END) < field(row, t.PIXELS):
        last = _place(row, constants, field(row, t.END))
    if last > at:
        clear(arena + at, last - at)


@inner
def clear_pixels(row, arena, constants):
    """The share of a part that writes signs of pixels, whose margins are to be 0."""
    if field(row, t.CLEAR_BYTES) == 0 or field(row, t.FIRST_BLOCK) > 0:
        return
    if field(row, t.END_BLOCK) < field(row, t.BLOCKS):
        _clear_around(row, arena, constants)
        return
    start, stop = field(row, t.CLEAR), 0
    if field(row, t.BEGIN) > 0:
        start = _place(row, constants, field(row, t.BEGIN))
    if field(row, t.END) < field(row, t.PIXELS):
        stop = _place(row, constants, field(row, t.END))
    _clear(row, arena, start, stop, field(row, t.PIXELS))
