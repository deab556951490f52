"""Weights that are whole numbers of 8 bits: found exactly where they are, and nowhere else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostbit.kernels.ir.integer_weights import INT8_LARGEST, as_int8

SEEDS = st.integers(0, 2**32 - 1)


@given(seed=SEEDS, out=st.integers(1, 9), taps=st.integers(1, 40), exponent=st.integers(-40, 20))
def test_what_was_made_of_8_bits_comes_back(seed: int, out: int, taps: int, exponent: int) -> None:
    rng = np.random.default_rng(seed)
    small = rng.integers(-INT8_LARGEST, INT8_LARGEST + 1, (out, taps, 1, 1))
    scale = np.ldexp(rng.integers(1, 2**12, out).astype(np.float64), exponent)
    weights = (small * scale[:, None, None, None]).astype(np.float32)
    found = as_int8(weights)
    assert found is not None
    assert found[0].dtype == np.int8
    assert found[1].dtype == np.float32
    assert (found[1] > 0).all()
    assert (found[0].astype(np.float32) * found[1][:, None, None, None] == weights).all()
    assert np.abs(found[0].astype(int)).max(initial=0) <= INT8_LARGEST


@given(seed=SEEDS)
def test_one_weight_of_9_bits_is_enough_to_refuse(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-127, 128, (4, 9)).astype(np.float32)
    weights[2, 0] = 1  # with it the greatest common divisor is 1
    weights[2, 1] = rng.choice([-1, 1]) * rng.integers(128, 4096)
    assert as_int8(weights) is None


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_8_bits(value: float) -> None:
    assert as_int8(np.array([[1, value]], np.float32)) is None


def test_real_numbers_zeros_and_extremes() -> None:
    rng = np.random.default_rng(0)
    assert as_int8(rng.standard_normal((3, 5)).astype(np.float32)) is None
    found = as_int8(np.zeros((2, 3), np.float32))
    assert found is not None
    assert (found[1] == 1).all()
    tiny, huge = np.float32(2.0**-149), np.float32(2.0**127)
    found = as_int8(np.array([[tiny, 3 * tiny], [huge, -huge]], np.float32))
    assert found is not None
    assert found[0].tolist() == [[1, 3], [1, -1]]
    assert as_int8(np.array([[tiny, huge]], np.float32)) is None
