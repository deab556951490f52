"""Weights and taps of the integer convolution as :mod:`frostbit.kernels.micro.integers` reads them.

A run of values that lie side by side goes in pairs; one of odd length gets a weight of 0 at its
end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.integer_weights import LARGEST, as_int16
from frostbit.kernels.ir.program import Conv, Window
from frostbit.kernels.micro.integers import HAS_INTEGERS


def integer_weights(op: Conv, kind: str) -> tuple[NDArray[np.int16], int] | None:
    """:func:`as_int16` of a convolution that this micro-kernel can do; else None."""
    if not HAS_INTEGERS or op.groups > 1 or kind not in LARGEST:
        return None
    return as_int16(op.weights, LARGEST[kind])


def _runs(weights: NDArray[np.int16], joined: bool) -> NDArray[np.int16]:
    """OHWI as ``[O, runs, values]``, values even: a run is a row of taps, or one tap."""
    out, height, _, channels = weights.shape
    runs = weights.reshape(out, height, -1) if joined else weights.reshape(out, -1, channels)
    return np.pad(runs, [(0, 0), (0, 0), (0, runs.shape[2] % 2)])


def is_joined(window: Window, pixel: int, channels: int) -> bool:
    """Whether a kernel row's taps lie side by side in a map of ``pixel`` bytes a pixel."""
    return pixel == 2 * channels and window.dilation[1] == 1


def pair_rows(weights: NDArray[np.int16], joined: bool) -> NDArray[np.uint32]:
    """Weights as uint32 ``[O, pairs]``."""
    runs = np.ascontiguousarray(_runs(weights, joined))
    return runs.reshape(len(runs), -1).astype("<i2").view("<u4").astype(np.uint32)


def pair_offsets(
    window: Window, row: int, pixel: int, channels: int, joined: bool
) -> NDArray[np.int32]:
    """Distance in bytes of each pair from its output pixel's first tap."""
    down = np.arange(window.kernel[0])[:, None, None] * window.dilation[0] * row
    taps = 1 if joined else window.kernel[1]
    right = np.arange(taps)[:, None] * window.dilation[1] * pixel
    values = channels * window.kernel[1] if joined else channels
    return np.asarray(down + right + 4 * np.arange(-(-values // 2)), np.int32).ravel()
