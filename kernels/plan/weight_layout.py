"""Weights and tables in the order in which the micro-kernels read them; made once, at load."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import Affine, BinaryConv, FormatError, Window
from frostbit.kernels.micro.lookup import COUNT_BYTES, GROUP, NIBBLES, PAIRS, TRIPLE
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.micro.xnor import TILE

Value = TypeVar("Value", bound=np.generic)
MAX_ENTRIES = 1 << 26
"""Most entries of a table, half a GiB: far beyond any network for a device."""
MAX_TAPS = 2**16 - 1
"""Most products that a count of 16 bits can hold; layers of more take another micro-kernel."""


def blocks_for(channels: int) -> int:
    """Number of blocks of 32 channels that hold ``channels``."""
    return -(-channels // LANES)


def check_size(count: int, what: str) -> None:
    """Raise FormatError if a table of ``count`` entries is beyond reason (a hostile file)."""
    if count > MAX_ENTRIES:
        raise FormatError(f"too large for the engine: {count} {what}, at most {MAX_ENTRIES}")


def per_lane(values: NDArray[Value]) -> NDArray[Value]:
    """``[..., O]`` with O padded by zeros to whole blocks."""
    extra = blocks_for(values.shape[-1]) * LANES - values.shape[-1]
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, extra)])


def by_block(rows: NDArray[Value], lanes: int = LANES) -> NDArray[Value]:
    """``[O, taps]`` to ``[blocks][taps][32]``, or to smaller groups of ``lanes``."""
    padded = per_lane(rows.T)
    return padded.reshape(padded.shape[0], -1, lanes).transpose(1, 0, 2)


def by_group(
    weights: NDArray[np.float32], groups: int, lanes: int
) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Weights OHWI of a convolution in ``groups`` as ``[O / lanes][taps][lanes]``.

    The channels of one group of lanes read those of a few groups of inputs, side by side; taps
    that not all of its lanes have are 0 for the others.

    Returns:
        The weights, whose taps are ``kh * kw * inputs``, and the first input of each group of
        lanes.
    """
    out, height, width, per_group = weights.shape
    first = np.arange(0, blocks_for(out) * LANES, lanes).clip(max=out - 1)
    of_output = np.arange(out) // (out // groups)
    reads = of_output[(first + lanes - 1).clip(max=out - 1)] - of_output[first] + 1
    inputs = int(reads.max()) * per_group
    check_size(len(first) * height * width * inputs * lanes, "weights of a grouped convolution")
    start = np.minimum(of_output[first] * per_group, groups * per_group - inputs)
    found = np.zeros((len(first), height, width, inputs, lanes), np.float32)
    for channel, kernel in enumerate(weights):
        group, lane = divmod(channel, lanes)
        at = of_output[channel] * per_group - start[group]
        found[group, :, :, at : at + per_group, lane] = kernel
    return found.reshape(len(first), -1, lanes), start


def binary_rows(op: BinaryConv) -> NDArray[np.uint32]:
    """Packed weights as uint32 ``[O, kh * kw * words]``, 32 input channels a word."""
    halves = np.ascontiguousarray(op.words.astype("<u8")).view("<u4")
    return halves[..., : blocks_for(op.channels_in)].reshape(op.channels_out, -1)


def tap_offsets(window: Window, row: int, pixel: int, values: int) -> NDArray[np.int32]:
    """Distance in bytes of each 4-byte tap value from its output pixel's first tap."""
    down = np.arange(window.kernel[0])[:, None, None] * window.dilation[0] * row
    right = np.arange(window.kernel[1])[:, None] * window.dilation[1] * pixel
    return (down + right + 4 * np.arange(values)).astype(np.int32).ravel()


def pixel_distances(size: tuple[int, int], down: int, right: int) -> NDArray[np.int32]:
    """Distance in bytes of each pixel of a map of ``size``, row by row: int32 ``[H * W]``."""
    ys, xs = np.arange(size[0])[:, None], np.arange(size[1])
    return (ys * down + xs * right).astype(np.int32).ravel()


