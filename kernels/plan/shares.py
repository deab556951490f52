"""One image on several threads: every step cut into parts that cost about the same.

A step is cut by pixels (or rows) where the map is large and by blocks of channels where it is
small; one that costs less than meeting the other threads afterwards is not cut, and several of
these in a row are one unit. What comes out are the chunks, units and phases of
:mod:`frostbit.kernels.machine.board`.

Costs are nanoseconds of one core of an x86 server with AVX2; a board is slower in all of them
alike, and only ratios matter. ``pipeline bench --profile`` shows what steps really take.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.machine.board import CHUNK_COLUMNS
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


GAIN = 0.9
"""Part of one thread's time that several must come below, or there is only one."""
MOST_THREADS = 16
"""Of one image: more meet more often than they compute."""
NOTICED = 0.98
"""Part of a cut's cost that another, of fewer or other parts, must come below."""
SMALLEST_UNIT = 15_000.0
MOST_UNITS = 4
"""Units for each thread, so that one that is held up leaves some to the others."""

Chunk = tuple[int, int, int, int]
"""``BEGIN``, ``END``, ``FIRST_BLOCK`` and ``END_BLOCK`` of a row of the op table."""


@dataclass(frozen=True, eq=False)
class Shares:
    """How threads share one image.

    Attributes:
        threads: how many; 1 if none is worth its meetings.
        chunks: int64 ``[chunks, CHUNK_COLUMNS]``.
        units: int64 ``[units + 1]``, the first chunk of each.
        phases: int64 ``[phases + 1]``, the first unit of each.
        cost: what one image takes, in the unit of :func:`cost`.
    """

    threads: int
    chunks: NDArray[np.int64]
    units: NDArray[np.int64]
    phases: NDArray[np.int64]
    cost: float


def extent(row: Row) -> int:
    """How many pixels or rows ``BEGIN`` and ``END`` of a whole step count."""
    code = row[t.CODE]
    if code in (t.CONVOLVE, t.ELEMENTWISE, t.SPREAD, t.REPEAT):
        return row[t.PIXELS]
    if code in (t.WIDEN, t.SUM, t.MAX_F32, t.MAX_BITS, t.DIFFERENCE):
        return row[t.OUT_HEIGHT]
    if code in (t.REGROUP, t.JOIN):
        return row[t.HEIGHT]
    return 1


def _can_be_cut(row: Row) -> bool:
    """Not a softmax, nor what joins all pixels into one."""
    return row[t.CODE] != t.SOFTMAX and not (row[t.CODE] == t.JOIN and row[t.OUT_ROW] == 0)


def _grains(row: Row) -> tuple[int, int]:
    """The smallest parts along pixels (or rows) and along blocks: of how many of each.

    Of quads, which do not lie in the order of their addresses, whole rows and all blocks.
    """
    if row[t.CODE] == t.CONVOLVE and row[t.MICRO] == t.QUADS:
        return 2 * row[t.OUT_WIDTH], row[t.BLOCKS]
    blocks = row[t.CODE] in (t.CONVOLVE, t.SUM, t.MAX_F32)
    return (TILE if row[t.CODE] == t.CONVOLVE else 1), (2 if blocks else max(1, row[t.BLOCKS]))


def _cuts(total: int, grain: int, parts: int) -> list[tuple[int, int]]:
    """``total`` in at most ``parts`` ranges of whole grains."""
    grains = math.ceil(total / grain)
    parts = min(parts, grains)
    ends = [min(total, grains * i // parts * grain) for i in range(parts + 1)]
    return list(itertools.pairwise(ends))


def _length(ends: tuple[int, int]) -> int:
    return ends[1] - ends[0]


def _part_cost(row: Row, chunk: Chunk) -> float:
    begin, end, first_block, end_block = chunk
    blocks = end_block - first_block
    if row[t.CODE] == t.CONVOLVE:
        return convolution_cost(row, end - begin, blocks)
    return cost(row) * (end - begin) / extent(row) * blocks / row[t.BLOCKS]


def whole(row: Row) -> Chunk:
    """All of a step."""
    return 0, extent(row), 0, row[t.BLOCKS]


def _cut(row: Row, threads: int) -> tuple[list[Chunk], float]:
    """The best way to cut a step for ``threads``, and what one thread's share costs."""
    best, least = [whole(row)], cost(row)
    if not _can_be_cut(row):
        return best, least
    most = max(1, min(MOST_UNITS, int(least / threads / SMALLEST_UNIT)))
    grain, block_grain = _grains(row)
    for each, block_parts in itertools.product(range(most, 0, -1), range(1, threads + 1)):
        blocks = _cuts(row[t.BLOCKS], block_grain, block_parts)
        pixels = _cuts(extent(row), grain, math.ceil(threads * each / len(blocks)))
        largest = _part_cost(row, (*max(pixels, key=_length), *max(blocks, key=_length)))
        mine = math.ceil(len(pixels) * len(blocks) / threads) * largest
        if mine < NOTICED * least:
            best, least = [(*p, *b) for b in blocks for p in pixels], mine
    return best, least


def share(rows: Sequence[Row], threads: int) -> Shares:
    """Cut every step for ``threads``, where that is worth a meeting."""
    chunks: list[tuple[int, ...]] = []
    units, phases, total, alone = [0], [0], CALLING, False
    for i, row in enumerate(rows):
        parts, least = _cut(row, threads)
        if least + MEETING >= cost(row):
            parts, least = [whole(row)], cost(row)
        if alone and len(parts) == 1:
            units.pop()
            phases.pop()
        for part in parts:
            chunks.append((i, *part))
            units.append(len(chunks))
        if alone and len(parts) == 1:
            total += least
        else:
            total += least + MEETING
        phases.append(len(units) - 1)
        alone = len(parts) == 1
    table = np.array(chunks, np.int64).reshape(-1, CHUNK_COLUMNS)
    return Shares(threads, table, np.array(units, np.int64), np.array(phases, np.int64), total)


def best_shares(rows: Sequence[Row], most: int) -> Shares:
    """For the number of threads, ``most`` or fewer, that makes one image fastest."""
    alone = share(rows, 1)
    target = GAIN * sum(map(cost, rows))
    found = [share(rows, threads) for threads in range(2, min(most, MOST_THREADS) + 1)]
    best = min(found, key=lambda shares: shares.cost, default=alone)
    return best if best.cost < target else alone
