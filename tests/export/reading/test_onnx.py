"""ONNX networks of signs and ``+-c`` weights: read, and equal to ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from frostbit.export.errors import SourceDiffers
from frostbit.export.foreign import compare_file, read_file
from frostbit.export.onnx.graph import Options
from frostbit.export.onnx.runtime import convert
from frostbit.export.reading.match import to_program
from frostbit.export.reading.onnx.call import NO_SIGN
from frostbit.export.reading.onnx.layers import NEARLY, SOME_ZEROS
from frostbit.export.reading.onnx.read import read_graph
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import BinaryConv, FormatError, Op, Program, Quantize, Sign
from frostbit.kernels.ir.verify import infer_types
from tests.export.reading.foreign import FOLDER
from tests.export.reading.networks import (
    assert_same,
    channels_last,
    model,
    node,
    random_images,
    read,
    run,
)
from tests.kernels.programs import programs
from tests.kernels.programs import random_images as own_images

RNG = np.random.default_rng(1)
SIGNS = {
    "where": [node("GreaterOrEqual", "h zero", "b"), node("Where", "b one minus", "s")],
    "where-less": [node("Less", "h zero", "b"), node("Where", "b minus one", "s")],
    "greater": [
        node("Greater", "h zero", "b"),
        node("Cast", "b", "f", to=1),
        node("Mul", "f two", "d"),
        node("Sub", "d one", "s"),
    ],
    "mirrored": [node("LessOrEqual", "zero h", "b"), node("Where", "b one minus", "s")],
    "not": [
        node("Less", "h zero", "b"),
        node("Not", "b", "n"),
        node("Where", "n one minus", "s"),
    ],
    "larq": [node("Sign", "h", "t"), node("Add", "t tenth", "u"), node("Sign", "u", "s")],
    "equal": [
        node("Equal", "h zero", "e"),
        node("Sign", "h", "t"),
        node("Where", "e one t", "s"),
    ],
    "threshold": [node("GreaterOrEqual", "h tenth", "b"), node("Where", "b one minus", "s")],
    "scaled": [node("GreaterOrEqual", "h zero", "b"), node("Where", "b third less", "s")],
    "straight": [
        node("Sign", "h", "t"),
        node("Clip", "h minus one", "c"),
        node("Sub", "t c", "d"),
        node("Add", "d c", "s"),
    ],
}
NUMBERS = {
    "zero": 0.0,
    "one": 1.0,
    "minus": -1.0,
    "two": 2.0,
    "tenth": 0.1,
    "third": 1 / 3,
    "less": -1 / 3,
}


def signs_and_weights(*shape: int) -> np.ndarray:
    """Weights of ``+-c``, one c for each output."""
    size = RNG.uniform(0.1, 1.0, (shape[0], *(1,) * (len(shape) - 1)))
    return (size * RNG.choice([-1.0, 1.0], shape)).astype(np.float32)


def network(signs: list[onnx.NodeProto]) -> onnx.ModelProto:
    arrays = {
        **NUMBERS,
        "stem": RNG.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "weights": signs_and_weights(7, 8, 3, 3),
        "head": RNG.normal(size=(7, 5)).astype(np.float32),
    }
    nodes = [
        node("Conv", "x stem", "h", pads=[1, 1, 1, 1], strides=[2, 2]),
        *signs,
        node("Conv", "s weights", "c2", pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", "c2", "g"),
        node("Flatten", "g", "flat"),
        node("MatMul", "flat head", "y"),
    ]
    return model(nodes, arrays, (1, 3, 9, 8))


def test_brevitas_file() -> None:
    path = FOLDER / "fc_tiny_1w1a.qonnx.onnx"
    found = read_graph(path.read_bytes(), path.parent)
    imported = to_program(found.graph)
    with np.load(path.with_suffix(".npz")) as known:
        got = reference.run(imported.program, channels_last(known["input"]))
        assert np.abs(got - known["output"]).max() < 1e-5
    layers = [op for op in imported.program.ops if isinstance(op, BinaryConv)]
    assert len(layers) == len(imported.restored) == 4
    assert found.graph.kind == "QONNX"


@pytest.mark.parametrize("form", SIGNS)
def test_forms_of_a_sign(form: str) -> None:
    found = assert_same(network(SIGNS[form]))
    kinds = [type(op) for op in found.program.ops]
    assert kinds.count(Sign) == kinds.count(BinaryConv) == len(found.restored) == 1


def test_zero_in_each_form_is_as_in_the_source() -> None:
    """Black images: every sum is 0."""
    for form, signs in SIGNS.items():
        proto = network(signs)
        images = np.zeros_like(random_images(proto, 1))
        wanted = run(proto, images)
        got = reference.run(read(proto).program, channels_last(images))
        notes = read_graph(proto.SerializeToString()).graph.notes
        if form == "straight":
            assert any(NO_SIGN in note for note in notes)
        else:
            assert not notes
            assert np.abs(got - wanted).max() < 1e-5 * np.ptp(wanted)


def test_brevitas_file_equals_the_qonnx_package_layer_by_layer() -> None:
    path = FOLDER / "fc_tiny_1w1a.qonnx.onnx"
    imported = read_file(path)
    found = compare_file(path, imported, np.random.default_rng(0).random((2, 28, 28, 1), "f"))
    assert found.runtime == "qonnx"
    assert found.sign_bits == 2 * (784 + 3 * 64)
    assert found.flips == 0
    assert found.answers < 1e-6


def test_a_wrong_weight_is_found_by_layer(tmp_path: Path) -> None:
    proto = network(SIGNS["scaled"])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    imported = read_file(path)
    images = channels_last(random_images(proto))
    found = compare_file(path, imported, images)
    assert found.sign_bits == 3 * 8 * 5 * 4
    changed = next(array for array in proto.graph.initializer if array.name == "stem")
    changed.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(changed), "stem"))
    onnx.save(proto, path)
    with pytest.raises(SourceDiffers, match="'h'"):
        compare_file(path, imported, images)


def test_a_sign_that_is_zero_in_the_source_is_not_called_one(tmp_path: Path) -> None:
    proto = network(SIGNS["straight"])
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    imported = read_file(path)
    images = channels_last(random_images(proto))
    assert compare_file(path, imported, images).sign_bits == 3 * 8 * 5 * 4
    with pytest.raises(SourceDiffers, match=r"'s' is the sign of 0 in \d+ places"):
        compare_file(path, imported, np.zeros_like(images))


def test_a_file_for_several_images_at_once(tmp_path: Path) -> None:
    proto = network(SIGNS["where"])
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 3
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    images = channels_last(random_images(proto, 2))
    assert compare_file(path, read_file(path), images).whole == 2


def test_the_sign_of_a_relu_is_zero_or_one() -> None:
    found = assert_same(network([node("Relu", "h", "r"), node("Sign", "r", "s")]))
    assert not found.notes


def test_what_stands_around_a_sign_is_no_more_than_arithmetic() -> None:
    """It is not read, but the file's own runtime computes it."""
    size = node("Constant", "", "size", value_ints=[1 << 20, 1, 1, 1])
    nodes = [
        node("Sign", "h", "t"),
        size,
        node("Expand", "h size", "x2"),
        node("Sub", "t x2", "d"),
        node("Add", "d x2", "s"),
    ]
    with pytest.raises(FormatError, match=r"'size': this operator around a sign is not read"):
        read(network(nodes))
    nodes[1:3] = [node("Mul", "h stem", "x2")]
    with pytest.raises(FormatError, match=r"Mul 'x2': this operator around a sign is not read"):
        read(network(nodes))


