"""verify: a Program with one thing wrong is refused, and the message names the op."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import OP_TYPES, FormatError, Program, Threshold, Window
from frostbit.kernels.ir.reference import RULES
from frostbit.kernels.ir.verify import ACCEPTS, infer_types
from tests.nets import every_op, imported


def changed(program: Program, name: str, /, **fields: Any) -> Program:
    """``program`` with fields of the op ``name`` replaced."""
    ops = tuple(dataclasses.replace(op, **fields) if op.name == name else op for op in program.ops)
    return dataclasses.replace(program, ops=ops)


def test_every_op_is_used_and_known_everywhere() -> None:
    ops = (*every_op().ops, *imported().ops)
    assert {type(op).__name__ for op in ops} == set(OP_TYPES)
    assert set(ACCEPTS) == set(RULES) == set(OP_TYPES.values())


def test_types_are_inferred() -> None:
    types = infer_types(every_op())
    assert types["conv0"].shape == (6, 7, 33)
    assert types["conv0"].kind == "bits"
    assert types["mean"].shape == (3, 4, 9)
    assert types["logits"].shape == (1, 1, 5)


stray = bits.pack(np.ones((33, 3, 3, 9)))
stray[0, 0, 0, 0] |= np.uint64(1 << 9)


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("conv0", {"words": stray}, "tail bits"),
        ("conv0", {"pad_value": 2}, "pad_value"),
        ("conv0", {"channels_in": 8}, "8 channels"),
        ("conv0", {"epilogue": Threshold(np.full(33, 83, np.int32))}, "threshold outside"),
        ("conv0", {"window": Window((3, 3), (0, 1))}, "impossible geometry"),
        ("conv1", {"window": Window((3, 3), (1, 1), (-1, 0, 0, 0))}, "impossible geometry"),
        ("stem", {"add": np.full(9, np.nan, np.float32)}, "NaN"),
        ("stem", {"weights": np.zeros((9, 3, 3, 2))}, "float32"),
        ("stem", {"inputs": ("logits",)}, "not computed before"),
        ("sum", {"inputs": ("conv2",)}, "takes 2 inputs"),
        ("sum", {"inputs": ("conv2", "sign")}, "is bits"),
        ("mean", {"window": Window((9, 9))}, "does not fit"),
        ("most", {"window": Window((2, 2), (1, 1), (2, 0, 0, 0))}, "pads must be smaller"),
        ("twice", {"times": 0}, "times"),
        ("depth", {"groups": 2}, "2 groups on 9 input"),
        ("depth", {"groups": 3}, "weights has shape"),
        ("clip", {"inputs": ("conv1",)}, "is bits"),
        ("weights_only", {"epilogue": Threshold(np.zeros(9, np.int32))}, "an input of bits"),
        ("sign2", {"name": "sign"}, "already taken"),
        ("logits", {"weights": np.zeros((5, 17), np.float32)}, "shape"),
    ],
)
def test_one_wrong_thing_is_named(name: str, fields: dict[str, Any], message: str) -> None:
    program = changed(every_op(), name, **fields)
    with pytest.raises(FormatError, match=message) as caught:
        infer_types(program)
    assert str(caught.value).startswith("op '")


def test_the_last_op_must_give_logits() -> None:
    program = every_op()
    with pytest.raises(FormatError, match="last op"):
        infer_types(dataclasses.replace(program, ops=program.ops[:-2]))
    with pytest.raises(FormatError, match="class names"):
        infer_types(dataclasses.replace(program, classes=("a",)))
    with pytest.raises(FormatError, match="ops"):
        infer_types(dataclasses.replace(program, ops=()))
