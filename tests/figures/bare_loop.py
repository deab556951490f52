"""The micro-kernels' inner loops alone, on data that lies in the first-level cache."""

from __future__ import annotations

import time
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.micro import lookup
from frostbit.kernels.micro.operands import Parts, Taps, Tile
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.micro.xnor import TILE, xnor_tile
from frostbit.kernels.plan import weight_layout
from frostbit.kernels.plan.arena import allocate

CALLS = 4000
WORDS = 36  # taps of 3x3 convolutions with 128 channels
TRIPLES = lookup.CHUNK // lookup.TRIPLE
_lookup_two = lookup.lookup_two


@numba.njit
def _xnor(source, pixels, offsets, words, weights, counts, calls):  # type: ignore[no-untyped-def]
    for _ in range(calls):
        xnor_tile(Tile(source, pixels), Taps(offsets, words, weights), counts)


@numba.njit
def _look_up(tables, indices, stride, rows, step, triples, counts, apart, calls):  # type: ignore[no-untyped-def]
    pairs, weights, out = Parts(indices, stride), Parts(rows, step), Parts(counts, apart)
    for _ in range(calls):
        _lookup_two(tables, pairs, weights, triples, out)


def _random(size: int, most: int = 256) -> NDArray[np.uint8]:
    """``size`` aligned random bytes below ``most``."""
    data = allocate(size)
    data[:] = np.random.default_rng(0).integers(0, most, size)
    return data


def _xnor_call() -> tuple[Any, tuple[Any, ...], int]:
    source, weights = _random(4 * (WORDS + 4 * TILE)), _random(4 * WORDS * LANES)
    pixels = np.zeros((TILE, 4), np.int32)
    pixels[:, 0] = 4 * np.arange(TILE)
    offsets, counts = np.arange(0, 4 * WORDS, 4, dtype=np.int32), allocate(4 * TILE * LANES)
    arrays = (source, pixels, offsets, weights, counts)
    at = [array.ctypes.data for array in arrays]
    return _xnor, (at[0], at[1], at[2], WORDS, at[3], at[4], arrays), 32 * WORDS * TILE * LANES


def _lookup_call() -> tuple[Any, tuple[Any, ...], int]:
    nibbles = lookup.TRIPLE * TRIPLES
    tables = allocate(weight_layout.lookup_tables().nbytes)
    tables[:] = weight_layout.lookup_tables().ravel()
    stride = 2 * (nibbles + lookup.NIBBLES)
    indices = allocate(lookup.PAIRS * stride)
    indices.view(np.uint16)[:] = 16 * _random(len(indices) // 2).astype(np.uint16)
    rows, counts = _random(2 * nibbles * LANES, 16), allocate(2 * lookup.TILE_COUNTS)
    arrays = (tables, indices, rows, counts)
    at = [array.ctypes.data for array in arrays]
    step = nibbles * LANES
    arguments = (at[0], at[1], stride, at[2], step, TRIPLES, at[3], lookup.TILE_COUNTS, arrays)
    return _look_up, arguments, 4 * nibbles * TILE * 2 * LANES


def macs_per_second(kernel: str, rounds: int = 21) -> float:
    """Binary multiply-accumulates a second of the loop of ``kernel``, ``xnor`` or ``lookup``.

    ``xnor`` is one call of a tile, ``lookup`` one of two blocks and ``CHUNK`` nibbles, its
    addition to the counts included; the best of ``rounds`` times ``CALLS`` calls.
    """
    function, (*arguments, _alive), macs = _xnor_call() if kernel == "xnor" else _lookup_call()
    function(*arguments, 10)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        function(*arguments, CALLS)
        best = min(best, time.perf_counter() - start)
    return macs * CALLS / best