@settings(deadline=None, max_examples=20)
@given(
    st.one_of(programs(), programs(foreign=True)),
    st.sampled_from(["packed", "pixels", "float", "qonnx"]),
)
def test_our_own_files_give_the_same_program(program: Program, form: str) -> None:
    """Floats in, as imported networks take them, or pixels, as numbers or as bytes."""
    assume(not any(isinstance(op, Quantize) for op in program.ops))  # written with a Round
    has_pixels = program.input_kind == "u8"
    is_bytes = has_pixels and form == "pixels"
    form = "packed" if form == "pixels" else form
    data = convert(program, form, Options(float_input=has_pixels and not is_bytes))
    found = to_program(read_graph(data).graph)
    images = own_images(program, 2)
    wanted = reference.run(program, images)
    assert found.program.input_kind == ("u8" if is_bytes else "f32")
    got = reference.run(found.program, images if is_bytes else images.astype(np.float32))
    assert np.abs(got - wanted).max() <= 1e-4 * max(float(np.ptp(wanted)), 1e-3)
    layers = [op for op in program.ops if isinstance(op, BinaryConv)]
    restored = [op for op in found.program.ops if isinstance(op, BinaryConv)]
    of_signs = {op.name for op in program.ops if infer_types(program)[op.name].kind == "bits"}
    assert len(restored) >= sum(op.inputs[0] in of_signs for op in layers if is_read(program, op))


def is_read(program: Program, op: Op) -> bool:
    """Whether the answer depends on an op."""
    wanted = {program.ops[-1].name}
    for each in reversed(program.ops):
        if each.name in wanted:
            wanted.update(each.inputs)
    return op.name in wanted


def test_signs_as_the_answer_are_compared(tmp_path: Path) -> None:
    nodes = [
        node("Flatten", "x", "f"),
        node("MatMul", "f w", "m"),
        node("BipolarQuant", "m one", "y"),
    ]
    arrays = {"w": RNG.normal(size=(12, 5)).astype(np.float32), "one": 1.0}
    path = tmp_path / "model.onnx"
    onnx.save(model(nodes, arrays, (1, 3, 2, 2)), path)
    found = compare_file(path, read_file(path))
    assert (found.sign_bits, found.whole, found.answers) == (10, 2, 0.0)


def test_a_weight_of_zero_is_said() -> None:
    proto = network(SIGNS["where"])
    stored = next(array for array in proto.graph.initializer if array.name == "weights")
    weights = numpy_helper.to_array(stored).copy()
    weights[3, 2, 1, 1] = 0.0
    stored.CopyFrom(numpy_helper.from_array(weights, "weights"))
    found = assert_same(proto)
    assert not found.restored
    assert found.notes == (f"{SOME_ZEROS}: 'c2'",)


def test_weights_that_are_even_but_for_rounding() -> None:
    proto = network(SIGNS["where"])
    stored = next(array for array in proto.graph.initializer if array.name == "weights")
    weights = numpy_helper.to_array(stored)
    other = RNG.normal(size=weights.shape).astype(np.float32)
    stored.CopyFrom(numpy_helper.from_array((weights - other) + other, "weights"))
    found = assert_same(proto)
    assert len(found.restored) == 1
    assert found.notes == (f"{NEARLY}: 'c2'",)
