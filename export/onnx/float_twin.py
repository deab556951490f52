"""Full-precision peers: the same architecture with float32 weights, to compare speed with.

A twin keeps every convolution, pooling, shortcut and dense layer of a Program with its shape,
takes seeded random weights, and has ReLU where the Program has a sign. Its answers mean
nothing, so it has no accuracy; its latency is what the same network costs without binarization.
Layout is what ONNX Runtime likes best: float32 NCHW input, BatchNorm already folded into Conv.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from frostbit.export.onnx import maps
from frostbit.export.onnx.graph import OUTPUT_NAME, Graph, relabelled, window_attributes
from frostbit.export.onnx.runtime import session, time_session
from frostbit.export.runtimes import Images, Milliseconds
from frostbit.kernels.ir.program import (
    INPUT,
    AvgPool,
    BinaryConv,
    Clip,
    Conv,
    Dense,
    GlobalSum,
    Op,
    Program,
    Sign,
    Threshold,
)
from frostbit.kernels.ir.verify import infer_types, verify

OPSET = 13


def twin_weights(op: Conv | BinaryConv | Dense, seed: int) -> NDArray[np.float32]:
    """Random float32 weights of ``op``'s shape (OIHW, or ``[O, C]``), scaled by fan-in."""
    if isinstance(op, Conv):
        out, kernel_h, kernel_w, channels = op.weights.shape
        shape: tuple[int, ...] = (out, channels, kernel_h, kernel_w)
    elif isinstance(op, BinaryConv):
        shape = (op.channels_out, op.channels_in, *op.window.kernel)
    else:
        shape = op.weights.shape
    fan_in = int(np.prod(shape[1:]))
    rng = np.random.default_rng(seed)
    return np.asarray(rng.standard_normal(shape) / np.sqrt(fan_in), dtype=np.float32)


def _convolution(g: Graph, op: Conv | BinaryConv, x: str, seed: int) -> None:
    weights = twin_weights(op, seed)
    inputs = [x, g.constant(f"{op.name}/w", weights)]
    inputs.append(g.constant(f"{op.name}/b", np.zeros(len(weights), np.float32)))
    relu = isinstance(op, BinaryConv) and isinstance(op.epilogue, Threshold)
    output = f"{op.name}/acc" if relu else op.name
    g.node("Conv", inputs, output, group=op.groups, **window_attributes(op.window))
    if relu:
        g.node("Relu", [output], op.name)


def _dense(g: Graph, op: Dense, x: str, seed: int) -> None:
    g.node("Flatten", [x], f"{op.name}/flat")
    weights = g.constant(f"{op.name}/w", twin_weights(op, seed))
    bias = g.constant(f"{op.name}/b", np.zeros(len(op.add), np.float32))
    g.node("Gemm", [f"{op.name}/flat", weights, bias], f"{op.name}/dense", transB=1)
    axes = g.constant("const/axes", np.array([2, 3], np.int64))
    g.node("Unsqueeze", [f"{op.name}/dense", axes], op.name)


def _op(g: Graph, op: Op, seed: int) -> None:
    x = list(op.inputs)
    match op:
        case Conv() | BinaryConv():
            _convolution(g, op, x[0], seed)
        case Sign():
            g.node("Relu", x, op.name)
        case Clip() if op.low == -op.high:
            g.node("Relu", x, op.name)
        case AvgPool():
            window = {k: v for k, v in window_attributes(op.window).items() if k != "dilations"}
            g.node("AveragePool", x, op.name, count_include_pad=1, **window)
        case GlobalSum():
            g.node("GlobalAveragePool", x, op.name)
        case Dense():
            _dense(g, op, x[0], seed)
        case _:
            maps.RULES[type(op)](g, op, *x)


def onnx_twin(program: Program, seed: int = 0) -> bytes:
    """ONNX bytes of the float32 twin: input ``input`` float32 ``[1, C, H, W]``."""
    verify(program)
    labelled = relabelled(program)
    twin = Graph(infer_types(labelled))
    for index, op in enumerate(labelled.ops):
        _op(twin, op, seed + index)
    twin.node("Flatten", [labelled.ops[-1].name], OUTPUT_NAME, axis=1)
    height, width, channels = program.input_shape
    shape: list[str | int | None] = [1, channels, height, width]
    logits: list[str | int | None] = [1, len(program.classes)]
    graph = helper.make_graph(
        twin.nodes,
        "twin",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, logits)],
        list(twin.constants.values()),
    )
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


class OrtTwin:
    """``ort-fp32``: the twin in ONNX Runtime. It can be timed, nothing else."""

    name = "ort-fp32"

    def __init__(self, program: Program, threads: int = 1) -> None:
        model = onnx_twin(program)
        self.size_bytes = len(model)
        self._session = session(model, "all", threads)

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        pixels = np.ascontiguousarray(image.transpose(0, 3, 1, 2).astype(np.float32))
        return time_session(self._session, {INPUT: pixels}, repeats)

    def close(self) -> None:
        self._session = None
