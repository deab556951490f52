"""What is known of every value of a network while it is read, from what is known before it.

Exporters write a sign as a ``Clip(-1, 1)`` of sums that are whole and never 0, and put a clip that
never clips where an optimizer must not fold constants. Both are told apart here from real clips.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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
    Node,
    Pad,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
)

EXACT = 2.0**24
"""Whole numbers below it are exact in float32."""


@dataclass(frozen=True)
class Facts:
    """Of one value.

    Attributes:
        limit: no number in it is larger, its sign aside.
        is_whole: all are whole numbers.
        is_never_zero: none is 0.
        is_never_negative: none is below 0.
    """

    limit: float = math.inf
    is_whole: bool = False
    is_never_zero: bool = False
    is_never_negative: bool = False


UNKNOWN = Facts()
PIXELS = Facts(limit=255.0, is_whole=True, is_never_negative=True)


def _are_whole(*arrays: F32) -> bool:
    return all(bool((array == np.rint(array)).all()) for array in arrays)


def _most(array: F32) -> float:
    return float(np.abs(array).max(initial=0.0))


def _of_sums(node: Conv | Dense, source: Facts) -> Facts:
    """Sums of products: even weights and an odd addend give no 0, nor does a fraction."""
    weights, add = node.weights, node.add
    rows = np.abs(weights.reshape(len(weights), -1).astype(np.float64)).sum(axis=1)
    with np.errstate(invalid="ignore"):  # no weights times no limit
        sums = rows * source.limit + np.abs(add)
    limit = float(sums.max(initial=0.0))
    if not (limit < EXACT and source.is_whole and _are_whole(weights)):
        return Facts(limit)
    are_odd = bool((weights % 2 == 0).all() and (add % 2 == 1).all())
    has_fraction = bool((add % 1 != 0).all())
    return Facts(limit, _are_whole(add), are_odd or has_fraction)


def _of_scale(node: Scale, source: Facts) -> Facts:
    limit = _most(node.mul) * source.limit + _most(node.add)
    is_whole = source.is_whole and limit < EXACT and _are_whole(node.mul, node.add)
    is_nonzero = source.is_never_zero and bool(node.mul.all()) and not node.add.any()
    return Facts(limit, is_whole, is_nonzero)


def facts(node: Node, sources: Sequence[Facts]) -> Facts:
    """What is known of the value of ``node`` by that of its inputs."""
    match node:
        case Sign():
            return Facts(1.0, True, True)
        case Conv() | Dense():
            return _of_sums(node, sources[0])
        case Scale():
            return _of_scale(node, sources[0])
        case Clip(low=low, high=high):
            limit = max(abs(low), abs(high))
            if low <= 0 <= high:
                limit = min(sources[0].limit, limit)
            is_whole = sources[0].is_whole and float(low).is_integer() and float(high).is_integer()
            return Facts(limit, is_whole, is_never_negative=low >= 0)
        case Sigmoid() | Softmax():
            return Facts(1.0, is_never_negative=True)
        case MaxPool() | Slice() | Flatten() | Identity():
            return sources[0]
        case AvgPool() | Mean():
            return Facts(sources[0].limit, is_never_negative=sources[0].is_never_negative)
        case Pad(value=value):
            limit = max(sources[0].limit, abs(value))
            return Facts(limit, sources[0].is_whole and float(value).is_integer())
        case Concat():
            return Facts(
                max(each.limit for each in sources),
                all(each.is_whole for each in sources),
                all(each.is_never_zero for each in sources),
                all(each.is_never_negative for each in sources),
            )
        case Add():
            limit = sum(each.limit for each in sources)
            return Facts(limit, limit < EXACT and all(each.is_whole for each in sources))
    return UNKNOWN
