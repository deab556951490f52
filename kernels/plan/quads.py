"""Which convolutions :mod:`frostbit.kernels.micro.quads` computes, their weights and their taps.

A tap and the one a stride further are a pair. Along an axis there are three classes of products:

* 0, of the first output of a pair: a difference of values, times the pair's first weight;
* 1, of both: the second value, times the sum of the weights;
* 2, of the second: a difference of values, times the pair's second weight, negated.

A class of a quad is one of rows with one of columns. Its values come from the map, or from the map
of differences to the right, downwards, or both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.program import Op, ValueType
from frostbit.kernels.micro.quads import ORDER
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.plan.fusion import Step
from frostbit.kernels.plan.integer_layout import WholeConv

WORTH = 0.75
"""Of the products of the plain kernel: what more is not worth the maps of differences."""
MOST_OF_A_WEIGHT = 127
"""Sums of four such weights and differences of four pixels are far from 16 bits."""


@dataclass(frozen=True, eq=False)
class Difference(Op):
    """An int16 map less itself shifted by ``(rows, pixels)``, one of which is 0."""

    shift: tuple[int, int]


@dataclass(frozen=True, eq=False, kw_only=True)
class QuadConv(WholeConv):
    """A convolution that is computed in quads."""


@dataclass(frozen=True)
class AxisClass:
    """One class along an axis.

    Attributes:
        at: positions of its values, from the first output's first tap.
        is_difference: whether it reads differences.
        mix: int64 ``[len(at), kernel]``, from the axis' weights to those of the class.
    """

    at: tuple[int, ...]
    is_difference: bool
    mix: NDArray[np.int64]

    @property
    def runs(self) -> list[tuple[int, int]]:
        """Indices (first, last + 1) into ``at`` of values side by side."""
        breaks = [i for i in range(1, len(self.at)) if self.at[i] != self.at[i - 1] + 1]
        return list(zip([0, *breaks], [*breaks, len(self.at)], strict=True))


def axis_classes(kernel: int, stride: int) -> list[AxisClass]:
    """The three classes of ``kernel`` taps, in the order in which they are summed."""
    firsts = [tap for tap in range(kernel) if (tap // stride) % 2 == 0]
    seconds = [tap for tap in firsts if tap + stride < kernel]
    one = np.eye(kernel + stride, kernel, dtype=np.int64)  # beyond the kernel, weights are 0
    second = one[np.array(firsts) + stride]
    found = [
        AxisClass(tuple(firsts), True, one[firsts]),
        AxisClass(tuple(tap + stride for tap in firsts), False, one[firsts] + second),
        AxisClass(
            tuple(tap + stride for tap in seconds),
            True,
            -one[np.array(seconds, np.intp) + stride],
        ),
    ]
    return [found[number] for number in ORDER]


def _words(count: int) -> int:
    """Words of 4 bytes of so many int16."""
    return -(-count // 2)


def _pays(op: WholeConv) -> bool:
    (height, width), channels = op.window.kernel, op.small.shape[3]
    rows = sum(len(each.at) for each in axis_classes(height, op.window.stride[0]))
    words = sum(
        _words((last - first) * channels)
        for each in axis_classes(width, op.window.stride[1])
        for first, last in each.runs
    )
    return rows * words < WORTH * 4 * height * _words(width * channels)


def _fits(step: Step, types: dict[str, ValueType]) -> bool:
    op = step.op
    if not isinstance(op, WholeConv) or op.micro != t.INT16 or step.out is not None or step.clip:
        return False
    height, width, _ = types[op.name].shape
    is_small = np.abs(op.small.astype(np.int64)).max() <= MOST_OF_A_WEIGHT
    is_tight = types[op.inputs[0]].kind == "u8" and op.window.dilation == (1, 1)
    is_even = height % 2 == width % 2 == 0
    return bool(is_small and is_tight and is_even and _is_large(op, types) and _pays(op))


def _is_large(op: WholeConv, types: dict[str, ValueType]) -> bool:
    """Whether a row of differences fills the vectors that it is computed in."""
    (_, width, channels), pads = types[op.inputs[0]].shape, op.window.pads
    return (width + pads[1] + pads[3]) * channels >= LANES


def use_quads(steps: Sequence[Step], types: dict[str, ValueType]) -> list[Step]:
    """Let convolutions of pixels whose signs alone are wanted be computed in quads, if it pays."""
    found = []
    for step in steps:
        if not isinstance(step.op, WholeConv) or not _fits(step, types):
            found.append(step)
            continue
        op, wide = step.op, step.source
        down, right = op.window.stride
        names = tuple(f"{op.name}:{way}" for way in ("right", "down", "both"))
        shifts = ((0, right), (down, 0), (down, 0))
        sources = (wide, wide, names[0])
        for name, shift, source in zip(names, shifts, sources, strict=True):
            found.append(Step(Difference(name, (source,), shift), source, out=name))
        found.append(replace(step, op=QuadConv(**vars(op)), more=names))
    return found


@dataclass(frozen=True, eq=False)
class QuadTaps:
    """Taps of all classes, one after the other.

    Attributes:
        rows: negated weights, uint32 ``[O, taps]``.
        offsets: int32 ``[taps]``.
        ends: int32 ``[10]``, where each class begins, and where the last one ends.
    """

    rows: NDArray[np.uint32]
    offsets: NDArray[np.int32]
    ends: NDArray[np.int32]


def quad_taps(op: QuadConv, row: int, pixel: int, maps: Sequence[int]) -> QuadTaps:
    """The taps of a convolution whose map has rows of ``row`` bytes and pixels of ``pixel``.

    ``maps`` are the distances from the map to itself and to its differences to the right,
    downwards and both.
    """
    small, channels = op.small.astype(np.int64), op.small.shape[3]
    rows, offsets, ends = [], [], [0]
    for down in axis_classes(op.window.kernel[0], op.window.stride[0]):
        for right in axis_classes(op.window.kernel[1], op.window.stride[1]):
            mixed = np.einsum("iu,jv,ouvc->oijc", down.mix, right.mix, small)
            base = maps[2 * down.is_difference + right.is_difference]
            for i, y in enumerate(down.at):
                for first, last in right.runs:
                    run = mixed[:, i, first:last].reshape(len(small), -1)
                    rows.append(np.pad(-run, [(0, 0), (0, run.shape[1] % 2)]))
                    start = base + y * row + right.at[first] * pixel
                    offsets.append(start + 4 * np.arange(_words((last - first) * channels)))
            ends.append(sum(map(len, offsets)))
    words = np.ascontiguousarray(np.concatenate(rows, axis=1).astype("<i2")).view("<u4")
    return QuadTaps(
        words.astype(np.uint32),
        np.concatenate(offsets).astype(np.int32),
        np.array(ends, np.int32),
    )


def quad_order(height: int, width: int) -> NDArray[np.intp]:
    """Pixels of a map quad by quad; the last quad twice if their number is odd."""
    at = np.arange(height * width).reshape(height // 2, 2, width // 2, 2)
    quads = at.transpose(0, 2, 1, 3).reshape(-1, 4)
    return np.concatenate([quads, quads[len(quads) - len(quads) % 2 :]]).ravel()
