"""The int8 ONNX form: thresholded convolutions in integers, the same bits although they saturate.

Random Programs and the toy network go through all forms in ``test_onnx.py``.
"""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.export.onnx import int8 as to_onnx_int8
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx.graph import INPUT_NAME, Options
from frostbit.export.onnx.runtime import LEVELS, OrtRuntime, session
from frostbit.export.parity import compare, expected_values
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import OP_TYPES, Program, Window
from tests.kernels.programs import Builder, random_images
from tests.nets import every_op

SAME = Window((3, 3), pads=(1, 1, 1, 1))


def kinds(program: Program) -> list[str]:
    return [node.op_type for node in to_onnx_int8.build(program).graph.node]


def test_every_op_has_a_rule() -> None:
    assert set(to_onnx_int8.RULES) == set(OP_TYPES.values())


def test_only_standard_operators() -> None:
    assert {node.domain for node in to_onnx_int8.build(every_op()).graph.node} == {""}


def test_convolutions_before_a_threshold_are_integer_and_the_others_float() -> None:
    nodes = {node.name: node.op_type for node in to_onnx_int8.build(every_op()).graph.node}
    integer = {name for name, kind in nodes.items() if kind == "QLinearConv"}
    assert integer == {"conv0/acc", "conv1/acc"}
    assert nodes["conv2/acc"] == nodes["conv3/acc"] == "Conv"


def test_bits_stay_integers_between_integer_convolutions() -> None:
    b = Builder((8, 8, 3))
    x = b.sign(b.conv("input", 16, SAME))
    for pad_value in (0, 1):
        x = b.binary_conv(x, 16, SAME, affine=False, pad_value=pad_value)
        x = b.max_pool(x, Window((2, 2), (2, 2)))
    x = b.binary_conv(x, 16, SAME, affine=False)
    program = b.finish(x)
    found = kinds(program)
    assert found.count("QLinearConv") == 3
    assert found.count("DequantizeLinear") == 1
    assert "Pad" not in found[found.index("QLinearConv") :]
    assert compare(program, [OrtRuntime(program, form="int8")], b.images(5)).passed


def test_codes_are_joined_as_codes() -> None:
    b = Builder((6, 5, 3))
    x = b.sign(b.conv("input", 7, SAME))
    y = b.binary_conv(x, 9, SAME, affine=False)
    both = b.concat(y, x, b.max_pool(y, SAME))
    program = b.finish(b.binary_conv(b.concat(both, x), 12, SAME, affine=False))
    found = kinds(program)
    assert found.count("Concat") == 2
    assert found.count("DequantizeLinear") == 1
    assert compare(program, [OrtRuntime(program, form="int8")], b.images(5)).passed


def test_a_network_without_thresholds_has_no_integer_parts() -> None:
    b = Builder((8, 8, 3))
    x = b.conv("input", 16, SAME)
    program = b.finish(b.add(x, b.binary_conv(b.sign(x), 16, SAME)))
    assert not {"QLinearConv", "DequantizeLinear"} & set(kinds(program))


@settings(deadline=None, max_examples=20)
@given(
    channels=st.sampled_from([1, 7, 64, 130, 513]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad_value=st.sampled_from([0, 1]),
    seed=st.integers(0, 99),
)
def test_every_level_counts_although_the_output_saturates(
    channels: int, kernel: tuple[int, int], pad_value: int, seed: int
) -> None:
    """Accumulators at both ends of their range, and levels at, above and below each of them."""
    b = Builder((5, 4, 2), seed)
    x = b.sign(b.conv("input", channels, Window((1, 1))))
    taps = channels * kernel[0] * kernel[1]
    rows = b.rng.choice([-1, 1], (40, *kernel, channels))
    rows[:8] = np.array([-1, 1] * 4)[:, None, None, None]
    window = Window(kernel, pads=(1, 0, 0, 1))
    name = b.binary_conv(x, 40, window, affine=False, pad_value=pad_value, words=bits.pack(rows))
    level = b.ops[-1].epilogue.level
    level[:8] = (-taps, -taps, taps, taps, taps + 1, taps + 1, 0, 1)
    program = b.finish(name)
    batch = random_images(program, 4, seed)
    signs, logits = expected_values(program, batch)
    runtime = OrtRuntime(program, form="int8")
    assert np.array_equal(runtime.logits(batch), logits)
    assert all(np.array_equal(words, signs[name]) for name, words in runtime.signs(batch).items())


@pytest.mark.parametrize("level", LEVELS)
def test_wide_layers_are_exact_at_every_level(level: str) -> None:
    b = Builder((7, 7, 3), 5)
    x = b.sign(b.conv("input", 512, Window((1, 1))))
    for pad_value in (0, 1):
        x = b.binary_conv(x, 512, SAME, affine=False, pad_value=pad_value)
    program = b.finish(x)
    report = compare(program, [OrtRuntime(program, level=level, form="int8")], b.images(3))
    assert report.passed
    assert report.comparisons[0].sign_bits_compared == 3 * 3 * 7 * 7 * 512


def test_a_wrong_level_is_noticed() -> None:
    program = every_op()
    batch = random_images(program, 4)
    model = to_onnx_int8.build(program)
    for constant in model.graph.initializer:
        if constant.name == "conv0/bias":
            values = onnx.numpy_helper.to_array(constant) + 60
            constant.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.int32), "conv0/bias"))
    answer = session(model.SerializeToString()).run(None, {INPUT_NAME: batch})[0]
    assert not np.array_equal(answer, expected_values(program, batch)[1])


def test_it_is_as_small_as_the_packed_form() -> None:
    b = Builder((8, 8, 3))
    x = b.sign(b.conv("input", 256, SAME))
    for _ in range(4):
        x = b.binary_conv(x, 256, SAME, affine=False)
    program = b.finish(x)
    assert len(to_onnx_int8.convert(program)) < len(to_onnx.convert(program))


def test_metadata_names_the_form() -> None:
    model = to_onnx_int8.build(every_op(), Options(licence="MIT"))
    found = {entry.key: entry.value for entry in model.metadata_props}
    assert (found["frostbit_form"], found["model_license"]) == ("int8", "MIT")
