"""Full-precision convolutions in integers: which, and how their weights, taps and sums are stored.

:mod:`frostbit.kernels.micro.integers` counts ``sum of (x + offset) * -w`` over whole numbers w. So
the layer's sum is ``S = -count - offset * sum of w``, and as accumulator of a binary convolution's
epilogue ``2 * S = start - 2 * count`` with factor ``scale / 2``.

A run of values that lie side by side goes four bytes at a time; its end is filled up with weights
of 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.integer_weights import LARGEST, as_int8, as_int16
from frostbit.kernels.ir.program import Affine, Conv, Window
from frostbit.kernels.micro.integers import HAS_INT16, INT8_KINDS, byte_offset

MOST_IN_A_SUM = 2**30
"""Twice a sum, and the accumulator's start, are int32."""
MOST_IN_A_LANE = 2**15 - 1
"""Of a depthwise layer, whose sums are int16."""
SIZES = {t.INT16: 2, t.INT8: 1, t.LANES16: 2}
"""Bytes of an activation, by micro-kernel."""


@dataclass(frozen=True, eq=False, kw_only=True)
class WholeConv(Conv):
    """A convolution whose weights are ``small * scale``.

    Attributes:
        small: integers OHWI.
        scale: float32 ``[O]``.
        micro: ``op_table.INT16``, ``INT8`` or ``LANES16``.
        offset: what is added to a value of its input before it is stored.
    """

    small: NDArray[np.integer]
    scale: NDArray[np.float32]
    micro: int
    offset: int

    def starts(self) -> NDArray[np.int32]:
        """Accumulators at a count of 0, int32 ``[1, O]``."""
        sums = self.small.reshape(len(self.small), -1).sum(axis=1, dtype=np.int64)
        return np.asarray(-2 * self.offset * sums, np.int32)[None]

    def epilogue(self) -> Affine:
        """From accumulators to results."""
        return Affine(self.scale / np.float32(2), self.add)

    @property
    def bound(self) -> int:
        """Largest absolute accumulator, for any input."""
        return 2 * _most(self.small, 255)


def _most(small: NDArray[np.integer], largest: int) -> int:
    """Largest absolute sum of products with values up to ``largest``."""
    sizes = np.abs(small.astype(np.int64)).reshape(len(small), -1)
    return int(sizes.sum(axis=1).max()) * largest


def _found(op: Conv, kind: str) -> tuple[NDArray[np.integer], NDArray[np.float32], bool] | None:
    """Whole weights with their scales, and whether they have 8 bits."""
    bytes_ = as_int8(op.weights)
    if bytes_ is not None:
        return *bytes_, True
    halves = as_int16(op.weights, LARGEST[kind])
    if halves is None:
        return None
    small, exponent = halves
    return small, np.full(len(small), 2.0**-exponent, np.float32), False


def as_whole(op: Conv, kind: str) -> WholeConv | None:
    """The convolution in integers, if this CPU has a micro-kernel for it and no sum overflows.

    Args:
        op: reads a map of ``kind``.
        kind: ``u8``, ``bits`` or ``f32``.
    """
    if kind not in LARGEST:
        return None
    found = _found(op, kind)
    if found is None or ((found[1] / np.float32(2)) * np.float32(2) != found[1]).any():
        return None
    small, scale, is_int8 = found
    is_depthwise = op.groups > 1 and len(small) == op.groups and small.shape[3] == 1
    micro, offset = t.INT16, 0
    if is_depthwise and kind == "bits" and _most(small, 1) <= MOST_IN_A_LANE:
        micro = t.LANES16
    elif op.groups > 1:
        return None
    elif is_int8 and kind in INT8_KINDS:
        micro, offset = t.INT8, byte_offset(kind)
    elif not HAS_INT16:
        return None
    if _most(small, 255 if kind == "u8" else 2) >= MOST_IN_A_SUM:
        return None
    return WholeConv(**vars(op), small=small, scale=scale, micro=micro, offset=offset)


def is_joined(op: WholeConv, pixel: int) -> bool:
    """Whether a kernel row's taps lie side by side in a map of ``pixel`` bytes a pixel."""
    return pixel == SIZES[op.micro] * op.small.shape[3] and op.window.dilation[1] == 1


def word_rows(op: WholeConv, joined: bool) -> NDArray[np.uint32]:
    """Negated weights as uint32 ``[O, taps]``: two or four in a word.

    A run is a row of taps, or one tap.
    """
    out, height, _, channels = op.small.shape
    dtype, per_word = ("<i1", 4) if op.micro == t.INT8 else ("<i2", 2)
    runs = op.small.reshape(out, height, -1) if joined else op.small.reshape(out, -1, channels)
    runs = np.pad(-runs.astype(dtype), [(0, 0), (0, 0), (0, -runs.shape[2] % per_word)])
    return np.ascontiguousarray(runs).reshape(out, -1).view("<u4").astype(np.uint32)


def word_offsets(op: WholeConv, row: int, pixel: int, joined: bool) -> NDArray[np.int32]:
    """Distance in bytes of each word from its output pixel's first tap."""
    window, channels = op.window, op.small.shape[3]
    down = np.arange(window.kernel[0])[:, None, None] * window.dilation[0] * row
    taps = 1 if joined else window.kernel[1]
    right = np.arange(taps)[:, None] * window.dilation[1] * pixel
    values = channels * window.kernel[1] if joined else channels
    words = -(-values * SIZES[op.micro] // 4)
    return np.asarray(down + right + 4 * np.arange(words), np.int32).ravel()


def lane_rows(op: WholeConv) -> NDArray[np.int16]:
    """Negated weights of a depthwise convolution, int16 ``[O, taps]``."""
    return -op.small.reshape(len(op.small), -1).astype(np.int16)


def lane_offsets(window: Window, row: int, pixel: int) -> NDArray[np.int32]:
    """Distance in bytes of each tap of a depthwise convolution from its output pixel's first."""
    down = np.arange(window.kernel[0])[:, None] * window.dilation[0] * row
    right = np.arange(window.kernel[1]) * window.dilation[1] * pixel
    return (down + right).astype(np.int32).ravel()
