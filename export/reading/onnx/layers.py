"""Reading ONNX's convolutions, dense layers and pools."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from frostbit.export.reading.graph import (
    F32,
    AvgPool,
    Conv,
    Dense,
    MaxPool,
    Mean,
    Node,
)
from frostbit.export.reading.onnx.call import Call, Map
from frostbit.kernels.ir.program import MAX_DIM, Window

NCHW = "NCHW"
ROUNDING = 2e-6
"""Share by which weights of one size may differ: float32 rounds twice, by 2**-24 of numbers that
may be some tens of them."""
MOST_ZEROS = 0.01
NEARLY = "weights that are +-c but for rounding are exactly that here"
SOME_ZEROS = "some weights are 0 and all others +-c: they stay numbers, since one bit has no 0"
Pair = tuple[int, int]


def _planar(call: Call) -> Map:
    """The first input, which must be NCHW."""
    x = call.map()
    if x.layout != NCHW:
        raise call.refused(f"works on [N, C, H, W]; its input has the axes {x.layout}")
    return x


def _pair(call: Call, name: str, default: Pair) -> Pair:
    found = call.attributes.integers(name)
    if found is None:
        return default
    if len(found) != 2 or not 1 <= min(found) <= max(found) <= MAX_DIM:
        raise call.refused(f"{name} {found}: two numbers, for H and W, are read")
    return found[0], found[1]


def _same(size: int, reach: int, stride: int, is_upper: bool) -> Pair:
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return (total // 2, total - total // 2) if is_upper else (total - total // 2, total // 2)


def _window(call: Call, x: Map, kernel: Pair) -> Window:
    """The window that the attributes state, with explicit padding."""
    stride, dilation = _pair(call, "strides", (1, 1)), _pair(call, "dilations", (1, 1))
    auto, pads = call.attributes.text("auto_pad", "NOTSET"), call.attributes.integers("pads")
    if auto != "NOTSET" and any(pads or ()):
        raise call.refused(f"auto_pad {auto} beside pads {pads}")
    if auto == "NOTSET":
        pads = [0, 0, 0, 0] if pads is None else pads
        if len(pads) != 4 or not 0 <= min(pads) <= max(pads) <= MAX_DIM:
            raise call.refused(f"pads {pads}: four numbers from 0 are read")
    elif auto == "VALID":
        pads = [0, 0, 0, 0]
    elif auto in ("SAME_UPPER", "SAME_LOWER"):
        size = call.reading.builder.shape(x.name)
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilation, strict=True)]
        (top, bottom), (left, right) = (
            _same(*numbers, auto == "SAME_UPPER")
            for numbers in zip(size[:2], reach, stride, strict=True)
        )
        pads = [top, left, bottom, right]
    else:
        raise call.refused(f"auto_pad {auto!r} is not known")
    return Window(kernel, stride, (pads[0], pads[1], pads[2], pads[3]), dilation)


def _bias(call: Call, position: int, outputs: int) -> F32:
    if not call.has(position):
        return np.zeros(outputs, np.float32)
    found = call.floats(position)
    if found.shape != (outputs,):
        raise call.refused(f"has {outputs} outputs and a bias {list(found.shape)}")
    return found


def _even_sized(call: Call, weights: F32) -> F32:
    """``weights``, exactly ``+-c`` in each row that is so but for rounding.

    Training that passes gradients around a sign leaves ``(s - w) + w`` for ``s``.
    """
    size = np.abs(weights.reshape(len(weights), -1))
    mean = size.mean(axis=1, dtype=np.float64, keepdims=True)
    is_near = (np.abs(size - mean) <= ROUNDING * mean).all(axis=1, keepdims=True)
    _note_zeros(call, size)
    if not (is_near & (size != size[:, :1]).any(axis=1, keepdims=True)).any():
        return weights
    call.reading.notes[call.name] = NEARLY
    even = np.copysign(mean.astype(np.float32), weights.reshape(size.shape))
    return np.where(is_near, even, weights.reshape(size.shape)).reshape(weights.shape)


def _note_zeros(call: Call, size: F32) -> None:
    """Say so where a few weights that are 0 are all that keeps a layer from being binary."""
    zeros = size == 0
    if not 0 < zeros.mean() < MOST_ZEROS or zeros.all(axis=1).any():
        return
    mean = size.mean(axis=1, where=~zeros, keepdims=True, dtype=np.float64)
    if (zeros | (np.abs(size - mean) <= ROUNDING * mean)).all():
        call.reading.notes[call.name] = SOME_ZEROS


def convolution(call: Call) -> None:
    call.takes(2, 3)
    x, weights = _planar(call), call.floats(1)
    if weights.ndim != 4:
        raise call.refused(f"weights {list(weights.shape)}: only those of H and W are read")
    weights = _even_sized(call, weights)
    kernel = (weights.shape[2], weights.shape[3])
    if _pair(call, "kernel_shape", kernel) != kernel:
        raise call.refused(f"kernel_shape is not that of the weights {list(weights.shape)}")
    groups, channels = call.attributes.integer("group", 1), call.reading.size(x, "C")
    per_group = weights.shape[1] * groups == channels and len(weights) % max(groups, 1) == 0
    if groups < 1 or not per_group:
        shape = list(weights.shape)
        raise call.refused(f"weights {shape} in {groups} groups on {channels} channels")
    node = Conv(
        name=call.name, inputs=(x.name,), layer=call.layer, window=_window(call, x, kernel),
        weights=np.ascontiguousarray(weights.transpose(0, 2, 3, 1)),
        add=_bias(call, 2, len(weights)), groups=groups,
    )  # fmt: skip
    call.give(call.add(node, NCHW))


def _dense(call: Call, x: Map, weights: F32, add: F32) -> None:
    """Give ``weights @ x + add`` over the last axis, which must be the channels."""
    height, width, channels = call.reading.builder.shape(x.name)
    if x.layout[-1] != "C" or weights.shape[1] != channels:
        sizes = call.reading.sizes(x)
        raise call.refused(f"weights {list(weights.shape[::-1])} on a map {sizes} ({x.layout})")
    weights = np.ascontiguousarray(_even_sized(call, weights))
    node: Node
    if (height, width) == (1, 1):
        node = Dense(name=call.name, inputs=(x.name,), layer=call.layer, weights=weights, add=add)
    else:
        node = Conv(
            name=call.name, inputs=(x.name,), layer=call.layer, window=Window((1, 1)),
            weights=weights[:, None, None, :], add=add,
        )  # fmt: skip
    call.give(call.add(node, x.layout))


def gemm(call: Call) -> None:
    call.takes(2, 3)
    x, weights = call.map(), call.floats(1)
    if call.attributes.integer("transA", 0) or len(x.layout) != 2 or weights.ndim != 2:
        raise call.refused(f"is read for [N, C] with [C, O] weights, not {x.layout} or transA")
    if not call.attributes.integer("transB", 0):
        weights = weights.T
    alpha = np.float32(call.attributes.number("alpha", 1.0))
    beta = np.float32(call.attributes.number("beta", 1.0))
    add = np.zeros(len(weights), np.float32)
    if call.has(2):
        bias = call.floats(2)
        row = bias.reshape(-1)
        if bias.ndim > 2 or row.size not in (1, len(weights)) or bias.shape[:-1] not in ((), (1,)):
            raise call.refused(f"has {len(weights)} outputs and a bias {list(bias.shape)}")
        add = np.ascontiguousarray(np.broadcast_to(row * beta, add.shape))
    _dense(call, x, weights * alpha, add)


def matmul(call: Call) -> None:
    call.takes(2, 2)
    x, weights = call.map(), call.floats(1)
    if weights.ndim != 2:
        raise call.refused(f"is read with weights [C, O], not {list(weights.shape)}")
    _dense(call, x, weights.T, np.zeros(weights.shape[1], np.float32))


def _ceiled(call: Call, x: Map, window: Window) -> Window:
    """``window`` with pads so that the last, incomplete position counts."""
    height, width, _ = call.reading.builder.shape(x.name)
    top, left, bottom, right = window.pads
    more = []
    for axis, (size, first, last) in enumerate(((height, top, bottom), (width, left, right))):
        stride = window.stride[axis]
        reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1
        results = -(-max(size + first + last - reach, 0) // stride) + 1
        if (results - 1) * stride >= size + first:  # it would begin in the padding
            results -= 1
        more.append(max((results - 1) * stride + reach - size - first - last, 0))
    pads = (top, left, bottom + more[0], right + more[1])
    return Window(window.kernel, window.stride, pads, window.dilation)


def _pool(call: Call, x: Map) -> tuple[Window, bool]:
    """The window, and whether rounding up made it larger."""
    kernel = _pair(call, "kernel_shape", (0, 0))
    if kernel == (0, 0):
        raise call.refused("kernel_shape is missing")
    stated = _window(call, x, kernel)
    if not call.attributes.integer("ceil_mode", 0):
        return stated, False
    window = _ceiled(call, x, stated)
    return window, window != stated


def max_pool(call: Call) -> None:
    call.takes(1, 1)
    x = _planar(call)
    window, _ = _pool(call, x)
    if call.attributes.integer("storage_order", 0):
        raise call.refused("storage_order is not read")
    node = MaxPool(name=call.name, inputs=(x.name,), layer=call.layer, window=window)
    call.give(call.add(node, NCHW))


def average_pool(call: Call) -> None:
    call.takes(1, 1)
    x = _planar(call)
    window, has_grown = _pool(call, x)
    counts_pads = bool(call.attributes.integer("count_include_pad", 0))
    if counts_pads and has_grown:
        raise call.refused("ceil_mode together with count_include_pad is not read")
    node = AvgPool(
        name=call.name, inputs=(x.name,), layer=call.layer, window=window, counts_pads=counts_pads
    )
    call.give(call.add(node, NCHW))


def global_average(call: Call) -> None:
    call.takes(1, 1)
    x = _planar(call)
    call.give(call.add(Mean(name=call.name, inputs=(x.name,), layer=call.layer), NCHW))


def global_max(call: Call) -> None:
    call.takes(1, 1)
    x = _planar(call)
    height, width, _ = call.reading.builder.shape(x.name)
    window = Window((height, width))
    node = MaxPool(name=call.name, inputs=(x.name,), layer=call.layer, window=window)
    call.give(call.add(node, NCHW))


RULES: dict[str, Callable[[Call], None]] = {
    "AveragePool": average_pool,
    "Conv": convolution,
    "Gemm": gemm,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "MatMul": matmul,
    "MaxPool": max_pool,
}
