"""Summaries of plain ONNX and TFLite files, and of damaged and hostile ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import flatbuffers
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from frostbit.export.errors import ExportError
from frostbit.export.lce import tflite_writer
from frostbit.export.lce.convert import convert as to_tflite
from frostbit.export.lce.summary import summarise_tflite
from frostbit.export.lce.tflite_writer import ABSENT, GraphWriter, Operator, Tensor
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx.summary import summarise_onnx
from frostbit.export.summary import Summary
from tests.export.summary_nets import mixed_net


def onnx_file(
    nodes: list[onnx.NodeProto], x: list[Any], arrays: dict[str, np.ndarray], rank: int = 4
) -> onnx.ModelProto:
    """A model ``x -> y`` of ``nodes``."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, x)],
        [helper.make_tensor_value_info("y", 1, [None] * rank)],
        [numpy_helper.from_array(value, name) for name, value in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)


def of_onnx(*arguments: Any) -> Summary:
    return summarise_onnx(onnx_file(*arguments).SerializeToString())


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


def test_plain_onnx_counts() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["a"], group=2, pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", *"bbbb"], ["n"]),
        helper.make_node("ConvTranspose", ["n", "t"], ["u"], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["u"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "m"], ["y"]),
    ]
    arrays = {"w": zeros(8, 3, 3, 3), "b": zeros(8), "t": zeros(8, 5, 2, 2), "m": zeros(5, 4)}
    found = of_onnx(nodes, ["N", 6, 10, 12], arrays, 2)
    rows = {layer.name: layer for layer in found.layers}
    assert rows["a"].macs == {32: 10 * 12 * 8 * 27}
    assert rows["u"].macs == {32: 10 * 12 * 8 * 5 * 4}
    assert rows["u"].output == (5, 20, 24)
    assert rows["y"].macs == {32: 20}
    assert found.parameters == {32: 216 + 8 + 160 + 20}  # b once, though five inputs read it
    assert found.parameter_bytes == 4 * found.parameters[32]
    assert found.binary_share == 0


def test_quantized_onnx_has_8_bits() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["v"]),
        helper.make_node("Conv", ["d", "v"], ["y"]),
    ]
    arrays = {"s": np.float32(0.1), "z": np.uint8(3), "w": zeros(4, 2, 3, 3, dtype=np.int8)}
    found = of_onnx(nodes, [1, 2, 5, 5], arrays)
    assert found.parameters == {8: 72}
    assert found.parameter_bytes == 72
    assert found.macs == {8: 9 * 72}
    assert [layer.name for layer in found.layers] == ["q", "d", "y"]


def test_notes_on_what_is_not_counted() -> None:
    lstm = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)
    found = of_onnx([lstm], [4, "N", 2], {"w": zeros(1, 12, 2), "r": zeros(1, 12, 3)})
    assert found.notes == (
        "MACs are for a batch of 4, as the file says",
        "MACs inside these operators are not counted: LSTM",
    )
    conv = helper.make_node("Conv", ["x", "w"], ["y"], name="first")
    found = of_onnx([conv], ["N", 3, "height", 8], {"w": zeros(4, 3, 3, 3)})
    assert found.layers[0].output is None
    assert found.parameters == {32: 108}
    assert found.binary_share is None
    assert "'first'" in found.notes[0]


