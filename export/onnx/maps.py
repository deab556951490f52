"""ONNX rules of the ops that are no convolution; maps are float32 NCHW, or codes in the int8 form.

Sign is ``Where(x >= 0, 1, -1)``: ONNX's own ``Sign`` gives 0 at 0. A Flatten goes by way of NHWC,
the order of a Program's values.
"""

from __future__ import annotations

import numpy as np

from frostbit.export.onnx.graph import Graph, Rule, full_precision, pad, window_attributes
from frostbit.kernels.ir.program import (
    NO_BOUND,
    Add,
    Affine,
    AvgPool,
    Clip,
    Concat,
    Dense,
    Flatten,
    GlobalSum,
    MaxPool,
    Mul,
    Op,
    Pad,
    PRelu,
    Quantize,
    Repeat,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    ToFloat,
)


def positive(g: Graph, op: Sign, x: str) -> str:
    """Boolean map: where ``x`` counts as +1."""
    return g.node("GreaterOrEqual", [x, g.scalar("zero", 0.0)], f"{op.name}/positive")


def sign(g: Graph, op: Sign, x: str) -> str:
    ones = [g.scalar("one", 1.0), g.scalar("minus_one", -1.0)]
    return g.node("Where", [positive(g, op, x), *ones], op.name)


_NAMED = {-1.0: "minus_one", 0.0: "zero", 1.0: "one"}


def clipped(g: Graph, name: str, x: str, low: float, high: float) -> str:
    """``Clip`` with the limits that there are, or ``Relu``."""
    if (low, high) == (0.0, NO_BOUND):
        return g.node("Relu", [x], name)
    ends = [
        "" if abs(end) == NO_BOUND else g.scalar(_NAMED.get(end, f"limit_{end}"), end)
        for end in (low, high)
    ]
    return g.node("Clip", [x, *ends], name)


def _clip(g: Graph, op: Clip, x: str) -> str:
    return clipped(g, op.name, x, op.low, op.high)


def _to_float(g: Graph, op: ToFloat, x: str) -> str:
    return g.node("Identity", [x], op.name)


def _add(g: Graph, op: Add, a: str, b: str) -> str:
    return g.node("Add", [a, b], op.name)


def _mul(g: Graph, op: Mul, a: str, b: str) -> str:
    return g.node("Mul", [a, b], op.name)


def scaled(g: Graph, name: str, by: Affine | Scale, x: str) -> str:
    """``mul * x + add`` per channel."""
    mul = g.constant(f"{name}/mul", by.mul.reshape(1, -1, 1, 1))
    added = g.constant(f"{name}/add", by.add.reshape(1, -1, 1, 1))
    return g.node("Add", [g.node("Mul", [x, mul], f"{name}/scaled"), added], name)


def _scale(g: Graph, op: Scale, x: str) -> str:
    return scaled(g, op.name, op, x)


def _prelu(g: Graph, op: PRelu, x: str) -> str:
    slope = g.constant(f"{op.name}/slope", op.slope.reshape(-1, 1, 1))
    return g.node("PRelu", [x, slope], op.name)


def _quantize(g: Graph, op: Quantize, x: str) -> str:
    step = g.scalar(f"step_{op.step}", op.step)
    steps = g.node("Div", [x, step], f"{op.name}/steps")
    whole = g.node("Round", [steps], f"{op.name}/whole")  # halves to even
    held = clipped(g, f"{op.name}/held", whole, op.low, op.high)
    return g.node("Mul", [held, step], op.name)


def _sigmoid(g: Graph, op: Sigmoid, x: str) -> str:
    return g.node("Sigmoid", [x], op.name)


def _softmax(g: Graph, op: Softmax, x: str) -> str:
    return g.node("Softmax", [x], op.name, axis=1)


def _slice(g: Graph, op: Slice, x: str) -> str:
    numbers = {"start": op.start, "stop": op.stop}
    limits = [g.constant(f"{op.name}/{k}", np.array([v], np.int64)) for k, v in numbers.items()]
    channel_axis = g.constant("const/channel_axis", np.array([1], np.int64))
    return g.node("Slice", [x, *limits, channel_axis], op.name)


def _pad(g: Graph, op: Pad, x: str) -> str:
    (top, left, bottom, right), (before, after) = op.pads, op.channels
    values = np.array([0, before, top, left, 0, after, bottom, right], np.int64)
    amounts = [g.constant(f"{op.name}/pads", values), g.scalar("zero", 0.0)]
    return g.node("Pad", [x, *amounts], op.name, mode="constant")


def _flatten(g: Graph, op: Flatten, x: str) -> str:
    if g.types[op.inputs[0]].shape[:2] != (1, 1):
        x = g.node("Transpose", [x], f"{op.name}/nhwc", perm=[0, 2, 3, 1])
    sizes = np.array([0, g.types[op.name].shape[2], 1, 1], np.int64)  # 0: the batch as it is
    return g.node("Reshape", [x, g.constant(f"{op.name}/sizes", sizes)], op.name)


def _max_pool(g: Graph, op: MaxPool, x: str) -> str:
    return g.node("MaxPool", [x], op.name, **window_attributes(op.window))


def _avg_pool(g: Graph, op: AvgPool, x: str) -> str:
    if op.window.dilation != (1, 1):  # AveragePool has no dilation before opset 19
        channels, kernel = g.types[op.name].shape[2], op.window.kernel
        share = np.full((channels, 1, *kernel), 1.0 / (kernel[0] * kernel[1]), np.float32)
        weights = g.constant(f"{op.name}/weights", share)
        attributes = window_attributes(op.window)
        return g.node("Conv", [x, weights], op.name, group=channels, **attributes)
    attributes = window_attributes(op.window, padded=True)
    del attributes["dilations"]
    return g.node("AveragePool", [pad(g, op.name, x, op.window, 0.0)], op.name, **attributes)


def _repeat(g: Graph, op: Repeat, x: str) -> str:
    times = g.constant(f"{op.name}/times", np.array([1, op.times, 1, 1], np.int64))
    return g.node("Tile", [x, times], op.name)


def _concat(g: Graph, op: Concat, *maps: str) -> str:
    return g.node("Concat", list(maps), op.name, axis=1)


def _spatial_axes(g: Graph) -> str:
    return g.constant("const/spatial_axes", np.array([2, 3], np.int64))


def _global_sum(g: Graph, op: GlobalSum, x: str) -> str:
    return g.node("ReduceSum", [x, _spatial_axes(g)], op.name, keepdims=1)


def _dense(g: Graph, op: Dense, x: str) -> str:
    flat = g.node("Flatten", [x], f"{op.name}/flat", axis=1)
    weights = full_precision(g, op.name, op.weights)
    added = g.constant(f"{op.name}/add", op.add)
    dense = g.node("Gemm", [flat, weights, added], f"{op.name}/dense", transB=1)
    return g.node("Unsqueeze", [dense, _spatial_axes(g)], op.name)


RULES: dict[type[Op], Rule] = {
    Sign: sign,
    Clip: _clip,
    ToFloat: _to_float,
    Add: _add,
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    Repeat: _repeat,
    Concat: _concat,
    GlobalSum: _global_sum,
    Dense: _dense,
    Mul: _mul,
    Scale: _scale,
    PRelu: _prelu,
    Quantize: _quantize,
    Sigmoid: _sigmoid,
    Softmax: _softmax,
    Slice: _slice,
    Pad: _pad,
    Flatten: _flatten,
}
