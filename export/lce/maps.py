"""TFLite and LCE operators of the ops that are no convolution; maps are ``[1, H, W, C]``.

Limits are RELU, RELU_N1_TO_1 or RELU6 where they are theirs, else MAXIMUM and MINIMUM. Bits whose
channels begin or end within a word of 32 pass floats of +-1: no operator shifts bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from frostbit.export.errors import ExportError
from frostbit.export.lce.graph import LCE_WORD_BITS, LceGraph, is_same, lce_words, reach, used_pads
from frostbit.kernels.ir.program import (
    Add,
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
    ValueType,
)


def _sign(graph: LceGraph, op: Sign, _: tuple[ValueType, ...], x: int) -> int:
    return graph.quantize(op.name, x)


def _clip(graph: LceGraph, op: Clip, _: tuple[ValueType, ...], x: int) -> int:
    return graph.clip(op.name, x, op.low, op.high)


def _to_float(graph: LceGraph, op: ToFloat, sources: tuple[ValueType, ...], x: int) -> int:
    return graph.dequantize(op.name, x, sources[0].shape[2])


def _add(graph: LceGraph, op: Add, _: tuple[ValueType, ...], a: int, b: int) -> int:
    return graph.add(op.name, a, b)


def _refuse_dilation(op: MaxPool | AvgPool) -> None:
    if reach(op.window) != op.window.kernel:
        raise ExportError(
            f"op '{op.name}' ({type(op).__name__}): TFLite has no pooling with dilation "
            f"{op.window.dilation}"
        )


def _max_pool(graph: LceGraph, op: MaxPool, sources: tuple[ValueType, ...], x: int) -> int:
    _refuse_dilation(op)
    size = graph.size(x)
    same = is_same(op.window, *size)
    pads = (0, 0, 0, 0) if same else used_pads(op.window, *size)
    if sources[0].kind == "bits":
        x = graph.pad(op.name, x, pads, -1, np.int32)  # all 32 bits set: -1 in every channel
        return graph.binary_max_pool(op.name, x, op.window, same)
    x = graph.pad(op.name, x, pads, -np.inf, np.float32)
    return graph.pool("MAX_POOL_2D", op.name, x, op.window, same)


def _avg_pool(graph: LceGraph, op: AvgPool, _: tuple[ValueType, ...], x: int) -> int:
    _refuse_dilation(op)  # SAME would divide by the taps on the map only
    x = graph.pad(op.name, x, used_pads(op.window, *graph.size(x)), 0, np.float32)
    return graph.pool("AVERAGE_POOL_2D", op.name, x, op.window, same=False)


def _repeat(graph: LceGraph, op: Repeat, _: tuple[ValueType, ...], x: int) -> int:
    return graph.concatenate(op.name, [x] * op.times, np.float32)


def _concat(graph: LceGraph, op: Concat, sources: tuple[ValueType, ...], *maps: int) -> int:
    if sources[0].kind == "f32":
        return graph.concatenate(op.name, maps, np.float32)
    depths = [source.shape[2] for source in sources]
    if not any(depth % LCE_WORD_BITS for depth in depths[:-1]):
        return graph.concatenate(op.name, maps, np.int32)
    floats = [
        graph.dequantize(f"{op.name}/input{i}", part, depth)
        for i, (part, depth) in enumerate(zip(maps, depths, strict=True))
    ]
    return graph.quantize(op.name, graph.concatenate(f"{op.name}/float", floats, np.float32))


def _global_sum(graph: LceGraph, op: GlobalSum, sources: tuple[ValueType, ...], x: int) -> int:
    if sources[0].kind == "bits":
        x = graph.dequantize(f"{op.name}/float", x, sources[0].shape[2])
    return graph.sum_map(op.name, x)


def _dense(graph: LceGraph, op: Dense, _: tuple[ValueType, ...], x: int) -> int:
    flat = graph.dense(f"{op.name}/flat", x, op.weights, op.add)
    return graph.reshape(op.name, flat, (1, 1, 1, len(op.weights)))


def _mul(graph: LceGraph, op: Mul, _: tuple[ValueType, ...], a: int, b: int) -> int:
    return graph.binary("MUL", op.name, a, b)


def _scale(graph: LceGraph, op: Scale, _: tuple[ValueType, ...], x: int) -> int:
    return graph.scale(op.name, x, op.mul, op.add)


def _prelu(graph: LceGraph, op: PRelu, _: tuple[ValueType, ...], x: int) -> int:
    slope = graph.writer.constant(f"{op.name}/slope", op.slope.reshape(1, 1, -1))
    return graph.binary("PRELU", op.name, x, slope)


def _quantize(graph: LceGraph, op: Quantize, _: tuple[ValueType, ...], x: int) -> int:
    step = graph.writer.constant(f"{op.name}/step", np.array(op.step, np.float32))
    steps = graph.binary("DIV", f"{op.name}/steps", x, step)
    whole = graph.unary("ROUND", f"{op.name}/whole", steps)  # halves to even
    held = graph.clip(f"{op.name}/held", whole, op.low, op.high)
    return graph.binary("MUL", op.name, held, step)


def _sigmoid(graph: LceGraph, op: Sigmoid, _: tuple[ValueType, ...], x: int) -> int:
    return graph.unary("LOGISTIC", op.name, x)


def _softmax(graph: LceGraph, op: Softmax, _: tuple[ValueType, ...], x: int) -> int:
    return graph.unary("SOFTMAX", op.name, x, beta=1.0)


def _slice(graph: LceGraph, op: Slice, sources: tuple[ValueType, ...], x: int) -> int:
    kind, channels = sources[0].kind, sources[0].shape[2]
    count = op.stop - op.start
    if kind == "f32":
        return graph.slice_depth(op.name, x, op.start, count, np.float32)
    if op.start % LCE_WORD_BITS == 0 and (op.stop % LCE_WORD_BITS == 0 or op.stop == channels):
        first = op.start // LCE_WORD_BITS
        return graph.slice_depth(op.name, x, first, lce_words(count), np.int32)
    floats = graph.dequantize(f"{op.name}/input", x, channels)
    some = graph.slice_depth(f"{op.name}/float", floats, op.start, count, np.float32)
    return graph.quantize(op.name, some)


def _pad(graph: LceGraph, op: Pad, _: tuple[ValueType, ...], x: int) -> int:
    return graph.pad_all(op.name, x, op.pads, op.channels)


def _flatten(graph: LceGraph, op: Flatten, sources: tuple[ValueType, ...], x: int) -> int:
    kind, (height, width, channels) = sources[0].kind, sources[0].shape
    total = height * width * channels
    if kind == "f32":
        return graph.reshape(op.name, x, (1, 1, 1, total))
    if channels % LCE_WORD_BITS == 0 or height * width == 1:
        return graph.reshape(op.name, x, (1, 1, 1, lce_words(total)), np.int32)
    floats = graph.dequantize(f"{op.name}/input", x, channels)
    return graph.quantize(op.name, graph.reshape(f"{op.name}/float", floats, (1, 1, 1, total)))


RULES: dict[type[Op], Callable[..., int]] = {
    Sign: _sign,
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