def test_constants_in_nodes_and_arrays_kept_elsewhere() -> None:
    value = numpy_helper.from_array(zeros(4, 3, 1, 1))
    nodes = [
        helper.make_node("Constant", [], ["k"], value=value),
        helper.make_node("Conv", ["x", "k"], ["a"]),
        helper.make_node("Conv", ["a", "w"], ["y"]),
    ]
    model = onnx_file(nodes, ["N", 3, 4, 4], {"w": zeros(2, 4, 1, 1)})
    outside = model.graph.initializer[0]
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="not_here.bin")
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", 1, [2, 4, 1, 1]))
    found = summarise_onnx(model.SerializeToString())
    assert found.parameters == {32: 12 + 8}
    assert found.macs == {32: 16 * 12 + 16 * 8}


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (lambda m: m.graph.initializer[0].dims.append(2), "'w' does not fit"),
        (lambda m: m.graph.node.add(op_type="Relu", input=["lost"], output=["z"]), "well-formed"),
        (lambda m: m.graph.ClearField("node"), "holds no graph"),
        (lambda m: m.ClearField("opset_import"), "well-formed"),
    ],
)
def test_damaged_onnx_is_refused(spoil: Callable[[Any], Any], text: str) -> None:
    model = onnx_file(
        [helper.make_node("Conv", ["x", "w"], ["y"])], [1, 3, 4, 4], {"w": zeros(4, 3, 1, 1)}
    )
    spoil(model)
    with pytest.raises(ExportError, match=text) as caught:
        summarise_onnx(model.SerializeToString())
    assert "\n" not in str(caught.value)


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch) -> GraphWriter:
    """A writer that also knows a few operators and types our exporter does not use."""
    for name, code, union in (("DEPTHWISE_CONV_2D", 4, 2), ("DEQUANTIZE", 6, 38), ("LSTM", 16, 14)):
        monkeypatch.setitem(tflite_writer.BUILTIN_OPERATORS, name, code)
        monkeypatch.setitem(tflite_writer.OPTIONS, name, (union, {}))
    types: Any = tflite_writer.TENSOR_TYPES
    monkeypatch.setitem(types, np.dtype(np.int8), 9)
    monkeypatch.setitem(types, np.dtype(np.float16), 1)
    return GraphWriter()


def test_plain_tflite_counts(writer: GraphWriter) -> None:
    x = writer.tensor("x", (1, 8, 6, 4), np.int8)
    full = writer.constant("full", np.ones((5, 3, 3, 4), np.int8))
    bias = writer.constant("bias", np.ones(5, np.int32))
    a = writer.tensor("a", (1, 6, 4, 5), np.int8)
    writer.operator("CONV_2D", [x, full, bias], [a])
    half = writer.constant("half", np.ones((1, 3, 3, 5), np.float16))
    wide = writer.tensor("wide", (1, 3, 3, 5), np.float32)
    writer.operator("DEQUANTIZE", [half], [wide])
    b = writer.tensor("b", (1, 4, 2, 5), np.float32)
    writer.operator("DEPTHWISE_CONV_2D", [a, wide, ABSENT], [b])
    shape = writer.constant("shape", np.array([1, 40], np.int32))
    c, d = writer.tensor("c", (1, 40), np.float32), writer.tensor("d", (1, 2), np.float32)
    writer.operator("RESHAPE", [b, shape], [c])
    writer.operator("FULLY_CONNECTED", [c, writer.constant("m", np.ones((2, 40), np.float32))], [d])
    found = summarise_tflite(writer.finish([x], [d], "plain"))
    rows = {layer.name: layer for layer in found.layers}
    assert list(rows) == ["a", "b", "c", "d"]
    assert rows["a"].macs == {8: 6 * 4 * 5 * 36}
    assert rows["a"].parameters == {8: 180, 32: 5}
    assert rows["b"].macs == {16: 4 * 2 * 5 * 9}
    assert rows["b"].parameters == {16: 45}
    assert rows["d"].macs == {32: 80}
    assert found.parameter_bytes == 180 + 20 + 90 + 320
    assert found.notes == ()


def test_tflite_notes(writer: GraphWriter) -> None:
    x, y = writer.tensor("x", (3, 2), np.float32), writer.tensor("y", (3, 2), np.float32)
    writer.operator("LSTM", [x], [y])
    writer.operator("Strange", [y], [x])
    found = summarise_tflite(writer.finish([x], [y], "strange"))
    assert found.notes == (
        "MACs inside these operators are not counted: LSTM, Strange",
        "MACs are for a batch of 3, as the file says",
    )


