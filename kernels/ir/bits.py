"""The bit convention of Frostbit, written once.

* Bit 1 means -1, bit 0 means +1, so ``sign(0) = sign(-0.0) = +1``.
* Channels are packed along the last axis, least significant bit first, into
  little-endian uint64 words: channel ``c`` is bit ``c % 64`` of word ``c // 64``.
* Tail bits beyond the last channel are 0 in both operands, so that
  ``dot(a, b) = K - 2 * popcount(a xor b)`` holds with no tail mask.

This is Larq Compute Engine's convention (``core/types.h``, ``core/bitpacking/bitpack.h``
of larq/compute-engine): two of its int32 words are one of our uint64 words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD_BITS = 64

Words = NDArray[np.uint64]


def words_for(channels: int) -> int:
    """Number of uint64 words that hold ``channels`` bits."""
    return -(-channels // WORD_BITS)


def pack(values: NDArray[Any]) -> Words:
    """Pack the signs of ``values`` along the last axis.

    Args:
        values: numeric array ``[..., C]``; an entry below 0 becomes bit 1, any other bit 0.

    Returns:
        uint64 array ``[..., ceil(C / 64)]`` with tail bits 0.

    Raises:
        ValueError: if an entry is NaN, which has no sign.
    """
    if np.issubdtype(values.dtype, np.floating) and np.isnan(values).any():
        raise ValueError("cannot pack NaN: it has no sign")
    negative = values < 0
    channels = negative.shape[-1]
    padded = np.zeros((*negative.shape[:-1], words_for(channels) * WORD_BITS), dtype=np.bool_)
    padded[..., :channels] = negative
    packed = np.packbits(padded, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<u8").astype(np.uint64, copy=False)


def unpack(words: Words, channels: int) -> NDArray[np.int8]:
    """Inverse of :func:`pack`: uint64 ``[..., W]`` to int8 ``[..., channels]`` of +1 and -1."""
    as_bytes = np.ascontiguousarray(words.astype("<u8", copy=False)).view(np.uint8)
    bits = np.unpackbits(as_bytes, axis=-1, bitorder="little")[..., :channels]
    return (1 - 2 * bits.astype(np.int8)).astype(np.int8)


def tail_is_clear(words: Words, channels: int) -> bool:
    """Whether every bit beyond ``channels`` in the last word of ``[..., W]`` is 0."""
    used = channels % WORD_BITS
    if used == 0 or words.size == 0:
        return True
    return not bool((words[..., -1] >> np.uint64(used)).any())


def popcount(words: Words) -> NDArray[np.int64]:
    """Number of 1 bits over the last axis: uint64 ``[..., W]`` to int64 ``[...]``."""
    counts: NDArray[np.int64] = np.bitwise_count(words).sum(axis=-1, dtype=np.int64)
    return counts
