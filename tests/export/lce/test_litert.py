"""The .tflite file as the TFLite world sees it: Google's own schema, verifier and interpreter.

LiteRT knows nothing of LCE's operators. It verifies the flatbuffer, reads every table with code
generated from the official schema, and stops at the first custom operator; networks that need
none (binary weights only) it runs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.export.errors import ExportError
from frostbit.export.lce import convert as to_lce
from frostbit.export.lce.summary import summarise_tflite
from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import INPUT, Program, Window
from tests.kernels.programs import Builder, programs, random_images
from tests.nets import every_op

SAME = Window((3, 3), pads=(1, 1, 1, 1))
SIZES = {
    schema.TensorType.FLOAT32: 4,
    schema.TensorType.INT32: 4,
    schema.TensorType.UINT8: 1,
    schema.TensorType.INT8: 1,
}
LCE = {b"LceQuantize", b"LceDequantize", b"LceBconv2d", b"LceBMaxPool2d"}
NAMES = {code: name for name, code in vars(schema.BuiltinOperator).items() if name.isupper()}


def parsed(data: bytes) -> schema.ModelT:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def check_form(data: bytes, program: Program) -> None:
    """Everything that the official schema lets one say about a well-formed file."""
    assert schema.Model.ModelBufferHasIdentifier(data, 0)
    model = parsed(data)
    (graph,) = model.subgraphs
    assert model.version == 3
    assert model.buffers[0].data is None
    for code in model.operatorCodes:
        custom = code.builtinCode == schema.BuiltinOperator.CUSTOM
        assert code.version == 1
        assert (code.customCode in LCE) == custom
        assert code.deprecatedBuiltinCode == code.builtinCode
    known = set(graph.inputs)
    for index, tensor in enumerate(graph.tensors):
        stored = model.buffers[tensor.buffer].data
        if stored is not None:
            assert len(stored) == SIZES[tensor.type] * np.prod(tensor.shape, dtype=int)
            known.add(index)
    names = [tensor.name for tensor in graph.tensors]
    assert len(set(names)) == len(names)
    for operator in graph.operators:
        assert {each for each in operator.inputs if each != -1} <= known
        assert not set(operator.outputs) & known
        known.update(operator.outputs)
    assert set(graph.outputs) <= known
    (first,), (last,) = graph.inputs, graph.outputs
    assert list(graph.tensors[first].shape) == [1, *program.input_shape]
    assert list(graph.tensors[last].shape) == [1, len(program.classes)]


def interpreted(data: bytes) -> None:
    """LiteRT takes the file up to LCE's own operators; its verifier has then passed."""
    interpreter = Interpreter(model_content=data)
    with pytest.raises(RuntimeError, match="unresolved custom op: Lce"):
        interpreter.allocate_tensors()


@pytest.mark.parametrize("name", ["resnet18@32", "mobilenet_v2@32"])
def test_standard_networks_are_well_formed(name: str) -> None:
    program = synthetic(name)
    data = to_lce.convert(program)
    check_form(data, program)
    interpreted(data)


def test_every_op_is_well_formed() -> None:
    check_form(to_lce.convert(every_op()), every_op())
    interpreted(to_lce.convert(every_op()))


@settings(deadline=None, max_examples=40)
@given(programs())
def test_random_programs_are_well_formed(program: Program) -> None:
    try:
        data = to_lce.convert(program)
    except ExportError as error:
        assert re.search(r"^op '.*dilation", str(error))  # noqa: PT017
        return
    check_form(data, program)


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 10**6))
def test_a_cut_file_is_refused_by_the_verifier(cut: int) -> None:
    """So that passing means something."""
    data = to_lce.convert(every_op())
    with pytest.raises(ValueError, match="not a valid Flatbuffer"):
        Interpreter(model_content=data[: cut % len(data)])


