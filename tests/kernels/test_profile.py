"""The profile: every step once, MACs of the Program, times that are times."""

import numpy as np
import pytest

from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.macs import macs
from frostbit.kernels.ir.program import BinaryConv, Conv, Dense
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.profile import CALL, profile
from tests.nets import every_op, images


def test_every_step_once_and_all_macs() -> None:
    program = every_op()
    engine = Engine(program)
    image = images(program, 1)[0]
    before = engine.run(image[None])
    steps, whole = profile(engine, image, rounds=3)
    assert tuple(step.name for step in steps) == (*engine.steps, CALL)
    ops = {op.name: op for op in program.ops}
    for step in steps:
        assert step.op == (type(ops[step.name]).__name__ if step.name in ops else "Prepare")
        assert 0 <= step.seconds < 1
    assert whole > 0
    assert sum(step.seconds for step in steps) > 0
    counted = [op for op in program.ops if isinstance(op, (BinaryConv, Conv, Dense))]
    expected = np.sum([macs(op, infer_types(program)) for op in counted], axis=0)
    found = np.sum([(step.binary_macs, step.float_macs) for step in steps], axis=0)
    assert tuple(found) == tuple(expected)
    assert np.array_equal(engine.run(image[None]), before), "profiling leaves nothing behind"


def test_macs_of_a_convolution() -> None:
    program = every_op()
    ops, types = {op.name: op for op in program.ops}, infer_types(program)
    assert macs(ops["conv0"], types) == (6 * 7 * 33 * 9 * 9, 0)
    assert macs(ops["weights_only"], types) == (0, 6 * 7 * 9 * 9 * 9)
    assert macs(ops["depth"], types) == (0, 6 * 7 * 9 * 9)
    assert macs(ops["sign"], types) == (0, 0)


def test_a_wrong_image_is_refused() -> None:
    program = every_op()
    with pytest.raises(ValueError, match="shape"):
        profile(Engine(program), np.zeros((3, 3, 2), np.uint8))
