"""What each of TFLite's operators on maps becomes in the graph."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from frostbit.export.reading.graph import (
    F32,
    Add,
    AvgPool,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    Identity,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    PRelu,
    Scale,
    Sigmoid,
    Slice,
    Softmax,
)
from frostbit.export.reading.tflite.call import BOUNDS, Call
from frostbit.export.reading.tflite.lce import LCE_RULES, keeps_words
from frostbit.kernels.ir.program import MAX_PARTS, NO_BOUND, Window

Rule = Callable[[Call], None]


def _conv(call: Call) -> None:
    x = call.value(0)
    weights, size = call.floats(1), call.shape(x)
    if weights.ndim != 4 or not weights.size or size[2] % weights.shape[3]:
        raise call.refused(f"weights {list(weights.shape)} on {size[2]} channels")
    outputs, height, width, per_group = weights.shape
    window = call.window((height, width), size)
    call.give(
        Conv(
            name=call.name, inputs=(x,), layer=call.layer, window=window, weights=weights,
            add=call.bias(2, outputs), groups=size[2] // per_group,
        )
    )  # fmt: skip


def _depthwise(call: Call) -> None:
    x = call.value(0)
    weights, size = call.floats(1), call.shape(x)
    multiplier = call.integer("depth_multiplier")
    if weights.ndim != 4 or weights.shape[0] != 1 or weights.shape[3] != size[2] * multiplier:
        raise call.refused(
            f"weights {list(weights.shape)} on {size[2]} channels, each used {multiplier} times"
        )
    _, height, width, outputs = weights.shape
    turned = np.ascontiguousarray(weights.transpose(3, 1, 2, 0))
    window = call.window((height, width), size)
    call.give(
        Conv(
            name=call.name, inputs=(x,), layer=call.layer, window=window, weights=turned,
            add=call.bias(2, outputs), groups=size[2],
        )
    )  # fmt: skip


def _dense(call: Call) -> None:
    x = call.value(0)
    weights, size = call.floats(1), call.shape(x)
    if call.integer("weights_format"):
        raise call.refused("weights in another order than [outputs, inputs] cannot be read")
    if weights.ndim != 2 or weights.shape[1] not in (size[2], int(np.prod(size))):
        raise call.refused(f"weights {list(weights.shape)} on a map {list(size)}")
    add = call.bias(2, weights.shape[0])
    if weights.shape[1] != int(np.prod(size)):  # along the channels of every place
        kernel = weights[:, np.newaxis, np.newaxis, :]
        call.give(
            Conv(
                name=call.name, inputs=(x,), layer=call.layer, window=Window((1, 1)),
                weights=kernel, add=add,
            )
        )  # fmt: skip
        return
    if size[:2] != (1, 1):
        name = f"{call.name} (flat)"
        x = call.builder.add(Flatten(name=name, inputs=(x,), layer=call.layer, is_inner=True))
    call.give(Dense(name=call.name, inputs=(x,), layer=call.layer, weights=weights, add=add))


def _operand(call: Call, position: int, other: int) -> F32:
    """A constant beside a map, without the axis of the batch."""
    constant = call.floats(position)
    if constant.ndim == len(call.source.tensor(call.index(other)).shape):
        if constant.shape[0] != 1:
            raise call.refused(f"a constant {list(constant.shape)} with a batch of its own")
        constant = constant[0]
    return constant


def _minus(call: Call, x: str, name: str) -> Scale:
    mul, add = np.asarray(-1, np.float32), np.zeros((), np.float32)
    return Scale(name=name, inputs=(x,), layer=call.layer, mul=mul, add=add)


def _negative(call: Call) -> None:
    call.give(_minus(call, call.value(0), call.name))


def _sum_of_maps(call: Call) -> None:
    a, b = call.value(0), call.value(1)
    if call.operator.name == "SUB":
        inner = _minus(call, b, f"{call.name} (negative)")
        b = call.builder.add(replace(inner, is_inner=True))
    call.give(Add(name=call.name, inputs=(a, b), layer=call.layer))


def _arithmetic(call: Call) -> None:
    """ADD, SUB, MUL, DIV of two maps or of a map and a constant."""
    name = call.operator.name
    constant = next((position for position in (0, 1) if call.is_constant(position)), None)
    if constant is None:
        if name == "DIV":
            raise call.refused("one map by another cannot be read")
        if name == "MUL":
            inputs = (call.value(0), call.value(1))
            call.give(Mul(name=call.name, inputs=inputs, layer=call.layer))
        else:
            _sum_of_maps(call)
        return
    number = _operand(call, constant, 1 - constant)
    mul, add = np.ones((), np.float32), np.zeros((), np.float32)
    match name, constant:
        case "ADD", _:
            add = number
        case "SUB", 1:
            add = -number
        case "SUB", 0:
            mul, add = -mul, number
        case "MUL", _:
            mul = number
        case "DIV", 1:
            with np.errstate(divide="ignore"):  # infinity is refused with every other
                mul = np.asarray(np.float32(1) / number, np.float32)
        case _:
            raise call.refused("a constant by a map cannot be read")
    x = call.value(1 - constant)
    call.give(Scale(name=call.name, inputs=(x,), layer=call.layer, mul=mul, add=add))


def _pool(call: Call) -> None:
    x = call.value(0)
    kernel = (call.integer("filter_height"), call.integer("filter_width"))
    window = call.window(kernel, call.shape(x))
    if call.operator.name == "MAX_POOL_2D":
        call.give(MaxPool(name=call.name, layer=call.layer, inputs=(x,), window=window))
    else:
        call.give(
            AvgPool(name=call.name, layer=call.layer, inputs=(x,), window=window, counts_pads=False)
        )


def _check_axes(call: Call) -> None:
    """FormatError unless a reduction goes over height and width, and no more."""
    rank = len(call.source.tensor(call.index(0)).shape)
    axes = sorted(axis + rank if axis < 0 else axis for axis in call.integers(1))
    if rank != 4 or axes != [1, 2]:
        raise call.refused(f"over the axes {axes} of {rank}; only height and width can be read")


def _reduce(call: Call) -> None:
    """MEAN, SUM, REDUCE_MAX over height and width."""
    _check_axes(call)
    x = call.value(0)
    height, width, _ = call.shape(x)
    match call.operator.name:
        case "MEAN":
            call.give(Mean(name=call.name, layer=call.layer, inputs=(x,)))
        case "REDUCE_MAX":
            call.give(
                MaxPool(
                    name=call.name, layer=call.layer, inputs=(x,), window=Window((height, width))
                )
            )
        case _:
            name = f"{call.name} (mean)"
            mean = call.builder.add(Mean(name=name, inputs=(x,), layer=call.layer, is_inner=True))
            mul, add = np.asarray(height * width, np.float32), np.zeros((), np.float32)
            call.give(Scale(name=call.name, layer=call.layer, inputs=(mean,), mul=mul, add=add))


def _reshape(call: Call) -> None:
    """RESHAPE, SQUEEZE, EXPAND_DIMS: to a row, or of a row to itself."""
    x = call.value(0, packed=None)
    before = call.shape(x)
    output = call.operator.outputs[0]
    after = call.source.shape(output, call.layer)
    if call.source.shape(call.index(0), call.layer, in_a_row=True) == after:
        call.give(Identity(name=call.name, layer=call.layer, inputs=(x,)))
        return
    if after[:2] != (1, 1):
        raise call.refused(f"a map {list(before)} as {list(after)}; only to a row can be read")
    if call.is_packed(0):
        keeps_words(call, before[2])
    call.give(Flatten(name=call.name, layer=call.layer, inputs=(x,)))


def _check_last(call: Call, axis: int, position: int) -> None:
    rank = len(call.source.tensor(call.index(position)).shape)
    if axis not in (-1, rank - 1):
        raise call.refused(f"along axis {axis} of {rank}; only along channels can be read")


def _concat(call: Call) -> None:
    count = len(call.operator.inputs)
    _check_last(call, call.integer("axis"), 0)
    packed = call.is_packed(0)
    names = tuple(call.value(position, packed) for position in range(count))
    sizes = [call.shape(name) for name in names]
    if any(size[:2] != sizes[0][:2] for size in sizes):
        raise call.refused(f"joins maps {[list(size) for size in sizes[:4]]}")
    if packed:
        for size in sizes[:-1]:
            keeps_words(call, size[2])
    kind = Concat if count > 1 else Identity
    call.give(kind(name=call.name, inputs=names, layer=call.layer))


def _parts(call: Call, x: str, sizes: list[int]) -> None:
    if len(sizes) != len(call.operator.outputs):
        raise call.refused(f"{len(sizes)} parts for {len(call.operator.outputs)} results")
    start = 0
    for number, size in enumerate(sizes):
        name = call.source.name(call.operator.outputs[number])
        part = Slice(name=name, inputs=(x,), layer=call.layer, start=start, stop=start + size)
        call.add(part, number)
        start += size
    if start != call.shape(x)[2]:
        raise call.refused(f"parts of {start} channels of {call.shape(x)[2]}")


def _split(call: Call) -> None:
    """SPLIT (axis, map) and SPLIT_V (map, sizes, axis)."""
    first = call.operator.name == "SPLIT"
    data, axis = (1, 0) if first else (0, 2)
    x, count = call.value(data), call.integer("num_splits")
    channels = call.shape(x)[2]
    axes = call.integers(axis)
    _check_last(call, axes[0] if len(axes) == 1 else 0, data)
    if not 1 <= count <= MAX_PARTS:
        raise call.refused(f"{count} parts")
    if not first:
        sizes = call.integers(1)
        known = sum(size for size in sizes if size >= 0)
        _parts(call, x, [channels - known if size == -1 else size for size in sizes])
    elif channels % count:
        raise call.refused(f"{count} equal parts of {channels} channels")
    else:
        _parts(call, x, [channels // count] * count)


def _slice(call: Call) -> None:
    x = call.value(0)
    size = call.source.tensor(call.index(0)).shape
    begins, counts = call.integers(1), call.integers(2)
    if len(begins) != len(size) or len(counts) != len(size):
        raise call.refused(f"{begins} and {counts} of a map {list(size)}")
    ends = [
        length if count == -1 else begin + count
        for begin, count, length in zip(begins, counts, size, strict=True)
    ]
    _channels(call, x, begins, ends)


def _strided_slice(call: Call) -> None:
    x = call.value(0)
    size = call.source.tensor(call.index(0)).shape
    bounds = [call.integers(position) for position in (1, 2, 3)]
    others = ("ellipsis_mask", "new_axis_mask", "shrink_axis_mask", "offset")
    if any(call.integer(name) for name in others) or any(step != 1 for step in bounds[2]):
        raise call.refused("with steps, or axes that come or go, cannot be read")
    if any(len(each) != len(size) for each in bounds):
        raise call.refused(f"{bounds} of a map {list(size)}")
    for each, name, edges in zip(bounds, ("begin_mask", "end_mask"), ([0] * 4, size), strict=False):
        for axis, length in enumerate(size):
            if call.integer(name) >> axis & 1:
                each[axis] = edges[axis]
            elif each[axis] < 0:
                each[axis] += length
    _channels(call, x, bounds[0], bounds[1])


def _channels(call: Call, x: str, begins: list[int], ends: list[int]) -> None:
    """The part of a map between ``begins`` and ``ends``, whole but for its channels."""
    size = call.source.tensor(call.index(0)).shape
    if any(begins[:-1]) or ends[:-1] != list(size[:-1]):
        raise call.refused("cuts rows or columns; only channels can be read")
    call.give(Slice(name=call.name, inputs=(x,), layer=call.layer, start=begins[-1], stop=ends[-1]))


def _pad(call: Call) -> None:
    """PAD (zeros; of packed signs: +1) and PADV2 (a constant)."""
    packed = call.is_packed(0)
    x = call.value(0, packed)
    numbers = call.integers(1)
    if len(numbers) != 8 or any(numbers[:2]) or min(numbers) < 0:
        raise call.refused(f"paddings {numbers}; a map has four axes and a batch of 1")
    value = 0.0
    if call.operator.name == "PADV2":
        if packed:
            raise call.refused("of packed signs cannot be read")
        found = call.floats(2)
        if found.size != 1 or np.isnan(found).any():
            raise call.refused("pads with more than one value")
        value = float(found.ravel()[0])
    top, bottom, left, right, before, after = numbers[2:]
    if packed and (before or after):
        raise call.refused("adds channels of packed signs")
    call.give(
        Pad(
            name=call.name, inputs=(x,), layer=call.layer, pads=(top, left, bottom, right),
            channels=(before, after), value=1.0 if packed else value,
        )
    )  # fmt: skip


def _softmax(call: Call) -> None:
    if call.options["beta"] != 1.0:
        raise call.refused(f"beta {call.options['beta']:g} cannot be read, only 1")
    call.give(Softmax(name=call.name, inputs=(call.value(0),), layer=call.layer))


def _slope(call: Call) -> None:
    """LEAKY_RELU and PRELU."""
    x = call.value(0)
    if call.operator.name == "PRELU":
        slope = _operand(call, 1, 0) if call.floats(1).ndim == 4 else call.floats(1)
    else:
        slope = np.asarray(call.options["alpha"], np.float32)
    call.give(PRelu(name=call.name, inputs=(x,), layer=call.layer, slope=slope))


def _clip(call: Call) -> None:
    low, high = BOUNDS[call.operator.name]
    x = call.value(0)
    call.give(Clip(name=call.name, inputs=(x,), layer=call.layer, low=low, high=high))


def _limit(call: Call) -> None:
    """MAXIMUM and MINIMUM of a map and one number."""
    constant = 0 if call.is_constant(0) else 1
    limit, x = call.floats(constant), call.value(1 - constant)
    if limit.size != 1 or not abs(float(limit.ravel()[0])) <= NO_BOUND:
        raise call.refused("of a map and more than one number cannot be read")
    low, high = -NO_BOUND, NO_BOUND
    if call.operator.name == "MAXIMUM":
        low = float(limit.ravel()[0])
    else:
        high = float(limit.ravel()[0])
    call.give(Clip(name=call.name, inputs=(x,), layer=call.layer, low=low, high=high))


def _sigmoid(call: Call) -> None:
    node: Node = Sigmoid(name=call.name, inputs=(call.value(0),), layer=call.layer)
    call.give(node)


RULES: dict[str, tuple[Rule, int, int]] = {
    "ADD": (_arithmetic, 2, 2),
    "AVERAGE_POOL_2D": (_pool, 1, 1),
    "CONCATENATION": (_concat, 1, MAX_PARTS),
    "CONV_2D": (_conv, 2, 3),
    "DEPTHWISE_CONV_2D": (_depthwise, 2, 3),
    "DIV": (_arithmetic, 2, 2),
    "EXPAND_DIMS": (_reshape, 2, 2),
    "FULLY_CONNECTED": (_dense, 2, 3),
    "LEAKY_RELU": (_slope, 1, 1),
    "LOGISTIC": (_sigmoid, 1, 1),
    "MAXIMUM": (_limit, 2, 2),
    "MAX_POOL_2D": (_pool, 1, 1),
    "MEAN": (_reduce, 2, 2),
    "MINIMUM": (_limit, 2, 2),
    "MUL": (_arithmetic, 2, 2),
    "NEG": (_negative, 1, 1),
    "PAD": (_pad, 2, 2),
    "PADV2": (_pad, 3, 3),
    "PRELU": (_slope, 2, 2),
    "REDUCE_MAX": (_reduce, 2, 2),
    "RELU": (_clip, 1, 1),
    "RELU6": (_clip, 1, 1),
    "RELU_N1_TO_1": (_clip, 1, 1),
    "RESHAPE": (_reshape, 1, 2),
    "SLICE": (_slice, 3, 3),
    "SOFTMAX": (_softmax, 1, 1),
    "SPLIT": (_split, 2, 2),
    "SPLIT_V": (_split, 3, 3),
    "SQUEEZE": (_reshape, 1, 1),
    "STRIDED_SLICE": (_strided_slice, 4, 4),
    "SUB": (_arithmetic, 2, 2),
    "SUM": (_reduce, 2, 2),
    **LCE_RULES,
}
"""By operator: its rule, and the fewest and most inputs that it has."""