def test_tflite_that_contradicts_itself_is_refused() -> None:
    writer = GraphWriter()
    x = writer.tensor("x", (1, 3, 3, 2), np.int32)
    w = writer.constant("w", np.zeros((4, 1, 1, 2), np.int32))
    y = writer.tensor("y", (1, 3, 3, 4), np.float32)
    writer.operator("LceBconv2d", [x, w, ABSENT, ABSENT, ABSENT], [y], {"channels_in": 200})
    with pytest.raises(ExportError, match="2 words as 200 channels"):
        summarise_tflite(writer.finish([x], [y], "wrong"))


def survives(read: Callable[[bytes], Summary], data: bytes) -> None:
    """Reading gives a summary or one clear line."""
    try:
        found = read(data)
    except ExportError as error:
        assert "\n" not in str(error)  # noqa: PT017
    else:
        assert found.file_bytes == len(data)


FILES = {
    "tflite": (summarise_tflite, to_tflite(mixed_net())),
    # entries are followed in a process of its own only: see test_bounded
    "onnx": (partial(summarise_onnx, follow=False), to_onnx.convert(mixed_net())),
}
SPOILS = st.sampled_from([b"\xff", b"\x00", b"\x80", b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f"])


@pytest.mark.parametrize("kind", FILES)
@settings(deadline=None, max_examples=500)
@given(data=st.data())
def test_a_hostile_file_never_crashes(kind: str, data: st.DataObject) -> None:
    read, good = FILES[kind]
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        place, spoil = data.draw(st.integers(0, len(good) - 1)), data.draw(SPOILS)
        bad[place : place + len(spoil)] = spoil
    survives(read, bytes(bad))


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_never_crashes(kind: str) -> None:
    read, good = FILES[kind]
    for end in range(0, len(good), 101):
        with pytest.raises(ExportError):
            read(good[:end])


@pytest.mark.parametrize(("kind", "words"), [(TensorProto.UINT8, "does not fit"), (0, "no known")])
def test_an_array_that_claims_to_be_long_takes_no_memory(kind: int, words: str) -> None:
    """Found by the mutations above: shape inference made an object for each of its entries."""
    model = onnx.load_from_string(FILES["onnx"][1])
    bits = next(each for each in model.graph.initializer if each.name.endswith("weights_bits"))
    bits.data_type = kind
    bits.dims[:] = [805_306_367]
    with pytest.raises(ExportError, match=words):
        summarise_onnx(model.SerializeToString())


def test_a_long_row_is_summarised_without_counting_its_entries() -> None:
    x = helper.make_tensor_value_info("x", TensorProto.INT64, [1 << 31])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1 << 31])
    graph = helper.make_graph([helper.make_node("Cast", ["x"], ["y"], to=1)], "g", [x], [y])
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    (layer,) = summarise_onnx(model.SerializeToString(), follow=False).layers
    assert layer.op == "Cast"


def test_a_small_tflite_file_that_repeats_itself_is_refused() -> None:
    """65,536 operators and tensors, each list an offset to the same entry."""
    builder = flatbuffers.Builder()
    count = 1 << 16

    def repeated(entry: int) -> int:
        return tflite_writer._offsets(builder, [entry] * count)

    empty = tflite_writer._offsets(builder, [tflite_writer._buffer(builder, b"")])
    code = tflite_writer._offsets(builder, [tflite_writer._operator_code(builder, "ADD")])
    tensor = Tensor((1,) * 16, np.dtype(np.float32), 0, "n" * 256)
    many = tuple(range(256))
    tensors = repeated(tflite_writer._tensor(builder, tensor))
    operators = repeated(tflite_writer._operator(builder, Operator(0, "ADD", many, many, {})))
    graph = tflite_writer._table(
        builder, 5,
        *(tflite_writer._offset(slot, at) for slot, at in ((0, tensors), (3, operators))),
    )  # fmt: skip
    graphs = tflite_writer._offsets(builder, [graph])
    slots = ((1, code), (2, graphs), (4, empty))
    model = tflite_writer._table(
        builder, 8, *(tflite_writer._offset(slot, at) for slot, at in slots)
    )
    builder.Finish(model, tflite_writer.FILE_IDENTIFIER)
    data = bytes(builder.Output())
    assert len(data) < 600_000
    with pytest.raises(ExportError, match="more than 524,288 tensors"):
        summarise_tflite(data)
