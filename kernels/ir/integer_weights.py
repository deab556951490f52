"""Full-precision weights that are whole numbers of few bits, times a scale.

A settled network's are: its numbers lie on a grid ``2**-s``, and its layers of 8 bits on a coarser
one per output channel. The float32 numbers say so themselves; no other mark is kept. What is found
here decides how a layer is stored (one byte a weight) and by which kernel it is computed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.exact import grid_exponent
from frostbit.kernels.ir.program import FormatError

INT8_LARGEST = 127
"""Of a weight of 8 bits: symmetric, -128 is not used."""
LARGEST = {"u8": 255, "bits": 1}
"""Largest value of a map that is summed in integers, by its kind."""
_AT_ONCE = 1 << 20
"""Weights that are looked at in wider numbers at a time."""


def as_int16(weights: NDArray[np.float32], largest: int) -> tuple[NDArray[np.int16], int] | None:
    """Weights ``[O, ...]`` as multiples of ``2**-s``, and s; None if they do not fit.

    A sum of products with values up to ``largest`` then fits int32, whatever the order.
    """
    exponent = grid_exponent(weights)
    steps = weights.astype(np.float64) * 2.0**exponent
    if exponent > 100 or np.abs(steps).max() > np.iinfo(np.int16).max:
        return None
    return (steps.astype(np.int16), exponent) if fits_int32(steps, largest) else None


def fits_int32(whole: NDArray[np.generic], largest: int) -> bool:
    """Whether int32 holds every sum of ``whole`` weights ``[O, ...]`` times values to ``largest``.

    Partial sums included, in any order.
    """
    size = np.abs(whole.astype(np.float64)).reshape(len(whole), -1)
    return float(size.sum(axis=1).max()) * largest < 2**31


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
    rows = weights.reshape(len(weights), -1)
    small, scale = np.empty(rows.shape, np.int8), np.empty(len(rows), np.float32)
    step = max(1, _AT_ONCE // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found = _divided(rows[part].astype(np.float64))
        if found is None:
            return None
        small[part], scale[part] = found
    return small.reshape(weights.shape), scale


def _divided(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Some rows as whole numbers of 8 bits and a divisor each; None if they are none."""
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
    return small, np.where(largest > 0, np.ldexp(divisor.astype(np.float64), -exponent), 1.0)


def from_int8(
    small: NDArray[np.int8], scale: NDArray[np.generic] | None, what: str
) -> NDArray[np.float32]:
    """The weights of which :func:`as_int8` made ``small`` and ``scale``, as read from a file.

    Raises:
        FormatError: beginning with ``what``: it makes that of no weights. A scale is missing, of
            another type or shape, not above 0, infinite or not the greatest, -128 is used, or a
            product would round.
    """
    if small.ndim < 2 or not small.size:
        raise FormatError(f"{what} in int8 must be [O, ...]")
    if scale is None or scale.dtype != np.float32 or scale.shape != small.shape[:1]:
        raise FormatError(f"{what} in int8 need a float32 scale per output channel")
    factors = scale.astype(np.float32).reshape(-1, *[1] * (small.ndim - 1))
    with np.errstate(all="ignore"):
        weights: NDArray[np.float32] = small.astype(np.float32) * factors
    found = as_int8(weights)
    if found is None or not (np.array_equal(found[0], small) and np.array_equal(found[1], scale)):
        raise FormatError(f"{what} in int8 are not as they are written")
    return weights
