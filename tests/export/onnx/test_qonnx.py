"""QONNX export: executed by the ``qonnx`` package, every value equal to the reference."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_datatypes import InferDataTypes
from qonnx.transformation.infer_shapes import InferShapes
from qonnx.util.cleanup import cleanup_model

from frostbit.export.onnx import qonnx as to_qonnx
from frostbit.export.onnx.graph import INPUT_NAME, OUTPUT_NAME, Options, relabelled
from frostbit.export.onnx.runtime import LEVELS, QONNX, OrtRuntime
from frostbit.export.parity import compare
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import OP_TYPES, BinaryConv, Program
from tests.kernels.programs import exact_programs, random_images
from tests.nets import every_op


@pytest.fixture(scope="module")
def program() -> Program:
    return every_op()


def wrapped(program: Program) -> ModelWrapper:
    return ModelWrapper(onnx.load_from_string(to_qonnx.convert(program)))


def planar(images: np.ndarray) -> np.ndarray:
    """uint8 NHWC -> float32 NCHW."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)


def assert_all_values_equal(program: Program, image: np.ndarray) -> None:
    """Run one image and compare every value of the Program, signs and numbers."""
    context = execute_onnx(wrapped(program), {INPUT_NAME: planar(image)}, True)
    expected = reference.trace(program, image)
    for op, labelled in zip(program.ops, relabelled(program).ops, strict=True):
        got = context[labelled.name].transpose(0, 2, 3, 1)
        assert np.array_equal(got, expected[op.name]), op.name
    assert np.array_equal(context[OUTPUT_NAME], expected[program.ops[-1].name][:, 0, 0])


def test_every_op_has_a_rule() -> None:
    assert set(to_qonnx.RULES) == set(OP_TYPES.values())


def test_every_value_of_the_toy_network_is_equal(program: Program) -> None:
    for image in random_images(program, 5):
        assert_all_values_equal(program, image[None])


@settings(deadline=None, max_examples=30)
@given(exact_programs())
def test_every_value_of_random_programs_is_equal(program: Program) -> None:
    assert_all_values_equal(program, random_images(program, 1))


def test_every_weight_and_every_sign_passes_one_bipolar_node(program: Program) -> None:
    nodes = [n for n in to_qonnx.build(program).graph.node if n.op_type == "BipolarQuant"]
    assert {node.domain for node in nodes} == {to_qonnx.DOMAIN}
    weights = {f"{op.name}/weights" for op in program.ops if isinstance(op, BinaryConv)}
    assert {node.output[0] for node in nodes} == weights | {"sign", "conv0", "conv1", "sign2"}


def test_a_sum_of_zero_is_plus_one(program: Program) -> None:
    """Black images and no addend: the stem gives exactly 0."""
    image = np.zeros((1, *program.input_shape), np.uint8)
    stem = program.ops[0]
    stem.add[:] = 0
    stem.pad_value[:] = 0
    context = execute_onnx(wrapped(program), {INPUT_NAME: planar(image)}, True)
    assert not context["stem"].any()
    assert (context["sign"] == 1).all()


def test_the_package_s_own_passes_accept_it(program: Program) -> None:
    image = random_images(program, 1)
    cleaned = cleanup_model(wrapped(program).transform(InferShapes()))
    answer = execute_onnx(cleaned, {cleaned.graph.input[0].name: planar(image)})
    expected = reference.run(program, image)
    assert np.array_equal(answer[cleaned.graph.output[0].name], expected)


def test_signs_are_known_to_be_bipolar_and_pixels_to_be_bytes(program: Program) -> None:
    typed = wrapped(program).transform(InferDataTypes())
    assert str(typed.get_tensor_datatype("sign").name) == "BIPOLAR"
    assert str(typed.get_tensor_datatype("conv0/weights").name) == "BIPOLAR"
    assert str(typed.get_tensor_datatype(INPUT_NAME).name) == "UINT8"


def test_the_batch_is_one_and_every_shape_is_known(program: Program) -> None:
    model = wrapped(program)
    assert model.get_tensor_shape(INPUT_NAME) == [1, 2, 6, 7]
    assert model.get_tensor_shape(OUTPUT_NAME) == [1, 5]
    assert model.check_all_tensor_shapes_specified()


def test_metadata_names_the_form(program: Program) -> None:
    found = {p.key: p.value for p in to_qonnx.build(program, Options(licence="MIT")).metadata_props}
    assert (found["frostbit_form"], found["model_license"]) == ("qonnx", "MIT")


@pytest.mark.parametrize("level", LEVELS)
def test_onnx_runtime_with_the_function_agrees_with_the_package(level: str) -> None:
    """At a sum of exactly 0 as well."""
    program = every_op()
    program.ops[0].add[:] = 0
    program.ops[0].pad_value[:] = 0
    images = random_images(program, 3)
    images[0] = 0
    runtime = OrtRuntime(program, to_qonnx.convert(program), level, form=QONNX)
    report = compare(program, [runtime], images)
    assert report.passed
    assert report.comparisons[0].sign_bits_compared > 1000
    for image in images:
        context = execute_onnx(wrapped(program), {INPUT_NAME: planar(image[None])}, True)
        assert np.array_equal(runtime.logits(image[None]), context[OUTPUT_NAME])
        signs = bits.pack(context["sign"].transpose(0, 2, 3, 1))
        assert np.array_equal(runtime.signs(image[None])["sign"], signs)
