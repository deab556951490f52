"""Summaries of files that other people's tools wrote; their QONNX operators in every form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from frostbit.export.bounded import summarise_file
from frostbit.export.onnx.quantizers import DOMAINS, is_quantizer
from frostbit.export.onnx.summary import summarise_onnx
from frostbit.export.summary import Summary
from tests import ROOT

FOREIGN = ROOT / "tests" / "data" / "foreign"
LAYERS = {"Gemm_0": 64 * 784, "Gemm_1": 64 * 64, "Gemm_2": 64 * 64, "Gemm_3": 10 * 64}


def brevitas() -> onnx.ModelProto:
    return onnx.load(FOREIGN / "fc_tiny_1w1a.qonnx.onnx")


def weights(summary: Summary, bits: int) -> dict[str, int]:
    """Layers with parameters of ``bits``, and how many."""
    return {
        layer.name: layer.parameters[bits] for layer in summary.layers if bits in layer.parameters
    }


def test_brevitas_binary_network() -> None:
    found = summarise_file("onnx", FOREIGN / "fc_tiny_1w1a.qonnx.onnx")
    assert weights(found, 1) == LAYERS
    assert found.macs == {1: sum(LAYERS.values())}
    assert (
        found.parameters[32] == 3 * 4 * 64 + 4 + 2
    )  # BatchNormalization, scales of weights, a last scale and shift
    assert found.notes == ()


def test_shapes_pass_through_quantizers() -> None:
    """A file straight from the exporter states no shapes."""
    model = brevitas()
    cleaned = summarise_onnx(model.SerializeToString())
    del model.graph.value_info[:]
    bare = summarise_onnx(model.SerializeToString())
    assert bare.layers == cleaned.layers


def quantized(model: onnx.ModelProto, kind: str, bits: list[float]) -> onnx.ModelProto:
    """``model`` with another quantizer of its weights."""
    arrays = {array.name for array in model.graph.initializer}
    names = [f"bits{i}" for i in range(len(bits))]
    for name, value in zip(names, bits, strict=True):
        model.graph.initializer.append(numpy_helper.from_array(np.float32(value), name))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0), "zero"))
    for node in model.graph.node:
        if is_quantizer(node) and node.input[0] in arrays:
            between = [] if kind == "FloatQuant" else ["zero"]
            node.input[:] = [node.input[0], node.input[1], *between, *names]
            node.op_type = kind
    return model


@pytest.mark.parametrize("domain", sorted(DOMAINS))
@pytest.mark.parametrize(
    ("kind", "widths", "bits"),
    [
        ("Quant", [1], 1), ("Quant", [4], 4), ("Quant", [2.5], 3), ("IntQuant", [8], 8),
        ("FloatQuant", [4, 3], 8), ("Trunc", [6, 5], 5),
    ],
)  # fmt: skip
def test_the_bits_of_quantized_weights(
    kind: str, widths: list[float], bits: int, domain: str
) -> None:
    model = quantized(brevitas(), kind, widths)
    for node in model.graph.node:
        node.domain = domain if node.domain else ""
    model.opset_import[1].domain = domain
    found = summarise_onnx(model.SerializeToString())
    own = {name: count for name, count in weights(found, bits).items() if name in LAYERS}
    assert own == LAYERS
    assert found.macs == {bits: sum(LAYERS.values())}
    assert found.parameter_bytes >= 4 * sum(LAYERS.values())  # floats in the file


@pytest.mark.parametrize("widths", [[], [0], [-1], [1e9], [float("nan")]])
def test_bits_that_say_nothing_leave_floats(widths: list[float]) -> None:
    found = summarise_onnx(quantized(brevitas(), "Quant", widths).SerializeToString())
    assert found.macs == {32: sum(LAYERS.values())}
    assert 1 not in found.parameters


def test_scales_are_parameters_of_their_own() -> None:
    model = brevitas()
    del model.graph.value_info[:]
    scale = numpy_helper.from_array(np.ones((64, 1), np.float32), "BipolarQuant_0_param1")
    scales = [i for i, a in enumerate(model.graph.initializer) if a.name == scale.name]
    model.graph.initializer[scales[0]].CopyFrom(scale)
    layer = next(x for x in summarise_onnx(model.SerializeToString()).layers if x.name == "Gemm_0")
    assert layer.parameters == {1: LAYERS["Gemm_0"], 32: 64}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 32), st.sampled_from([lambda w: w, np.transpose]))
def test_weights_stay_quantized_when_they_are_moved(
    bits: int, move: Callable[[np.ndarray], np.ndarray]
) -> None:
    array = np.zeros((5, 7), np.float32)
    inputs = [("w", move(array)), ("s", np.float32(1)), ("z", np.float32(0))]
    arrays = [numpy_helper.from_array(np.asarray(a), name) for name, a in inputs]
    arrays.append(numpy_helper.from_array(np.float32(bits), "b"))
    domain = "qonnx.custom_op.general"
    turned = [helper.make_node("Transpose", ["q"], ["t"])] if move is np.transpose else []
    nodes = [
        helper.make_node("Quant", ["w", "s", "z", "b"], ["q"], domain=domain),
        *turned,
        helper.make_node("MatMul", ["x", "t" if turned else "q"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["N", 5])],
        [helper.make_tensor_value_info("y", 1, ["N", 7])], arrays,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(domain, 1)]
    data = helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    (layer,) = summarise_onnx(data).layers
    assert layer.parameters == {bits: 35}
    assert layer.macs == {32: 35}  # the map is one of floats


@pytest.mark.parametrize(
    ("name", "binary", "macs"),
    [
        # 3x3 kernels: input channels times output channels; pixels times these
        ("bits_one", 9 * (32 * 64 + 64 * 64 + 64 * 96 + 96 * 40), 8_100_864),
        ("mini_quicknet", 9 * (16 * 16 + 32 * 32 + 2 * 64 * 64), 2_359_296),
    ],
)
def test_larq_networks(name: str, binary: int, macs: int) -> None:
    found = summarise_file("tflite", FOREIGN / f"{name}.tflite")
    assert found.parameters[1] == binary
    assert found.macs[1] == macs
    assert found.notes == ()
