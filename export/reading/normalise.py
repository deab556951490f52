"""A graph as its file says it becomes one as a Program says it; the numbers stay the same.

Every pass takes nodes in execution order and gives such. Arithmetic is reordered only where
constants meet (two factors in a row, a factor and the weights before it): what was two roundings
becomes one, which moves a sum by some 1e-7 of its parts.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from frostbit.export.reading.averages import averages
from frostbit.export.reading.frames import framed
from frostbit.export.reading.graph import (
    AvgPool,
    BitConv,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    Graph,
    Identity,
    MaxPool,
    Node,
    Pad,
    PRelu,
    Quantize,
    Scale,
    Shape,
    Sigmoid,
    Sign,
    Slice,
    refused,
)
from frostbit.export.reading.scales import fold_scales, scales_last
from frostbit.kernels.ir.program import INPUT_LIMIT, Threshold, Window

Nodes = tuple[Node, ...]


def normalise(graph: Graph) -> Nodes:
    """The nodes of ``graph``, ready to be matched with ops one by one.

    No ``Identity``, ``Mean`` or ``Flatten`` of channels first is left, constants of ``Scale`` and
    ``PRelu`` are ``[C]``, and what a Program can say in one op is one node.

    Raises:
        FormatError: what no Program can say, by layer.
    """
    nodes = _without_identities(graph.nodes)
    nodes = _channels_last(nodes, graph.shapes)
    nodes = _per_channel(nodes, graph.shapes)
    nodes = averages(nodes, graph.shapes)
    nodes = needed(framed(_pads_folded(nodes, graph.shapes), graph))
    nodes = _grouped(nodes, graph.shapes)
    nodes = _without_identities(_signs_once(nodes))
    with np.errstate(all="ignore"):  # what is not finite is refused in the end
        nodes = needed(scales_last(nodes, signs(nodes), graph.shapes))
        return needed(fold_scales(nodes, signs(nodes)))


def needed(nodes: Nodes) -> Nodes:
    """Those that the last one depends on."""
    wanted, kept = {nodes[-1].name}, []
    for node in reversed(nodes):
        if node.name in wanted:
            kept.append(node)
            wanted.update(node.inputs)
    return tuple(reversed(kept))


def uses(nodes: Nodes) -> Counter[str]:
    """How often each value is read; the answer once more than that."""
    return Counter([name for node in nodes for name in node.inputs] + [nodes[-1].name])


def signs(nodes: Nodes) -> set[str]:
    """Values that are +1 or -1 everywhere."""
    found: set[str] = set()
    for node in nodes:
        makes = isinstance(node, BitConv) and isinstance(node.epilogue, Threshold)
        moves = isinstance(node, MaxPool | Concat | Slice | Flatten | Identity)
        if makes or isinstance(node, Sign) or (moves and found.issuperset(node.inputs)):
            found.add(node.name)
    return found


def _without_identities(nodes: Nodes) -> Nodes:
    same: dict[str, str] = {}
    kept: list[Node] = []
    for node in nodes:
        inputs = tuple(same.get(name, name) for name in node.inputs)
        if isinstance(node, Identity):
            same[node.name] = inputs[0]
        else:
            kept.append(replace(node, inputs=inputs))
    if not kept:
        raise refused(nodes[-1].layer, "gives the input itself")
    return tuple(kept)


def _signs_once(nodes: Nodes) -> Nodes:
    """The sign of signs is the same signs."""
    known = signs(nodes)
    return tuple(
        Identity(name=node.name, inputs=node.inputs, layer=node.layer)
        if isinstance(node, Sign) and node.inputs[0] in known
        else node
        for node in nodes
    )


def _channels_last(nodes: Nodes, shapes: dict[str, Shape]) -> Nodes:
    """Rows that the source flattens ``[C, H, W]`` in our order, and what reads them likewise."""
    orders: dict[str, np.ndarray] = {}
    done: list[Node] = []
    for node in nodes:
        order = orders.get(node.inputs[0])
        if isinstance(node, Flatten) and node.channels_first:
            height, width, channels = shapes[node.inputs[0]]
            places = np.arange(height * width * channels).reshape(channels, height, width)
            turned = places.transpose(1, 2, 0).ravel()
            if (turned == places.ravel()).all():
                done.append(replace(node, channels_first=False))
                continue
            orders[node.name] = turned
            node = replace(node, channels_first=False, order=turned)
        elif order is not None:
            node = _reordered(node, order)
            if not isinstance(node, Dense):
                orders[node.name] = order
        elif any(name in orders for name in node.inputs):
            raise refused(node.layer, "joins a row that was flattened channels first")
        done.append(node)
    if nodes[-1].name in orders:
        raise refused(nodes[-1].layer, "the answer is a row that was flattened channels first")
    return tuple(done)


def _reordered(node: Node, order: np.ndarray) -> Node:
    def turned(array: np.ndarray) -> np.ndarray:
        flat = array.reshape(-1)
        return flat[order] if flat.size > 1 else flat

    match node:
        case Dense():
            return replace(node, weights=np.ascontiguousarray(node.weights[:, order]))
        case Scale():
            return replace(node, mul=turned(node.mul), add=turned(node.add), order=order)
        case PRelu():
            return replace(node, slope=turned(node.slope), order=order)
        case Clip() | Quantize() | Sigmoid() | Sign():
            return replace(node, order=order)
    raise refused(node.layer, "reads a row that was flattened channels first")


def _per_channel(nodes: Nodes, shapes: dict[str, Shape]) -> Nodes:
    """Constants of ``Scale`` and ``PRelu`` as ``[C]``."""

    def vector(node: Node, array: np.ndarray) -> np.ndarray:
        channels = shapes[node.name][2]
        if array.size > 1 and array.size != array.shape[-1]:
            raise refused(node.layer, "a constant that differs from place to place in the map")
        row = np.broadcast_to(array.reshape(-1), (channels,))
        return np.ascontiguousarray(row, np.float32)

    done: list[Node] = []
    for node in nodes:
        if isinstance(node, Scale):
            node = replace(node, mul=vector(node, node.mul), add=vector(node, node.add))
        elif isinstance(node, PRelu):
            node = replace(node, slope=vector(node, node.slope))
        done.append(node)
    return tuple(done)


def _pads_folded(nodes: Nodes, shapes: dict[str, Shape]) -> Nodes:
    """Padding as part of the window that reads it, where both mean the same."""
    pads = {node.name: node for node in nodes if isinstance(node, Pad)}
    known = signs(nodes)
    done: list[Node] = []
    for node in nodes:
        source = pads.get(node.inputs[0])
        if source is not None and _fits(node, source, source.inputs[0] in known):
            done.append(_padded(node, source))
        else:
            done.append(node)
    left: list[Node] = []
    for node in needed(tuple(done)):
        left += _with_zeros(node, shapes) if isinstance(node, Pad) and node.value else [node]
    return tuple(left)


def _with_zeros(node: Pad, shapes: dict[str, Shape]) -> list[Node]:
    """Padding with a value: the map less the value, padded with 0, and the value put back."""
    if not abs(node.value) <= INPUT_LIMIT:
        raise refused(node.layer, f"padding with {node.value:g} that no window takes up")
    source, layer = node.inputs[0], node.layer
    names = f"{node.name} (lowered)", f"{node.name} (with zeros)"
    shapes[names[0]], shapes[names[1]] = shapes[source], shapes[node.name]

    def shifted(name: str, of: str, value: float) -> Scale:
        channels = shapes[name][2]
        return Scale(
            name=name, inputs=(of,), layer=layer, is_inner=name != node.name,
            mul=np.ones(channels, np.float32), add=np.full(channels, value, np.float32),
        )  # fmt: skip

    padded = replace(node, name=names[1], inputs=(names[0],), value=0.0, is_inner=True)
    lowered, raised = (
        shifted(names[0], source, -node.value),
        shifted(node.name, names[1], node.value),
    )
    return [lowered, padded, raised]


def _widened(window: Window, source: Pad) -> Window:
    (a, b, c, d), (top, left, bottom, right) = window.pads, source.pads
    return replace(window, pads=(a + top, b + left, c + bottom, d + right))


def _padded(node: Node, source: Pad) -> Node:
    if not isinstance(node, Conv | BitConv | MaxPool | AvgPool):
        raise TypeError(f"'{node.name}' has no window")
    window = _widened(node.window, source)
    if isinstance(node, BitConv | Conv):
        return replace(node, inputs=source.inputs, window=window, pad_value=int(source.value))
    if isinstance(node, AvgPool):
        return replace(node, inputs=source.inputs, window=window, counts_pads=True)
    return replace(node, inputs=source.inputs, window=window)


def _fits(node: Node, source: Pad, of_signs: bool) -> bool:
    """Whether ``node`` can pad by itself as ``source`` does before it."""
    if any(source.channels) or not isinstance(node, Conv | BitConv | MaxPool | AvgPool):
        return False
    small = _widened(node.window, source).pads_less_than_kernel()
    match node:
        case Conv() | BitConv():
            own = not any(node.window.pads) or node.pad_value == source.value
            return own and (source.value == 0.0 or (source.value == 1.0 and of_signs))
        case AvgPool():
            return source.value == 0.0 and small and (node.counts_pads or not any(node.window.pads))
    lowest = -1.0 if of_signs else -float(np.finfo(np.float32).max)
    return source.value <= lowest and small


def _grouped(nodes: Nodes, shapes: dict[str, Shape]) -> Nodes:
    """Convolutions of the parts of one map, joined again: one convolution in groups."""
    by_name, count = {node.name: node for node in nodes}, uses(nodes)
    done = [
        (_group(node, by_name, count, shapes) or node) if isinstance(node, Concat) else node
        for node in nodes
    ]
    return needed(tuple(done))


def _group(
    node: Concat, by_name: dict[str, Node], count: Counter[str], shapes: dict[str, Shape]
) -> Conv | None:
    convs = [by_name.get(name) for name in node.inputs]
    parts: list[tuple[Conv, Slice]] = []
    for conv in convs:
        part = by_name.get(conv.inputs[0]) if isinstance(conv, Conv) else None
        if not isinstance(conv, Conv) or not isinstance(part, Slice) or count[conv.name] != 1:
            return None
        parts.append((conv, part))
    first, whole = parts[0][0], parts[0][1].inputs
    size = shapes[whole[0]][2] // len(parts)
    for number, (conv, part) in enumerate(parts):
        same = conv.window == first.window and conv.weights.shape == first.weights.shape
        same = same and conv.pad_value == first.pad_value
        place = (part.start, part.stop) == (number * size, (number + 1) * size)
        if not (same and place and part.inputs == whole and conv.groups == 1):
            return None
    if size * len(parts) != shapes[whole[0]][2]:
        return None
    return Conv(
        name=node.name, inputs=whole, layer=node.layer, window=first.window,
        weights=np.concatenate([conv.weights for conv, _ in parts]),
        add=np.concatenate([conv.add for conv, _ in parts]), groups=len(parts),
        pad_value=first.pad_value,
    )  # fmt: skip