def pixel_table(columns: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """int32 ``[pixels rounded up to TILE][4]``; the last pixel is repeated."""
    stacked = np.stack(columns, axis=1)
    return np.pad(stacked, [(0, -len(stacked) % TILE), (0, 0)], mode="edge")


def _valid_taps(
    out: int, size: int, taps: int, stride: int, dilation: int, pad: int
) -> NDArray[np.bool_]:
    """bool ``[out, taps]``: whether the tap lies inside the map, along one axis."""
    check_size(out * taps, "windows times taps along one axis")
    at = np.arange(out)[:, None] * stride + np.arange(taps) * dilation - pad
    return np.asarray((at >= 0) & (at < size))


def accumulator_starts(
    op: BinaryConv, size: tuple[int, int]
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Accumulators at 0 mismatches, by class of output pixel.

    Padded taps are stored as +1. Where the Program pads with 0 their products are taken off
    again: ``acc = K - 2 * mismatches - sum of the weights of padded taps``. Pixels with the same
    padded taps form a class; the inner pixels are one.

    Returns:
        int32 ``[classes, O]``, and the class of each output pixel, int32 ``[OH * OW]``.

    Raises:
        FormatError: if there are more than ``MAX_ENTRIES`` of either.
    """
    window = op.window
    out = window.output(*size)
    if op.pad_value == 1 or not any(window.pads):
        starts = np.full((1, op.channels_out), op.taps, np.int32)
        return starts, np.zeros(out[0] * out[1], np.int32)
    sums = op.channels_in - 2 * bits.popcount(op.words)  # [O, kh, kw]
    axes = []
    for axis in (0, 1):
        valid = _valid_taps(
            out[axis],
            size[axis],
            window.kernel[axis],
            window.stride[axis],
            window.dilation[axis],
            window.pads[axis],
        )
        axes.append(np.unique(valid, axis=0, return_inverse=True))
    (rows, row_class), (columns, column_class) = axes
    check_size(len(rows) * len(columns) * op.channels_out, "accumulator starts")
    inside = np.einsum(
        "yi,xj,oij->yxo", rows.astype(np.int64), columns.astype(np.int64), sums, optimize=True
    )
    starts = op.taps - (sums.sum(axis=(1, 2)) - inside)
    classes = row_class.reshape(-1, 1) * len(columns) + column_class.reshape(1, -1)
    return starts.reshape(-1, op.channels_out).astype(np.int32), classes.astype(np.int32).ravel()


def sign_levels(
    epilogue: Affine, shift: float, taps: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The sign of ``mul * clip(acc) + add + shift`` as a threshold on the accumulator.

    Rounded as the reference rounds it, that number never falls (``mul >= 0``) or never rises as
    ``acc`` grows, so bisection finds the one place where its sign changes.

    Args:
        epilogue: of a convolution whose sum and sign nobody else needs.
        shift: what is added: the +1 or -1 of a residual of bits, or 0.
        taps: the largest accumulator.

    Returns:
        ``level`` int64 ``[O]`` and ``falls`` bool ``[O]``: the sign is +1 where
        ``acc >= level``, but where ``falls`` it is -1 there and +1 below.
    """
    mul, added = epilogue.mul.astype(np.float64), epilogue.add.astype(np.float64)
    falls = mul < 0
    low, high = np.full(mul.shape, -taps), np.full(mul.shape, taps + 1)
    while (low < high).any():
        middle = (low + high) >> 1
        acc = np.clip(middle, epilogue.low, epilogue.high)
        value = (acc * mul + added).astype(np.float32) + np.float32(shift)
        reached = (value >= 0) != falls
        low, high = np.where(reached, low, middle + 1), np.where(reached, middle, high)
    return low, falls


def threshold_limits(
    level: NDArray[np.signedinteger], starts: NDArray[np.int32], taps: int
) -> NDArray[np.int32]:
    """Largest number of mismatches with ``acc >= level``, int32 ``[classes, lanes]``.

    ``start - 2 * m >= level`` is ``m <= floor((start - level) / 2)``; spare lanes always are.
    """
    limits = (starts.astype(np.int64) - level) >> 1
    extra = blocks_for(starts.shape[1]) * LANES - starts.shape[1]
    padded = np.pad(limits, [(0, 0), (0, extra)], constant_values=taps)
    return padded.astype(np.int32)


def lane_offsets(out: int, groups: int, values: int) -> NDArray[np.int32]:
    """Distance in bytes of each output channel's group within a pixel.

    A group of input channels takes ``values`` words of bits (in a regrouped map) or floats.
    """
    group = np.arange(out) // (out // groups)
    return per_lane((4 * values * group).astype(np.int32))


def lookup_tables() -> NDArray[np.uint8]:
    """All tables of the look-up, uint8 ``[256, 16]``: row ``a1 + 16 * a2``, column w."""
    nibble = np.arange(16, dtype=np.uint8)
    count = np.bitwise_count(nibble[:, None] ^ nibble)
    both = count[None, :, :] + 16 * count[:, None, :]
    return np.asarray(both.reshape(256, 16), np.uint8)


def padded_nibbles(words: int) -> int:
    """Nibbles of ``words`` tap words, rounded up to whole triples."""
    return -(-NIBBLES * words // TRIPLE) * TRIPLE


def index_bytes(words: int) -> int:
    """Bytes of the indices of one pair: 16 bits a nibble, and zeros for the last triple."""
    return 2 * NIBBLES * (words + 1)


def scratch_bytes(words: int) -> int:
    """Working memory of a layer with ``words`` tap words: counts, then indices of a group."""
    return COUNT_BYTES + GROUP * PAIRS * index_bytes(words)


def nibble_rows(rows: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Weights uint32 ``[O, words]`` as uint8 ``[O, nibbles]``, padded to whole triples."""
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    split = ((rows[:, :, None] >> shifts) & np.uint32(15)).astype(np.uint8)
    flat = split.reshape(len(rows), -1)
    return np.pad(flat, [(0, 0), (0, padded_nibbles(rows.shape[1]) - flat.shape[1])])


def is_paired(window: Window, values: int) -> bool:
    """Whether the tap words lie side by side two by two; ``values`` words in a pixel."""
    joined = values * (window.kernel[1] if window.dilation[1] == 1 else 1)
    return joined % 2 == 0
