"""Full-precision weights that are whole numbers of few bits, times a scale.

A settled network's are: its numbers lie on a grid ``2**-s``, and its layers of 8 bits on a coarser
one per output channel. The float32 numbers say so themselves; no other mark is kept. What is found
here decides how a layer is stored (one byte a weight) and by which kernel it is computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.exact import grid_exponent

INT8_LARGEST = 127
"""Of a weight of 8 bits: symmetric, -128 is not used."""
LARGEST = {"u8": 255, "bits": 1}
"""Largest value of a map that is summed in integers, by its kind."""


def as_int16(weights: NDArray[np.float32], largest: int) -> tuple[NDArray[np.int16], int] | None:
    """Weights ``[O, ...]`` as multiples of ``2**-s``, and s; None if they do not fit.

    A sum of products with values up to ``largest`` then fits int32, whatever the order.
    """
    exponent = grid_exponent(weights)
    steps = weights.astype(np.float64) * 2.0**exponent
    size = np.abs(steps).reshape(len(steps), -1)
    most_in_a_sum = float(size.sum(axis=1).max()) * largest
    if exponent > 100 or size.max() > np.iinfo(np.int16).max or most_in_a_sum >= 2**31:
        return None
    return steps.astype(np.int16), exponent


def as_int8(
    weights: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]] | None:
    """Weights ``[O, ...]`` as ``small * scale``, one scale per output channel.

    The product is exact: ``float32(small) * scale`` gives back ``weights`` bit for bit (-0 aside).
    The scale is the greatest that divides a channel's weights; 1 where all are 0.

    Returns:
        ``small`` int8 of the shape of ``weights``, in -127..127, and ``scale`` float32 ``[O]``,
        above 0; None if some channel needs more bits.
    """
    rows = weights.reshape(len(weights), -1).astype(np.float64)
    if not np.isfinite(rows).all():
        return None
    largest = np.abs(rows).max(axis=1, initial=0.0)
    # 53 bits below a channel's largest weight: what lies finer has too many bits anyway.
    exponent = 52 - np.frexp(np.where(largest > 0, largest, 1.0))[1]
    steps = np.ldexp(rows, exponent[:, None])
    if (steps != np.rint(steps)).any():
        return None
    whole = steps.astype(np.int64)
    divisor = np.maximum(np.gcd.reduce(whole, axis=1), 1)
    small = whole // divisor[:, None]
    if np.abs(small).max(initial=0) > INT8_LARGEST:
        return None
    scale = np.where(largest > 0, np.ldexp(divisor.astype(np.float64), -exponent), 1.0)
    return small.astype(np.int8).reshape(weights.shape), scale.astype(np.float32)