def real(b: Builder) -> Program:
    """Binary weights on real values, with every other op that such a network has."""
    x = b.conv(INPUT, 12, SAME)
    x = b.clip(b.max_pool(x, Window((3, 3), (2, 2), (1, 1, 1, 1))))
    y = b.binary_conv(x, 12, SAME, pad_value=0)
    x = b.clip(b.add(y, x))
    x = b.avg_pool(b.repeat(x, 2), Window((2, 2), (2, 2)))
    x = b.binary_conv(x, 20, Window((3, 3), (2, 2), (1, 1, 1, 1)), pad_value=0)
    return b.finish(x)


@pytest.mark.parametrize("seed", range(3))
def test_binary_weights_run_in_plain_tflite(seed: int) -> None:
    """No custom operator: an ordinary phone runs them; real sums agree closely."""
    program = real(Builder((9, 8, 3), seed))
    data = to_lce.convert(program)
    check_form(data, program)
    assert {NAMES[code.builtinCode] for code in parsed(data).operatorCodes} >= {"CONV_2D", "ADD"}
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    images = random_images(program, 4, seed)
    expected = reference.run(program, images)
    for image, logits in zip(images, expected, strict=True):
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.float32(image[None]))
        interpreter.invoke()
        got = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0]
        np.testing.assert_allclose(got, logits, rtol=0, atol=1e-4 * np.abs(logits).max())
    assert np.unique(expected).size > 10


def unlabelled(change: Callable[[schema.ModelT], None]) -> bytes:
    """The toy network's file after ``change``, packed again by the official code."""
    import flatbuffers

    model = parsed(to_lce.convert(every_op()))
    change(model)
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def test_packing_it_again_changes_nothing_that_counts() -> None:
    """Tables written by the official code say the same as ours."""
    again = unlabelled(lambda model: None)
    check_form(again, every_op())
    ours = summarise_tflite(to_lce.convert(every_op()))
    assert dataclasses.replace(summarise_tflite(again), file_bytes=ours.file_bytes) == ours


def test_a_tensor_of_the_wrong_size_is_noticed() -> None:
    def shorten(model: schema.ModelT) -> None:
        stored = next(b for b in model.buffers if b.data is not None and len(b.data) > 8)
        stored.data = stored.data[:-4]

    with pytest.raises(AssertionError):
        check_form(unlabelled(shorten), every_op())


def operators(data: bytes) -> list[tuple[str, int]]:
    """Name of every operator, and the type of its output."""
    model = parsed(data)
    (graph,) = model.subgraphs
    names = [(c.customCode or b"").decode() or NAMES[c.builtinCode] for c in model.operatorCodes]
    return [(names[op.opcodeIndex], graph.tensors[op.outputs[0]].type) for op in graph.operators]


def test_bits_stay_packed_between_thresholds() -> None:
    """+1 or no padding: bits out of one convolution go into the next, pools work on words."""
    b = Builder((8, 8, 3))
    x = b.sign(b.conv(INPUT, 33, Window((1, 1))))
    x = b.binary_conv(x, 40, SAME, affine=False, pad_value=1)
    x = b.max_pool(x, Window((2, 2), (2, 2)))
    x = b.binary_conv(x, 70, Window((3, 3)), affine=False, pad_value=0)
    x = b.binary_conv(x, 64, Window((3, 3), (2, 2), (1, 1, 1, 1)), affine=False, pad_value=1)
    int32, real = schema.TensorType.INT32, schema.TensorType.FLOAT32
    assert operators(to_lce.convert(b.finish(x))) == [
        ("DEQUANTIZE", real),
        ("CONV_2D", real),
        ("LceQuantize", int32),
        ("LceBconv2d", int32),
        ("LceBMaxPool2d", int32),
        ("LceBconv2d", int32),
        ("PAD", int32),  # PyTorch's stride 2 on an even size: still words
        ("LceBconv2d", int32),
        ("LceDequantize", real),
        ("SUM", real),
        ("DEQUANTIZE", real),
        ("FULLY_CONNECTED", real),
        ("RESHAPE", real),
        ("RESHAPE", real),
    ]
