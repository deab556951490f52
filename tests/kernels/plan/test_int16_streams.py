"""Residual streams in 16 bits: when they are used, and that no bit changes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.program import INPUT, Program, Window
from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.fused import HAS_FUSED
from frostbit.kernels.plan import int16_streams
from frostbit.kernels.plan.plan import make_plan
from tests.kernels.loops.test_steps import SAME, check
from tests.kernels.programs import CHANNELS, Builder


@pytest.fixture(autouse=True)
def of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it does not pay."""
    monkeypatch.setattr(int16_streams, "SMALLEST_MAP", 0)
    monkeypatch.setattr(int16_streams, "pays", lambda kernel: True)


def stream(
    channels: int, size: tuple[int, int] = (5, 7), seed: int = 0, layers: int = 3
) -> Program:
    """A stem, and convolutions that each add to the sum before; the last sum is pooled."""
    b = Builder((*size, 1), seed=seed)
    total = b.conv(INPUT, channels, SAME)
    total = b.binary_conv(b.sign(total), channels, Window((1, 1)))
    for _ in range(layers):
        total = b.add(b.binary_conv(b.sign(total), channels, Window((1, 1))), total)
    return b.finish(b.avg_pool(total, Window((2, 2), (2, 2))), 3)


def kinds(program: Program) -> tuple[list[int], list[int]]:
    """Kinds of the residuals and results of the affine convolutions."""
    table = make_plan(program, cpu.chosen_kernel()).table
    rows = table[(table[:, t.CODE] == t.CONVOLVE) & (table[:, t.MICRO] < t.INT16)]
    return rows[:, t.RESIDUAL_KIND].tolist(), rows[:, t.OUT_KIND].tolist()


@settings(deadline=None, max_examples=25)
@given(channels=CHANNELS, seed=st.integers(0, 1000))
def test_every_bit_is_the_reference_s(channels: int, seed: int) -> None:
    check(stream(channels, seed=seed))


def test_sums_between_convolutions_take_16_bits() -> None:
    """All kinds of step: into the stream, along it, and out of it to what pools its result."""
    residuals, results = kinds(stream(64))
    assert residuals == [t.F32, t.I16, t.I16, t.I16]
    assert results == [t.I16, t.I16, t.I16, t.F32]


def test_what_may_not_fit_stays_float32() -> None:
    """2000 products of at most 16 steps fit 15 bits, and the sum of two such numbers does not."""
    assert kinds(stream(2000, (2, 2)))[1] == [t.I16, t.F32, t.F32, t.F32]
    assert t.I16 not in kinds(stream(2100, (2, 2)))[1]


def test_small_maps_stay_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int16_streams, "SMALLEST_MAP", 4 * 5 * 7 * 64 + 1)
    assert t.I16 not in kinds(stream(64))[1]
    monkeypatch.setattr(int16_streams, "SMALLEST_MAP", 4 * 5 * 7 * 64)
    assert t.I16 in kinds(stream(64))[1]


def test_largest_numbers() -> None:
    """All products alike: the sums reach the bound that lets them in."""
    b = Builder((3, 3, 1))
    words = np.zeros((64, 1, 1, 1), np.uint64)
    x = b.conv(INPUT, 64, Window((1, 1)))
    total = b.binary_conv(b.sign(x), 64, Window((1, 1)), words=words)
    total = b.add(b.binary_conv(b.sign(total), 64, Window((1, 1)), words=words), total)
    last = b.add(b.binary_conv(b.sign(total), 64, Window((1, 1)), words=words), total)
    program = b.finish(last)
    assert t.I16 in kinds(program)[1]
    check(program)


@pytest.mark.parametrize("kernel", cpu.available())
def test_it_is_for_kernels_that_convert_in_registers(
    kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(int16_streams, "SMALLEST_MAP", 0)
    used = t.I16 in make_plan(stream(64), kernel).table[:, t.OUT_KIND]
    assert used == (kernel == "xnor" and HAS_FUSED)
