"""A Program that could overflow float32 is refused, also where only a sum on the way does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from frostbit.kernels.ir.program import INPUT, Affine, BinaryConv, FormatError, Op, Program, Window
from frostbit.kernels.ir.verify import verify
from tests.kernels.programs import Builder

POINT = Window((1, 1))


def scaled(program: Program, name: str, field: str, factor: float) -> Program:
    """``program`` with the largest of an op's numbers at ``factor``."""

    def changed(op: Op) -> Op:
        if op.name != name:
            return op
        full = np.full_like(getattr(op, field), np.float32(factor))
        return replace(op, **{field: full})

    return replace(program, ops=tuple(map(changed, program.ops)))


def test_one_layer_after_another() -> None:
    b = Builder((4, 4, 3))
    first = b.conv(INPUT, 8, POINT)
    second = b.conv(first, 8, POINT)
    program = b.finish(second)
    verify(program)
    large = scaled(program, first, "weights", 1e30)
    verify(large)
    with pytest.raises(FormatError, match=f"op '{second}': its values could overflow"):
        verify(scaled(large, second, "weights", 1e10))


def test_a_sum_of_pixels() -> None:
    b = Builder((4, 4, 3))
    program = b.finish(b.conv(INPUT, 8, POINT))
    with pytest.raises(FormatError, match="overflow"):
        verify(scaled(program, program.ops[0].name, "weights", 1e33))


def test_a_count_before_its_small_multiplier() -> None:
    b = Builder((4, 4, 3))
    first = b.conv(INPUT, 64, POINT)
    second = b.binary_conv(first, 8, POINT)
    program = scaled(b.finish(second), first, "weights", 1e33)
    tiny = Affine(np.full(8, 1e-30, np.float32), np.zeros(8, np.float32))
    ops = tuple(
        replace(op, epilogue=tiny) if isinstance(op, BinaryConv) else op for op in program.ops
    )
    with pytest.raises(FormatError, match=f"op '{second}'"):
        verify(replace(program, ops=ops))


def test_signs_are_small_again() -> None:
    b = Builder((4, 4, 3))
    first = b.conv(INPUT, 8, POINT)
    program = b.finish(b.conv(b.sign(first), 8, POINT))
    verify(scaled(program, first, "weights", 1e32))
