"""No exporter drops a feature in silence: what one does not have is refused by name."""

import dataclasses
from collections.abc import Callable

import pytest

from frostbit.export.c import convert as to_c
from frostbit.export.errors import ExportError
from frostbit.kernels.ir.program import INPUT, NO_BOUND, Program, Window
from tests.kernels.programs import Builder

CONVERT = {
    "c": to_c.convert,
}  # fmt: skip


def plain() -> Program:
    b = Builder((4, 4, 2))
    x = b.conv(INPUT, 6, Window((2, 2)))
    return b.finish(b.clip(b.binary_conv(b.sign(x), 5, Window((2, 2)))))


def relu(program: Program) -> Program:
    op = dataclasses.replace(program.ops[3], low=0.0, high=NO_BOUND)
    return dataclasses.replace(program, ops=(*program.ops[:3], op, *program.ops[4:]))


def clipped(program: Program) -> Program:
    op = program.ops[2]
    op = dataclasses.replace(op, epilogue=dataclasses.replace(op.epilogue, low=0))
    return dataclasses.replace(program, ops=(*program.ops[:2], op, *program.ops[3:]))


def real(program: Program) -> Program:
    op = dataclasses.replace(program.ops[0], pad_value=program.ops[0].pad_value * 0)
    return dataclasses.replace(program, input_kind="f32", ops=(op, *program.ops[1:]))


@pytest.mark.parametrize("form", CONVERT)
@pytest.mark.parametrize("change", [relu, clipped, real])
def test_refused_by_name(form: str, change: Callable[[Program], Program]) -> None:
    CONVERT[form](plain())
    with pytest.raises(ExportError, match=r"clip3|binary2|float input"):
        CONVERT[form](change(plain()))
