"""The micro-kernels alone: every form that LLVM can compile here, against NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.cpu import Form, form_for
from frostbit.kernels.micro.operands import Taps, Tile
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.micro.xnor import BYTE_TAPS, TILE, grouped_tile, make_tile, portable_tile

Counts = NDArray[np.int32]


def compiled(tile: Any) -> Callable[..., None]:
    """A micro-kernel as a Python function of addresses."""

    @numba.njit
    def run(source, pixels, offsets, words, weights, counts):
        tile(Tile(source, pixels), Taps(offsets, words, weights), counts)

    return run


TILES = {
    "words of 64 bytes": compiled(make_tile(Form("words", 64))),
    "bytes of 32": compiled(make_tile(Form("bytes", 32))),
    "bytes of 16": compiled(make_tile(Form("bytes", 16))),
    "portable": compiled(portable_tile),
}


def run_tile(name: str, source: Any, starts: Any, offsets: Any, weights: Any) -> Counts:
    """Counts int32 ``[TILE, 32]`` of one tile; distances in words."""
    pixels = np.zeros((TILE, 4), np.int32)
    pixels[:, 0] = 4 * np.asarray(starts)
    steps = (4 * np.asarray(offsets)).astype(np.int32)
    counts = np.full((TILE, LANES), -1, np.int32)
    TILES[name](
        source.ctypes.data,
        pixels.ctypes.data,
        steps.ctypes.data,
        len(steps),
        weights.ctypes.data,
        counts.ctypes.data,
    )
    return counts


@pytest.mark.parametrize("name", TILES)
@settings(deadline=None, max_examples=60)
@given(
    words=st.one_of(st.integers(1, 80), st.sampled_from([BYTE_TAPS, BYTE_TAPS + 1, 400])),
    seed=st.integers(0, 2**32 - 1),
)
def test_counts(name: str, words: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 2**32, 500, dtype=np.uint32)
    weights = rng.integers(0, 2**32, (words, LANES), dtype=np.uint32)
    starts = rng.integers(0, 50, TILE)
    offsets = rng.integers(0, 400, words)
    active = source[starts[:, None] + offsets]
    want = np.bitwise_count(active[:, :, None] ^ weights).sum(axis=1, dtype=np.int32)
    np.testing.assert_array_equal(run_tile(name, source, starts, offsets, weights), want)


@pytest.mark.parametrize("name", TILES)
@pytest.mark.parametrize("words", [1, BYTE_TAPS, BYTE_TAPS + 1, 3000])
def test_extremes(name: str, words: int) -> None:
    """All match gives 0; all mismatch gives every bit, far beyond 16-bit counters."""
    source = np.full(words, 0xFFFFFFFF, np.uint32)
    offsets = np.arange(words)
    for weight, count in ((0xFFFFFFFF, 0), (0, 32 * words)):
        weights = np.full((words, LANES), weight, np.uint32)
        assert (run_tile(name, source, [0] * TILE, offsets, weights) == count).all()


def test_grouped_lanes_read_their_own_words() -> None:
    rng = np.random.default_rng(3)
    source = rng.integers(0, 2**32, 100, dtype=np.uint32)
    weights = rng.integers(0, 2**32, (5, LANES), dtype=np.uint32)
    lanes = rng.integers(0, 20, LANES)
    offsets = np.array([0, 7, 3, 30, 9])
    starts = np.array([1, 4, 2, 8])

    @numba.njit
    def run(source, pixels, offsets, words, weights, counts, lanes):
        grouped_tile(Tile(source, pixels), Taps(offsets, words, weights), counts, lanes)

    pixels = np.zeros((TILE, 4), np.int32)
    pixels[:, 0] = 4 * starts
    counts = np.zeros((TILE, LANES), np.int32)
    steps, distances = (4 * offsets).astype(np.int32), (4 * lanes).astype(np.int32)
    arrays = (source, pixels, steps, weights, counts, distances)
    addresses = [array.ctypes.data for array in arrays]
    run(*addresses[:3], len(steps), *addresses[3:])
    active = source[starts[:, None, None] + offsets[:, None] + lanes]
    want = np.bitwise_count(active ^ weights).sum(axis=1, dtype=np.int32)
    np.testing.assert_array_equal(counts, want)


def test_form_follows_the_features() -> None:
    avx512 = {"avx2": True, "avx512bw": True, "avx512vpopcntdq": True}
    assert form_for(avx512) == Form("words", 64)
    assert form_for({"avx2": True, "avx512bw": True, "avx512vpopcntdq": False}) == Form("bytes", 32)
    assert form_for({"neon": True}) == Form("bytes", 16)
    assert cpu.host_form() in {Form("words", 64), Form("bytes", 32), Form("bytes", 16)}
