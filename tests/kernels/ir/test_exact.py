"""The proof of exactness: right on what is exact, and it notices what is not."""

import dataclasses

import numpy as np
import pytest

from frostbit.kernels.ir import reference
from frostbit.kernels.ir.exact import analyse, grid_exponent, grids
from frostbit.kernels.ir.program import Affine, BinaryConv, Program
from tests.nets import every_op, images


@pytest.mark.parametrize(
    ("values", "exponent"),
    [
        ([0.0], 0),
        ([1.0, -3.0, 1024.0], 0),
        ([0.5], 1),
        ([0.75, 1.0], 2),
        ([2.0**-20], 20),
        ([1 + 2.0**-23], 23),
    ],
)
def test_grid_exponent(values: list[float], exponent: int) -> None:
    assert grid_exponent(np.array(values, np.float32)) == exponent


def test_values_obey_their_grid() -> None:
    program = every_op()
    found = grids(program)
    for name, value in reference.trace(program, images(program, 16)).items():
        scaled = value.astype(np.float64) * 2.0 ** found[name].exponent
        assert np.array_equal(scaled, np.round(scaled)), name
        assert (np.abs(value).max(axis=(0, 1, 2)) <= found[name].bound).all(), name


def test_grid_parameters_are_proved_exact() -> None:
    program = every_op()
    verdict = analyse(program)
    assert verdict.body_exact
    assert verdict.head_exact
    assert 0 < verdict.bits_left < 24


def with_affine(program: Program, name: str, mul: float) -> Program:
    """``program`` with one multiplier of one affine convolution changed."""

    def change(op: BinaryConv) -> BinaryConv:
        changed = op.epilogue.mul.copy()
        changed[0] = mul
        return dataclasses.replace(op, epilogue=Affine(changed, op.epilogue.add))

    ops = tuple(change(op) if op.name == name else op for op in program.ops)
    return dataclasses.replace(program, ops=ops)


def test_an_unrounded_multiplier_is_noticed() -> None:
    verdict = analyse(with_affine(every_op(), "conv2", 1 / 3))
    assert not verdict.body_exact
    assert verdict.bits_left < 0


def test_only_the_head_suffers_when_no_sign_follows() -> None:
    verdict = analyse(with_affine(every_op(), "conv3", 1 / 3))
    assert verdict.body_exact
    assert not verdict.head_exact


def test_averages_over_an_odd_area_are_not_exact() -> None:
    program = every_op()
    ops = []
    for op in program.ops:
        if op.name == "mean":
            op = dataclasses.replace(op, window=dataclasses.replace(op.window, kernel=(3, 2)))
        ops.append(op)
    assert not analyse(dataclasses.replace(program, ops=tuple(ops))).body_exact
