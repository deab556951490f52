"""Constant factors and addends: taken up by a neighbour's constants, or one op of their own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from frostbit.export.reading.graph import (
    F32,
    BitConv,
    Conv,
    Dense,
    Flatten,
    MaxPool,
    Node,
    Scale,
    Shape,
)
from frostbit.kernels.ir.program import Affine


def fold_scales(nodes: tuple[Node, ...], signs: set[str]) -> tuple[Node, ...]:
    """Fold every ``Scale`` that stands alone between two nodes into one of them.

    Args:
        nodes: constants of each ``Scale`` are ``[C]``.
        signs: values that are +1 or -1.
    """
    count = Counter([name for node in nodes for name in node.inputs] + [nodes[-1].name])
    done: dict[str, Node] = {}
    for node in nodes:
        source = done.get(node.inputs[0])
        alone = source is not None and count[source.name] == 1
        folded = _after(source, node) if isinstance(node, Scale) and alone else None
        if folded is None and isinstance(source, Scale) and isinstance(node, Conv | Dense):
            folded = _before(source, node, alone, source.inputs[0] in signs)
        done[node.name] = folded or node
    return tuple(done.values())


def scales_last(
    nodes: tuple[Node, ...], signs: set[str], shapes: dict[str, Shape]
) -> tuple[Node, ...]:
    """Each ``Scale`` of signs behind the pools and the like that read it: they work on bits then.

    A factor below 0 stays before a pool, which would find the minimum.
    """
    scales = {node.name: node for node in nodes if isinstance(node, Scale)}
    found, done = set(signs), list[Node]()
    for node in nodes:
        scale = scales.get(node.inputs[0]) if isinstance(node, MaxPool | Flatten) else None
        is_pool = isinstance(node, MaxPool)
        if scale is None or scale.inputs[0] not in found or (is_pool and scale.mul.min() <= 0):
            done.append(node)
            continue
        bits = replace(node, name=f"{node.name} (bits)", inputs=scale.inputs, is_inner=True)
        shapes[bits.name] = shapes[node.name]
        places = 1 if is_pool else shapes[node.name][2] // len(scale.mul)
        moved = Scale(
            name=node.name, inputs=(bits.name,), layer=node.layer, is_inner=node.is_inner,
            order=node.order,
            mul=np.tile(scale.mul, places), add=np.tile(scale.add, places),
        )  # fmt: skip
        found.add(bits.name)
        scales[moved.name] = moved
        done += [bits, moved]
    return tuple(done)


def _after(source: Node | None, node: Scale) -> Node | None:
    """``node`` taken up by what it reads; None where that has no constants for it."""
    match source:
        case Scale():
            mul, add = _joined(source.mul, source.add, node)
            return replace(node, inputs=source.inputs, mul=mul, add=add)
        case Conv() | Dense():
            factor = node.mul.reshape(-1, *(1,) * (source.weights.ndim - 1))
            weights = np.asarray(source.weights * factor, np.float32)
            _, add = _joined(node.mul, source.add, node)
            return replace(source, name=node.name, weights=weights, add=add, is_inner=node.is_inner)
        case BitConv(epilogue=Affine() as affine):
            mul, add = _joined(affine.mul, affine.add, node)
            epilogue = replace(affine, mul=mul, add=add)
            return replace(source, name=node.name, epilogue=epilogue, is_inner=node.is_inner)
    return None


def _joined(mul: F32, add: F32, node: Scale) -> tuple[F32, F32]:
    """Factor and addend of ``node`` after ``x * mul + add``."""
    factor = node.mul.astype(np.float64)
    return np.asarray(mul * factor, np.float32), np.asarray(add * factor + node.add, np.float32)


def _before(source: Scale, node: Conv | Dense, alone: bool, of_signs: bool) -> Node | None:
    """``node`` with the factors of what it reads in its weights.

    Of a map of numbers only where that saves a pass; of signs always, as they stay bits so.
    """
    if not of_signs and (isinstance(node, Conv) or not alone):
        return None
    if isinstance(node, Conv) and source.add.any() and any(node.window.pads):
        return None
    weights = node.weights.astype(np.float64)
    per_group = weights.shape[-1]
    if isinstance(node, Dense):
        groups = np.zeros(len(weights), np.int64)
    else:
        groups = np.arange(len(weights)) // (len(weights) // node.groups)
    channels = groups[:, None] * per_group + np.arange(per_group)
    middle = (1,) * (weights.ndim - 2)
    mul = source.mul[channels].reshape(len(weights), *middle, per_group)
    add = source.add[channels].reshape(len(weights), *middle, per_group).astype(np.float64)
    moved = (weights * add).reshape(len(weights), -1).sum(axis=1)
    return replace(
        node, inputs=source.inputs, weights=np.asarray(weights * mul, np.float32),
        add=np.asarray(node.add + moved, np.float32),
    )  # fmt: skip
