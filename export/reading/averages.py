"""Averages as ops can say them: sums over a whole map, windows that count their pads."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from frostbit.export.reading.graph import AvgPool, Mean, Mul, Node, Scale, Shape, refused
from frostbit.kernels.ir.program import Window


@dataclass(frozen=True, eq=False, kw_only=True)
class Total(Node):
    """Sum over H and W -> ``(1, 1, C)``; averages are made of it."""


def averages(nodes: tuple[Node, ...], shapes: dict[str, Shape]) -> tuple[Node, ...]:
    """``nodes`` without a ``Mean`` and without an average that leaves out padding.

    Args:
        nodes: in execution order.
        shapes: of every value; those of new ones are added.

    Raises:
        FormatError: an average that no ops can say, by layer.
    """
    done: list[Node] = []
    for node in nodes:
        if isinstance(node, Mean):
            done += _whole(node, shapes)
        elif isinstance(node, AvgPool):
            done += _pool(node, shapes)
        else:
            done.append(node)
    return tuple(done)


def _whole(node: Mean | AvgPool, shapes: dict[str, Shape]) -> list[Node]:
    height, width, channels = shapes[node.inputs[0]]
    name = f"{node.name} (sum)"
    shapes[name] = (1, 1, channels)
    total = Total(name=name, inputs=node.inputs, layer=node.layer, is_inner=True)
    return [total, _scale(node, name, channels, 1 / (height * width), 0.0)]


def _scale(node: Node, source: str, channels: int, mul: float, add: float) -> Scale:
    return Scale(
        name=node.name, inputs=(source,), layer=node.layer, is_inner=node.is_inner,
        mul=np.full(channels, mul, np.float32), add=np.full(channels, add, np.float32),
    )  # fmt: skip


def _pool(node: AvgPool, shapes: dict[str, Shape]) -> list[Node]:
    height, width, _ = shapes[node.inputs[0]]
    if node.window == Window((height, width), node.window.stride):
        return _whole(node, shapes)
    if node.window.dilation != (1, 1):
        raise refused(node.layer, "an average over a dilated window cannot be read")
    if node.counts_pads or not any(node.window.pads):
        return [replace(node, counts_pads=True)]
    (rows, columns), (top, left, bottom, right) = node.window.kernel, node.window.pads
    stride = node.window.stride
    upright = Window((rows, 1), (stride[0], 1), (top, 0, bottom, 0))
    level = Window((1, columns), (1, stride[1]), (0, left, 0, right))
    inner = replace(node, name=f"{node.name} (rows)", window=upright, is_inner=True)
    outer = replace(node, inputs=(inner.name,), window=level)
    return _along(inner, 0, shapes) + _along(outer, 1, shapes)


def _along(node: AvgPool, axis: int, shapes: dict[str, Shape]) -> list[Node]:
    """An average along one axis that leaves out padding.

    The average with zeros is too small by the share of the window that lies in the map. That share
    is the same average of ones; of two different shares r and s, 1 / share is the straight line
    (1/r + 1/s) - share / (r * s).
    """
    height, width, channels = source = shapes[node.inputs[0]]
    shares = np.unique(_shares(node.window, axis, source))
    if len(shares) > 2 or shares[0] <= 0:
        raise refused(
            node.layer, "an average whose windows reach into the padding in more than one way"
        )
    pooled, low, high = (*node.window.output(height, width), channels), shares[0], shares[-1]
    shapes.update({node.name: pooled})
    if low == 1:
        return [replace(node, counts_pads=True)]
    names = {key: f"{node.name} ({key})" for key in ("zeros", "ones", "share", "factor")}
    shapes.update(dict.fromkeys(names.values(), pooled) | {names["ones"]: source})
    zeros = replace(node, name=names["zeros"], counts_pads=True, is_inner=True)
    ones = _scale(replace(zeros, name=names["ones"]), node.inputs[0], channels, 0.0, 1.0)
    share = replace(zeros, name=names["share"], inputs=(ones.name,))
    factor = _scale(
        replace(zeros, name=names["factor"]), share.name, channels, -1 / (low * high),
        1 / low + 1 / high,
    )  # fmt: skip
    product = Mul(
        name=node.name, inputs=(zeros.name, factor.name), layer=node.layer, is_inner=node.is_inner
    )
    return [zeros, ones, share, factor, product]


def _shares(window: Window, axis: int, shape: Shape) -> NDArray[np.float64]:
    """Of each window along ``axis``: the part that lies in the map."""
    size, kernel = shape[axis], window.kernel[axis]
    start = np.arange(window.output(shape[0], shape[1])[axis]) * window.stride[axis]
    start -= window.pads[axis]
    inside = np.minimum(start + kernel, size) - np.maximum(start, 0)
    return np.asarray(inside / kernel, np.float64)
