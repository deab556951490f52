"""The bit convention, at the widths where packing goes wrong."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostbit.kernels.ir import bits

WIDTHS = [1, 3, 31, 32, 33, 63, 64, 65, 128, 200]


@pytest.mark.parametrize("channels", WIDTHS)
def test_unpack_inverts_pack(channels: int) -> None:
    values = np.random.default_rng(channels).choice([-1, 1], size=(2, 3, channels)).astype(np.int8)
    words = bits.pack(values)
    assert words.shape == (2, 3, bits.words_for(channels))
    assert bits.tail_is_clear(words, channels)
    assert np.array_equal(bits.unpack(words, channels), values)


def test_bit_one_means_minus_one_lowest_channel_first() -> None:
    values = np.ones(70)
    values[[0, 33, 64]] = -1
    assert bits.pack(values).tolist() == [(1 << 0) | (1 << 33), 1]


def test_sign_of_both_zeros_is_plus_one() -> None:
    assert bits.pack(np.array([0.0, -0.0, -1e-45, 1e-45])).tolist() == [0b0100]


def test_nan_has_no_sign() -> None:
    with pytest.raises(ValueError, match="NaN"):
        bits.pack(np.array([1.0, np.nan]))


@given(st.integers(1, 200), st.integers(0, 2**32 - 1))
def test_dot_product_is_k_minus_twice_popcount(channels: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.choice([-1, 1], size=channels)
    b = rng.choice([-1, 1], size=channels)
    mismatches = bits.popcount(bits.pack(a) ^ bits.pack(b))
    assert channels - 2 * int(mismatches) == int(a @ b)


def test_tail_check_sees_a_stray_bit() -> None:
    assert not bits.tail_is_clear(np.array([[1 << 40]], np.uint64), 40)
    assert bits.tail_is_clear(np.array([[1 << 39]], np.uint64), 40)
