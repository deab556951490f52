"""Every op in plain NumPy on +-1 values: the definition of correct.

Slow and obvious on purpose. ``bits`` values are int8 arrays of +1/-1, ``f32`` values float32, the
input uint8 or float32, all ``[N, H, W, C]``. Sums are carried in int64 or float64 and rounded to
float32 once per op; where :mod:`frostbit.kernels.ir.exact` proves a value exact nothing is rounded
at all, so any float32 runtime must agree bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import (
    INPUT,
    INPUT_LIMIT,
    Add,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    FormatError,
    GlobalSum,
    MaxPool,
    Mul,
    Op,
    Pad,
    PRelu,
    Program,
    Quantize,
    Repeat,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    Threshold,
    ToFloat,
    Window,
)
from frostbit.kernels.ir.verify import verify

Array = NDArray[Any]


_WANTED = {
    "u8": "a uint8 array [N, H, W, C] of pixels 0..255",
    "f32": "a float32 array [N, H, W, C]: this model takes what the file it was read from takes",
}


def check_images(images: Array, program: Program) -> None:
    """Raise ValueError unless ``images`` is ``[N, H, W, C]`` as ``program`` takes it, N >= 1.

    A subclass of an array can mean more than its pixels (a mask, a unit), which would be lost:
    all but NumPy's memory map are refused, and floats that are not finite or beyond
    ``INPUT_LIMIT``.
    """
    shape, kind = program.input_shape, program.input_kind
    dtype = np.uint8 if kind == "u8" else np.float32
    if not isinstance(images, np.ndarray) or images.dtype != dtype:
        got = getattr(images, "dtype", type(images).__name__)
        raise ValueError(f"images must be {_WANTED[kind]}; got {got}")
    if type(images) not in (np.ndarray, np.memmap):
        raise ValueError(
            f"images must be a plain array, and a {type(images).__name__} can mean more: pass "
            "numpy.asarray(images) if the pixels are all it means, or fill its masked ones first"
        )
    if images.ndim != 4 or images.shape[1:] != tuple(shape) or images.shape[0] < 1:
        height, width, channels = shape
        raise ValueError(
            f"images must have shape [N, {height}, {width}, {channels}] with N >= 1, "
            f"got {list(images.shape)}"
        )
    if kind == "f32" and not (images.min() >= -INPUT_LIMIT and images.max() <= INPUT_LIMIT):
        raise ValueError(f"images hold NaN, infinity or values beyond {INPUT_LIMIT:g}")


def _pad(x: Array, window: Window, value: Any) -> Array:
    top, left, bottom, right = window.pads
    n, height, width, channels = x.shape
    out = np.empty((n, height + top + bottom, width + left + right, channels), x.dtype)
    out[...] = value
    out[:, top : top + height, left : left + width] = x
    return out


def _taps(x: Array, window: Window, value: Any) -> Array:
    """Gather windows: ``[N, H, W, C]`` -> ``[N, OH, OW, kh, kw, C]`` (im2col)."""
    padded = _pad(x, window, value)
    out_h, out_w = window.output(x.shape[1], x.shape[2])
    rows = (
        np.arange(out_h)[:, None] * window.stride[0]
        + np.arange(window.kernel[0]) * window.dilation[0]
    )
    cols = (
        np.arange(out_w)[:, None] * window.stride[1]
        + np.arange(window.kernel[1]) * window.dilation[1]
    )
    return padded[:, rows[:, None, :, None], cols[None, :, None, :]]


def conv(op: Conv, x: Array) -> Array:
    taps = _taps(x.astype(np.float64), op.window, op.pad_value.astype(np.float64))
    out = _grouped(taps, op.weights.astype(np.float64), op.groups)
    return np.asarray(out + op.add, dtype=np.float32)


def _grouped(taps: Array, weights: Array, groups: int) -> NDArray[np.float64]:
    """Sum products per group: ``[N, OH, OW, kh, kw, C]`` and OHWI -> ``[N, OH, OW, O]``."""
    per_input, per_output = weights.shape[3], len(weights) // groups
    parts = [
        np.tensordot(
            taps[..., group * per_input : (group + 1) * per_input],
            weights[group * per_output : (group + 1) * per_output],
            axes=([3, 4, 5], [1, 2, 3]),
        )
        for group in range(groups)
    ]
    return np.concatenate(parts, axis=-1)


def accumulate(op: BinaryConv, x: Array) -> NDArray[np.float64]:
    """Accumulators ``[N, OH, OW, O]`` before the epilogue: whole numbers if ``x`` is +-1."""
    taps = _taps(x.astype(np.float64), op.window, float(op.pad_value))
    return _grouped(taps, bits.unpack(op.words, op.channels_in).astype(np.float64), op.groups)


def binary_conv(op: BinaryConv, x: Array) -> Array:
    acc = accumulate(op, x)
    if isinstance(op.epilogue, Threshold):
        return np.where(acc >= op.epilogue.level, 1, -1).astype(np.int8)
    mul, add = op.epilogue.mul.astype(np.float64), op.epilogue.add.astype(np.float64)
    acc = np.clip(acc, op.epilogue.low, op.epilogue.high)
    return np.asarray(acc * mul + add, dtype=np.float32)


def sign(op: Sign, x: Array) -> Array:
    if np.isnan(x).any():
        raise ValueError(f"op '{op.name}': NaN has no sign")
    return np.where(x >= 0, 1, -1).astype(np.int8)


def clip(op: Clip, x: Array) -> Array:
    return np.clip(x, np.float32(op.low), np.float32(op.high))


def to_float(op: ToFloat, x: Array) -> Array:
    return x.astype(np.float32)


def add(op: Add, a: Array, b: Array) -> Array:
    return np.asarray(a + b)


def mul(op: Mul, a: Array, b: Array) -> Array:
    return np.asarray(a * b)


def scale(op: Scale, x: Array) -> Array:
    mul, add = op.mul.astype(np.float64), op.add.astype(np.float64)
    return np.asarray(x * mul + add, dtype=np.float32)


def prelu(op: PRelu, x: Array) -> Array:
    return np.where(x >= 0, x, x * op.slope)


def quantize(op: Quantize, x: Array) -> Array:
    steps = np.rint(x / np.float32(op.step))
    return np.clip(steps, np.float32(op.low), np.float32(op.high)) * np.float32(op.step)


def sigmoid(op: Sigmoid, x: Array) -> Array:
    return np.exp(-np.logaddexp(0.0, -x.astype(np.float64))).astype(np.float32)


def softmax(op: Softmax, x: Array) -> Array:
    powers = np.exp(x.astype(np.float64) - x.max(axis=3, keepdims=True))
    return np.asarray(powers / powers.sum(axis=3, keepdims=True), dtype=np.float32)


def channels(op: Slice, x: Array) -> Array:
    return x[..., op.start : op.stop]


def pad(op: Pad, x: Array) -> Array:
    top, left, bottom, right = op.pads
    return np.pad(x, [(0, 0), (top, bottom), (left, right), op.channels])


def flatten(op: Flatten, x: Array) -> Array:
    return x.reshape(len(x), 1, 1, -1)


def max_pool(op: MaxPool, x: Array) -> Array:
    lowest = -1 if x.dtype == np.int8 else -np.inf
    taps = _taps(x, op.window, lowest)
    highest: Array = taps.max(axis=(3, 4))
    return highest


def avg_pool(op: AvgPool, x: Array) -> Array:
    taps = _taps(x.astype(np.float64), op.window, 0.0)
    area = op.window.kernel[0] * op.window.kernel[1]
    return np.asarray(taps.sum(axis=(3, 4)) / area, dtype=np.float32)


def repeat(op: Repeat, x: Array) -> Array:
    return np.asarray(np.tile(x, (1, 1, 1, op.times)))


def concat(op: Concat, *maps: Array) -> Array:
    return np.concatenate(maps, axis=3)


def global_sum(op: GlobalSum, x: Array) -> Array:
    total = x.astype(np.float64).sum(axis=(1, 2), keepdims=True)
    return np.asarray(total, dtype=np.float32)


def dense(op: Dense, x: Array) -> Array:
    out = x.astype(np.float64) @ op.weights.astype(np.float64).T
    return np.asarray(out + op.add, dtype=np.float32)


RULES: dict[type[Op], Callable[..., Array]] = {
    Conv: conv,
    BinaryConv: binary_conv,
    Sign: sign,
    Clip: clip,
    ToFloat: to_float,
    Add: add,
    MaxPool: max_pool,
    AvgPool: avg_pool,
    Repeat: repeat,
    Concat: concat,
    GlobalSum: global_sum,
    Dense: dense,
    Mul: mul,
    Scale: scale,
    PRelu: prelu,
    Quantize: quantize,
    Sigmoid: sigmoid,
    Softmax: softmax,
    Slice: channels,
    Pad: pad,
    Flatten: flatten,
}


def trace(program: Program, images: Array) -> dict[str, Array]:
    """Run ``program`` and return every value by name.

    Args:
        program: a well-formed Program.
        images: uint8 (or float32, as the Program says) ``[N, H, W, C]``.

    Returns:
        ``{"input": images, op name: value}``; the last op's value is ``[N, 1, 1, classes]``.

    Raises:
        FormatError: if the program is malformed or has an op without a rule here.
        ValueError: if ``images`` has the wrong shape or dtype.
    """
    verify(program)
    check_images(images, program)
    values: dict[str, Array] = {INPUT: images}
    for op in program.ops:
        rule = RULES.get(type(op))
        if rule is None:
            raise FormatError(f"op '{op.name}': no reference rule for {type(op).__name__}")
        values[op.name] = rule(op, *(values[source] for source in op.inputs))
    return values


def run(program: Program, images: Array, batch: int = 64) -> NDArray[np.float32]:
    """Logits float32 ``[N, classes]`` of ``images``, ``batch`` at a time (less memory)."""
    check_images(images, program)
    last = program.ops[-1].name
    chunks = [
        trace(program, images[start : start + batch])[last][:, 0, 0]
        for start in range(0, len(images), batch)
    ]
    return np.concatenate(chunks).astype(np.float32)
