"""What roundings of layers come to in the answer: a bound that holds, and not without end."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostbit.export.errors import SourceDiffers
from frostbit.export.reading.allowance import passed_on
from frostbit.export.reading.compare import ANSWERS_TOLERANCE, ROUNDING, compare
from frostbit.export.reading.imported import Imported
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import (
    Dense,
    Flatten,
    GlobalSum,
    Op,
    Program,
    Quantize,
    Sign,
)
from tests.export.reading.test_compare import Replay
from tests.nets import images, imported

OPS = [op for op in imported().ops if not isinstance(op, Sign | Quantize)]


@given(st.sampled_from(OPS), st.integers(0, 10**6), st.sampled_from([0.0, 1e-6, 1e-2, 1.0]))
def test_no_difference_is_larger(op: Op, seed: int, size: float) -> None:
    """Inputs moved by at most their errors move what an op gives by at most its own."""
    program, rng = imported(), np.random.default_rng(seed)
    values = {"input": images(program, 1), **reference.trace(program, images(program, 1))}
    sources = [values[name] for name in op.inputs]
    errors = [
        np.zeros(each.shape) if each.dtype == np.int8 else size * rng.random(each.shape)
        for each in sources
    ]
    moved = [
        each if each.dtype == np.int8 else (each + error * rng.choice([-1, 1], each.shape))
        for each, error in zip(sources, errors, strict=True)
    ]
    rule = reference.RULES[type(op)]
    difference = np.abs(rule(op, *moved).astype(np.float64) - rule(op, *sources))
    assert (difference <= passed_on(op, sources, errors, ROUNDING)).all()


@pytest.mark.parametrize(("step", "explained"), [(0.5, True), (40.0, False)])
def test_answers_of_sums_that_cancel(step: float, explained: bool) -> None:
    """A layer of 8 million and ``step``, within its own tolerance, and one that cancels it."""
    weights = np.array([[1, -1], [2, -2.000001]], np.float32)
    ops = (
        Sign("sign", ("input",)),
        GlobalSum("sum", ("sign",)),
        Flatten("row", ("sum",)),
        Dense("large", ("row",), np.full((2, 2), 1e6, np.float32), np.zeros(2, np.float32)),
        Dense("answer", ("large",), weights, np.zeros(2, np.float32)),
    )
    program = Program((2, 2, 2), ops, "", ("a", "b"), input_kind="f32")
    read = Imported(program, "a replay", (), (), {op.name: op.name for op in ops})

    def change(values: dict[str, np.ndarray]) -> None:
        large = values["large"] = values["large"] + np.array([0, step], np.float32)
        values["answer"] = reference.RULES[Dense](ops[-1], large)

    image = np.ones((1, 2, 2, 2), np.float32)
    if not explained:
        with pytest.raises(SourceDiffers, match="than rounding explains"):
            compare(read, Replay(program, change), image)
        return
    found = compare(read, Replay(program, change), image)
    assert found.answers > ANSWERS_TOLERANCE
    assert found.explained == 1
    assert "(on 1 images explained by sums that cancel)" in found.verdict
