"""What a step costs, roughly: only ratios matter, to each other and to meeting the other threads.

The figures are nanoseconds of one core of an x86 server with AVX2; a board is slower in all of
them alike. ``pipeline bench --profile`` shows what steps really take.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from frostbit.kernels import op_table as t
from frostbit.kernels.micro.fused import HAS_FUSED
from frostbit.kernels.micro.lookup import GROUP
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.micro.xnor import TILE

MEETING = 1_000.0
"""That all threads end a phase and begin the next."""
CALLING = 3_000.0
"""That threads which wait for a job find one, and that the caller learns of its end."""

_TILE_TAP = {
    t.XNOR: 2.5 if HAS_FUSED else 12.0,
    t.LOOKUP: 5.5,
    t.PORTABLE: 250.0,
    t.GROUPED: 250.0,
    t.DENSE: 4.0,
    t.INT16: 3.0,
    t.INT8: 3.0,
    t.QUADS: 0.8,
    t.LANES16: 2.0,
}
"""A tile, a block of channels and a tap (a word, a value or a pair of values)."""
_OTHER_TAP = 4.0
_TILE_END = 15.0
"""The epilogue of a tile and block."""
_INDEX = 6.0
"""The indices of a tile and tap word, which all blocks share (look-up)."""
_BYTES = 25.0
"""Bytes of weights that come from the second-level cache in a nanosecond."""
_BLOCK = 5.0
"""A block of a pixel that is read, changed and written."""
_TAP = 2.5
"""A block of a pixel that a window takes up."""
_BITS_TAP = 0.7
_WIDENED = 1.1
"""A block of a pixel that is widened, or a pixel of the image."""
_VALUE = 1.5
"""A value that is moved by itself."""

Row = Sequence[int]
"""Of the op table."""


def convolution_cost(row: Row, pixels: int, blocks: int) -> float:
    """Of a part of a convolution.

    A look-up finds the indices of a tile once, for all blocks, and reads the weights of all blocks
    once for a group of tiles.
    """
    tiles = math.ceil(pixels / TILE)
    found = tiles * blocks * (row[t.TAPS] * _TILE_TAP.get(row[t.MICRO], _OTHER_TAP) + _TILE_END)
    if row[t.MICRO] == t.LOOKUP:
        read = blocks * row[t.NIBBLES] * LANES / _BYTES
        found += tiles * row[t.TAPS] * _INDEX + math.ceil(tiles / GROUP) * read
    return found


def cost(row: Row) -> float:
    """All of a step."""
    code, blocks = row[t.CODE], row[t.BLOCKS]
    pixels = max(row[t.PIXELS], row[t.OUT_HEIGHT] * row[t.OUT_WIDTH])
    taps = row[t.KERNEL_H] * row[t.KERNEL_W]
    if code == t.CONVOLVE:
        return convolution_cost(row, row[t.PIXELS], blocks)
    if code == t.WIDEN:
        return pixels * blocks * _WIDENED
    if code == t.REGROUP:
        return row[t.HEIGHT] * row[t.WIDTH] * row[t.CHANNELS] * _VALUE
    if code in (t.SUM, t.MAX_F32):
        return pixels * blocks * (_BLOCK + taps * _TAP)
    if code == t.MAX_BITS:
        return pixels * blocks * taps * _BITS_TAP
    if code == t.SOFTMAX:
        return row[t.CHANNELS] * 4 * _VALUE
    if code == t.ELEMENTWISE and row[t.FUNCTION] == t.SIGMOID:
        return pixels * blocks * 32 * _VALUE
    return pixels * blocks * _BLOCK
