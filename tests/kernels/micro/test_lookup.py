"""The pair look-up alone: its tables, its counts against NumPy, and its place in the engine."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import INPUT, Window
from frostbit.kernels.machine import cpu
from frostbit.kernels.micro import lookup
from frostbit.kernels.micro.operands import Parts, Taps, Tile
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.micro.xnor import TILE
from frostbit.kernels.plan import weight_layout
from frostbit.kernels.plan.plan import make_plan
from tests.kernels.programs import Builder, random_images

Counts = NDArray[np.int32]
pytestmark = pytest.mark.skipif(not lookup.HAS_LOOKUP, reason="the look-up needs AVX2")


@numba.njit
def indexed(source, pixels, offsets, words, indices, stride, in_pairs):
    tile, taps = Tile(source, pixels), Taps(offsets, words, 0)
    if in_pairs:
        lookup.index_by_two(tile, taps, Parts(indices, stride))
    else:
        lookup.index_by_one(tile, taps, Parts(indices, stride))


@numba.njit
def looked_up(tables, indices, stride, rows, step, triples, counts, apart, both):
    pairs, weights, out = Parts(indices, stride), Parts(rows, step), Parts(counts, apart)
    if both:
        lookup.lookup_two(tables, pairs, weights, triples, out)
    else:
        lookup.lookup_one(tables, pairs, weights, triples, out)


def test_tables_hold_both_counts() -> None:
    tables = weight_layout.lookup_tables()
    for row in range(256):
        for nibble in range(16):
            one, two = (int(a ^ nibble).bit_count() for a in (row % 16, row // 16))
            assert tables[row, nibble] == one + 16 * two


@numba.njit
def widened(counts, out):
    lookup.widen_counts(counts, out)


def count(source: Any, starts: Any, offsets: Any, rows: Any, in_pairs: bool = False) -> Counts:
    """Counts int32 ``[2 blocks, TILE, 32]`` of weights uint32 ``[64, words]``."""
    words, blocks = len(offsets), 2
    pixels = np.zeros((TILE, 4), np.int32)
    pixels[:, 0] = 4 * np.asarray(starts)
    steps = (4 * np.asarray(offsets)).astype(np.int32)
    stride = weight_layout.index_bytes(words)
    indices = np.full((lookup.PAIRS, stride // 2), 0xFFFF, np.uint16)
    indexed(
        source.ctypes.data, pixels.ctypes.data, steps.ctypes.data, words, indices.ctypes.data,
        stride, in_pairs,
    )  # fmt: skip
    nibbles = weight_layout.padded_nibbles(words)
    stored = np.ascontiguousarray(weight_layout.by_block(weight_layout.nibble_rows(rows)))
    assert stored.shape == (blocks, nibbles, LANES)
    tables, counts = weight_layout.lookup_tables(), np.zeros((blocks, TILE, LANES), np.uint16)
    alone = np.zeros_like(counts)
    for first in range(0, nibbles, lookup.CHUNK):
        triples = min(lookup.CHUNK, nibbles - first) // lookup.TRIPLE
        for both, out in ((True, counts), (False, alone)):
            looked_up(
                tables.ctypes.data, indices.ctypes.data + 2 * first, stride,
                stored.ctypes.data + first * LANES, nibbles * LANES, triples, out.ctypes.data,
                counts[0].nbytes, both,
            )  # fmt: skip
    assert np.array_equal(alone[0], counts[0])
    assert not alone[1].any()
    wide = np.zeros(counts.shape, np.int32)
    for narrow, out in zip(counts, wide, strict=True):
        widened(narrow.ctypes.data, out.ctypes.data)
    return wide


@settings(deadline=None, max_examples=80)
@given(
    words=st.one_of(st.integers(1, 60), st.sampled_from([7, 8, 9, 63, 64, 300])),
    seed=st.integers(0, 2**32 - 1),
)
def test_counts(words: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 2**32, 500, dtype=np.uint32)
    rows = rng.integers(0, 2**32, (2 * LANES, words), dtype=np.uint32)
    starts, offsets = rng.integers(0, 50, TILE), rng.integers(0, 400, words)
    active = source[starts[:, None] + offsets]
    want = np.bitwise_count(active[:, None, :] ^ rows).sum(axis=2, dtype=np.int32)
    want = want.reshape(TILE, 2, LANES).transpose(1, 0, 2)
    np.testing.assert_array_equal(count(source, starts, offsets, rows), want)


@settings(deadline=None, max_examples=40)
@given(pairs=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_words_side_by_side(pairs: int, seed: int) -> None:
    """Two words in a step give what one word in a step gives."""
    rng = np.random.default_rng(seed)
    source = rng.integers(0, 2**32, 500, dtype=np.uint32)
    rows = rng.integers(0, 2**32, (2 * LANES, 2 * pairs), dtype=np.uint32)
    starts = rng.integers(0, 50, TILE)
    offsets = (rng.integers(0, 400, pairs)[:, None] + np.arange(2)).ravel()
    one, two = (count(source, starts, offsets, rows, in_pairs) for in_pairs in (False, True))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize(
    ("values", "kernel", "dilation", "paired"),
    [
        (1, 3, 1, False),
        (2, 3, 1, True),
        (1, 2, 1, True),
        (1, 2, 2, False),
        (3, 2, 1, True),
        (2, 1, 2, True),
    ],
)
def test_pairs_of_words(values: int, kernel: int, dilation: int, paired: bool) -> None:
    window = Window((3, kernel), dilation=(1, dilation))
    assert weight_layout.is_paired(window, values) == paired


def test_more_products_than_a_count_holds() -> None:
    """Such a layer is counted by another micro-kernel, not wrongly."""
    b = Builder((3, 3, 1))
    x = b.sign(b.conv(INPUT, 8192, Window((1, 1))))
    program = b.finish(b.binary_conv(x, 33, Window((3, 3)), affine=False), 2)
    images = random_images(program, 2)
    want = reference.trace(program, images)[program.ops[-1].name][:, 0, 0]
    table = make_plan(program, "lookup").table
    assert table[table[:, t.TAPS] == 9 * 8192 // 32, t.MICRO].tolist() == [t.XNOR]
    np.testing.assert_array_equal(Engine(program, kernel="lookup").run(images), want)


@pytest.mark.parametrize("words", [1, 7, 8, 9, weight_layout.MAX_TAPS // 32])
@pytest.mark.parametrize("weight", [0, 0xFFFFFFFF])
def test_extremes(words: int, weight: int) -> None:
    """All match gives 0; all mismatch every bit, in both halves of every byte."""
    source = np.full(words, 0xFFFFFFFF, np.uint32)
    rows = np.full((2 * LANES, words), weight, np.uint32)
    found = count(source, [0] * TILE, np.arange(words), rows)
    assert (found == (0 if weight else 32 * words)).all()


def test_it_is_the_choice_for_avx2_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cpu.VARIABLE, raising=False)
    monkeypatch.setattr(cpu, "target_features", lambda: {"avx2": True})
    assert cpu.available() == ("lookup", "xnor", "portable")
    assert cpu.chosen_kernel() == "lookup"
    counting = {"avx2": True, "avx512bw": True, "avx512vpopcntdq": True}
    monkeypatch.setattr(cpu, "target_features", lambda: counting)
    assert cpu.chosen_kernel() == "xnor"
    monkeypatch.setattr(cpu, "target_features", dict)
    assert cpu.available() == ("xnor", "portable")
    with pytest.raises(ValueError, match=r"'lookup' needs AVX2: use one of xnor, portable"):
        cpu.chosen_kernel("lookup")
