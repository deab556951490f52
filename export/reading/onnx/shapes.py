"""Reading what moves values in ONNX: reshapes, transposes, parts and paddings, means over a map."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from frostbit.export.reading.graph import (
    Concat,
    Flatten,
    Identity,
    MaxPool,
    Mean,
    Node,
    Pad,
    Scale,
    Slice,
)
from frostbit.export.reading.onnx.call import Call, Map
from frostbit.export.summary import product
from frostbit.kernels.ir.program import MAX_DIM, MAX_PARTS, Window

MOST_AXES = 4
_ROWS = {"CHW", "CH", "CW", "HWC", "HW", "HC", "WC", "H", "W"}
"""Axes that are not 1, in orders that a row may be made of."""


def _named_axes(call: Call, rank: int, since: int) -> list[int] | None:
    """Axes of an operator, which ``since`` that operator set are an input."""
    found = call.attributes.integers("axes")
    if call.opset >= since:
        if found is not None:
            raise call.refused(f"the attribute 'axes' is none of operator set {call.opset}")
        found = call.integers(1) if call.has(1) else None
    return None if found is None else call.axes(found, rank)


def _reduce(call: Call, since: int, *, is_sum: bool) -> None:
    """A mean or a sum over H and W."""
    call.takes(1, 2)
    x = call.map()
    axes = _named_axes(call, len(x.layout), since)
    keeps = bool(call.attributes.integer("keepdims", 1))
    call.attributes.integer("noop_with_empty_axes", 0)
    if not axes:
        raise call.refused("is read over H and W only, and names no axes")
    height, width, _ = call.reading.builder.shape(x.name)
    gone = {x.layout[axis] for axis in axes}
    wanted = {letter for letter, size in (("H", height), ("W", width)) if size > 1}
    if not wanted <= gone <= {"H", "W"}:
        raise call.refused(f"over {', '.join(sorted(gone))} is not read, only over H and W")
    layout = x.layout if keeps else "".join(c for c in x.layout if c not in gone)
    if not is_sum:
        call.give(call.add(Mean(name=call.name, inputs=(x.name,), layer=call.layer), layout))
        return
    inner = call.inner("mean")
    call.add(Mean(name=inner, inputs=(x.name,), layer=call.layer, is_inner=True), layout)
    mul = np.full((1, 1, 1), height * width, np.float32)
    add = np.zeros((1, 1, 1), np.float32)
    node = Scale(name=call.name, inputs=(inner,), layer=call.layer, mul=mul, add=add)
    call.give(call.add(node, layout))


def reduce_mean(call: Call) -> None:
    _reduce(call, 18, is_sum=False)


def reduce_sum(call: Call) -> None:
    _reduce(call, 13, is_sum=True)


def _relabelled(call: Call, x: Map, sizes: list[int]) -> str | None:
    """Letters of ``sizes`` if they are those of ``x`` with axes of 1 put in or left out."""
    kept = [letter for letter in x.layout[1:] if call.reading.size(x, letter) != 1]
    places = [axis for axis, size in enumerate(sizes[1:], 1) if size != 1]
    if [sizes[axis] for axis in places] != [call.reading.size(x, letter) for letter in kept]:
        return None
    if len(sizes) > MOST_AXES:
        return None
    letters = dict(zip(places, kept, strict=True))
    spare = [letter for letter in "CHW" if letter not in kept]
    return "N" + "".join(letters.get(axis) or spare.pop(0) for axis in range(1, len(sizes)))


def _reshaped(call: Call, x: Map, sizes: list[int]) -> None:
    """Give ``x`` with other axes: the same without those of 1, or all flat."""
    had = call.reading.sizes(x)
    if product(sizes) != product(had) or not sizes or sizes[0] != had[0]:
        raise call.refused(f"makes {sizes} of {had}, which is not read")
    order = "".join(letter for letter in x.layout[1:] if call.reading.size(x, letter) != 1)
    becomes_channels = order in ("H", "W") and sizes[1] != 1
    layout = _relabelled(call, x, sizes)
    if layout is not None and not becomes_channels:
        node: Node = Identity(name=call.name, inputs=(x.name,), layer=call.layer)
        call.give(call.add(node, layout))
        return
    is_flat = sum(size != 1 for size in sizes[1:]) == 1
    if not is_flat or (order not in _ROWS):
        raise call.refused(f"makes {sizes} of {had} ({x.layout}), which is not read")
    channels_first = order.startswith("C")
    node = Flatten(
        name=call.name, inputs=(x.name,), layer=call.layer, channels_first=channels_first
    )
    flat = _relabelled(call, call.add(node, "NC"), sizes)
    if flat is None:
        raise call.refused(f"makes {sizes} of {had}, which is not read")
    call.reading.layouts[call.name] = flat
    call.give(Map(call.name, flat))


def reshape(call: Call) -> None:
    call.takes(2, 2)
    x, wanted = call.map(), call.integers(1)
    allow_zero = bool(call.attributes.integer("allowzero", 0))
    had = call.reading.sizes(x)
    if not allow_zero:
        if any(size == 0 and axis >= len(had) for axis, size in enumerate(wanted)):
            raise call.refused(f"makes {wanted} of {had}")
        wanted = [had[axis] if size == 0 else size for axis, size in enumerate(wanted)]
    if min(wanted, default=1) < -1 or 0 in wanted or wanted.count(-1) > 1:
        raise call.refused(f"makes {wanted} of {had}")
    known = product(size for size in wanted if size != -1)
    wanted = [product(had) // known if size == -1 else size for size in wanted]
    _reshaped(call, x, wanted)


def flatten(call: Call) -> None:
    call.takes(1, 1)
    x = call.map()
    if call.axes([call.attributes.integer("axis", 1)], len(x.layout)) != [1]:
        raise call.refused("is read from axis 1 on only")
    had = call.reading.sizes(x)
    _reshaped(call, x, [had[0], product(had[1:])])


def squeeze(call: Call) -> None:
    call.takes(1, 2)
    x = call.map()
    had = call.reading.sizes(x)
    axes = _named_axes(call, len(had), 13)
    if axes is None:
        axes = [axis for axis, size in enumerate(had) if size == 1]
    if any(had[axis] != 1 for axis in axes):
        raise call.refused(f"axes {axes} of {had} are not all 1")
    _reshaped(call, x, [size for axis, size in enumerate(had) if axis not in axes])


def unsqueeze(call: Call) -> None:
    call.takes(1, 2)
    x = call.map()
    had = call.reading.sizes(x)
    stated = call.attributes.integers("axes") if call.opset < 13 else call.integers(1)
    if stated is None:
        raise call.refused("axes are missing")
    axes = call.axes(stated, len(had) + len(stated))
    left = iter(had)
    sizes = [1 if axis in axes else next(left) for axis in range(len(had) + len(axes))]
    _reshaped(call, x, sizes)


def transpose(call: Call) -> None:
    """The small graph has one order of axes, so only the letters move."""
    call.takes(1, 1)
    x = call.map()
    rank = len(x.layout)
    order = call.attributes.integers("perm")
    axes = list(range(rank))[::-1] if order is None else call.axes(order, rank)
    if len(axes) != rank or axes[0] != 0:
        raise call.refused(f"moves the axes to {axes}, which is not read: images come first")
    layout = "".join(x.layout[axis] for axis in axes)
    call.give(call.add(Identity(name=call.name, inputs=(x.name,), layer=call.layer), layout))


def _side_by_side(call: Call, maps: list[Map]) -> None:
    """Give the channels of all; one alone is itself."""
    if len(maps) == 1:
        call.give(maps[0])
        return
    node = Concat(name=call.name, inputs=tuple(each.name for each in maps), layer=call.layer)
    call.give(call.add(node, maps[0].layout))


def concat(call: Call) -> None:
    maps = [call.map(position) for position in range(len(call.node.input))]
    if not maps:
        raise call.refused("of nothing")
    layout = maps[0].layout
    if any(each.layout != layout for each in maps):
        raise call.refused(f"joins maps of axes {', '.join(each.layout for each in maps)}")
    if "axis" not in {attribute.name for attribute in call.node.attribute}:
        raise call.refused("axis is missing")
    if call.axis(maps[0], 1) != "C":
        raise call.refused("is read along the channels only")
    _side_by_side(call, maps)


def tile(call: Call) -> None:
    """Channels repeated."""
    call.takes(2, 2)
    x, times = call.map(), call.integers(1)
    count = dict(zip(x.layout, times, strict=False)).get("C", 0)
    if len(times) != len(x.layout) or not 1 <= count <= MAX_PARTS or product(times) != count:
        raise call.refused(f"{times} times is not read, only of the channels")
    _side_by_side(call, [x] * count)


def split(call: Call) -> None:
    call.takes(1, 2)
    x = call.map()
    if call.axis(x, 0) != "C":
        raise call.refused("is read along the channels only")
    channels, count = call.reading.size(x, "C"), len(call.node.output)
    stated = call.attributes.integers("split")
    if call.opset >= 13 and call.has(1):
        stated = call.integers(1)
    if call.attributes.integer("num_outputs", count) != count:
        raise call.refused(f"num_outputs is not the number of its results, {count}")
    if stated is None:
        part = -(-channels // count)
        stated = [min(part, channels - part * i) for i in range(count)]
    if len(stated) != count or sum(stated) != channels or min(stated) < 1:
        raise call.refused(f"parts {stated} of {channels} channels")
    start = 0
    for output, part in enumerate(stated):
        name = call.node.output[output] or call.inner(f"part {output}")
        node = Slice(
            name=name, inputs=(x.name,), layer=call.layer, start=start, stop=start + part
        )  # fmt: skip
        sliced = call.add(node, x.layout)
        if call.node.output[output]:
            call.give(sliced, output)
        start += part


def _cuts(call: Call, x: Map) -> dict[str, tuple[int, int, int]]:
    """Start, stop and step by axis, within the map."""
    if call.opset < 10:
        call.takes(1, 1)
        starts, stops = call.attributes.integers("starts"), call.attributes.integers("ends")
        axes, steps = call.attributes.integers("axes"), None
    else:
        call.takes(3, 5)
        starts, stops = call.integers(1), call.integers(2)
        axes = call.integers(3) if call.has(3) else None
        steps = call.integers(4) if call.has(4) else None
    starts, stops = starts or [], stops or []
    places = call.axes(list(range(len(starts))) if axes is None else axes, len(x.layout))
    steps = [1] * len(starts) if steps is None else steps
    if not len(starts) == len(stops) == len(places) == len(steps) or min(steps, default=1) < 1:
        raise call.refused(f"starts {starts}, ends {stops}, axes {places}, steps {steps}")
    sizes = call.reading.sizes(x)
    rows = zip(places, starts, stops, steps, strict=True)
    return {
        x.layout[axis]: (*slice(start, stop).indices(sizes[axis])[:2], step)
        for axis, start, stop, step in rows
    }


def slice_(call: Call) -> None:
    """Some channels in a row, or every so many rows and columns: a pool of one number."""
    x = call.map()
    cuts = _cuts(call, x)
    sizes = {letter: call.reading.size(x, letter) for letter in "NHWC"}
    cuts = {c: cut for c, cut in cuts.items() if cut != (0, sizes[c], 1)}
    if set(cuts) == {"C"} and cuts["C"][2] == 1:
        start, stop, _ = cuts["C"]
        node: Node = Slice(
            name=call.name, inputs=(x.name,), layer=call.layer, start=start, stop=stop
        )
    elif set(cuts) <= {"H", "W"} and all(cut[:2] == (0, sizes[c]) for c, cut in cuts.items()):
        stride = (cuts.get("H", (0, 0, 1))[2], cuts.get("W", (0, 0, 1))[2])
        window = Window((1, 1), stride)
        node = MaxPool(name=call.name, inputs=(x.name,), layer=call.layer, window=window)
    else:
        raise call.refused("is read of channels in a row, or of every so many rows and columns")
    call.give(call.add(node, x.layout))


def pad(call: Call) -> None:
    x = call.map()
    rank = len(x.layout)
    if call.opset < 11:
        call.takes(1, 1)
        stated, value = call.attributes.integers("pads") or [], call.attributes.number("value", 0.0)
        axes = list(range(rank))
    else:
        call.takes(2, 4)
        stated, value = call.integers(1), call.number(2) if call.has(2) else 0.0
        axes = call.axes(call.integers(3) if call.has(3) else list(range(rank)), rank)
    if call.attributes.text("mode", "constant") != "constant" or math.isnan(value):
        raise call.refused("is read with a constant only")
    if (
        len(stated) != 2 * len(axes)
        or not 0 <= min(stated, default=0) <= max(stated, default=0) <= MAX_DIM
    ):
        raise call.refused(f"pads {stated} of {rank} axes")
    count = len(axes)
    by = {x.layout[axis]: (stated[i], stated[i + count]) for i, axis in enumerate(axes)}
    if by.get("N", (0, 0)) != (0, 0):
        raise call.refused("pads images")
    (top, bottom), (left, right) = by.get("H", (0, 0)), by.get("W", (0, 0))
    node = Pad(
        name=call.name, inputs=(x.name,), layer=call.layer, pads=(top, left, bottom, right),
        channels=by.get("C", (0, 0)), value=value,
    )  # fmt: skip
    call.give(call.add(node, x.layout))


def shape(call: Call) -> None:
    call.takes(1, 1)
    sizes = np.array(call.reading.sizes(call.map()), np.int64)
    start, stop = call.attributes.integer("start", 0), call.attributes.integer("end", len(sizes))
    call.give(sizes[start:stop])


RULES: dict[str, Callable[[Call], None]] = {
    "Concat": concat,
    "Flatten": flatten,
    "Pad": pad,
    "ReduceMean": reduce_mean,
    "ReduceSum": reduce_sum,
    "Reshape": reshape,
    "Shape": shape,
    "Slice": slice_,
    "Split": split,
    "Squeeze": squeeze,
    "Tile": tile,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
