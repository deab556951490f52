"""Tables, weights and room of the look-up, as :mod:`frostbit.kernels.micro.lookup` reads them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.program import Window
from frostbit.kernels.micro.lookup import COUNT_BYTES, GROUP, NIBBLES, PAIRS, TRIPLE

MAX_TAPS = 2**16 - 1
"""Most products that a count of 16 bits can hold; layers of more take another micro-kernel."""


def tables() -> NDArray[np.uint8]:
    """All tables, uint8 ``[256, 16]``: row ``a1 + 16 * a2``, column w."""
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
