"""Where values lie: the layout of each map, and the arena that they share.

A map is ``[H, W]`` pixels with optional margins; a pixel holds whole blocks of 32 channels
(one word of bits, or 128 bytes of float32), so that every kernel works on whole blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.program import FormatError

ALIGNMENT = 64
"""A cache line, and the widest vector."""
MAX_BYTES = 2**31 - ALIGNMENT
"""Distances inside a map are int32."""


@dataclass(frozen=True)
class Layout:
    """Bytes of one map.

    Attributes:
        size: ``(H, W)`` in pixels, margins not counted.
        pixel: bytes of a pixel.
        block: bytes of 32 channels.
        margins: ``(top, left, bottom, right)`` in pixels.
    """

    size: tuple[int, int]
    pixel: int
    block: int
    margins: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def row(self) -> int:
        """Bytes from one row to the next."""
        return self.pixel * (self.size[1] + self.margins[1] + self.margins[3])

    @property
    def bytes(self) -> int:
        return self.row * (self.size[0] + self.margins[0] + self.margins[2])

    @property
    def origin(self) -> int:
        """Bytes from the start to pixel (0, 0)."""
        return self.margins[0] * self.row + self.margins[1] * self.pixel


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def place(
    layouts: Mapping[str, Layout], spans: Mapping[str, tuple[int, int]], head: int, reuse: bool
) -> tuple[dict[str, int], int]:
    """Give each value its place: the largest first, each as low as it fits.

    Args:
        layouts: layout of each value.
        spans: first and last step that needs it.
        head: bytes taken at the start.
        reuse: whether values that never live together may share memory.

    Returns:
        Byte offset of each value, and the size of the arena.

    Raises:
        FormatError: if a value or the arena is larger than 2 GiB.
    """
    offsets: dict[str, int] = {}
    end = _aligned(head)
    for name in sorted(spans, key=lambda name: (-layouts[name].bytes, name)):
        size = _aligned(layouts[name].bytes)
        first, last = spans[name]
        taken = sorted(
            (offsets[other], offsets[other] + _aligned(layouts[other].bytes))
            for other in offsets
            if not reuse or (spans[other][0] <= last and first <= spans[other][1])
        )
        at = _aligned(head)
        for start, stop in taken:
            if at + size <= start:
                break
            at = max(at, stop)
        offsets[name] = at
        end = max(end, at + size)
    if end > MAX_BYTES:
        raise FormatError(f"this network needs {end} bytes of working memory, more than 2 GiB")
    return offsets, end


def allocate(size: int) -> NDArray[np.uint8]:
    """``size`` zero bytes whose address is a multiple of ``ALIGNMENT``."""
    raw = np.zeros(size + 2 * ALIGNMENT, np.uint8)  # a kernel may read some bytes past a map
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]


class Constants:
    """Collects weights and tables into one block; equal arrays are kept once."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._places: dict[bytes, int] = {}
        self._size = 0

    def add(self, array: NDArray[np.generic]) -> int:
        """Append the bytes of ``array``; returns their offset, a multiple of ``ALIGNMENT``."""
        content = np.ascontiguousarray(array).tobytes()
        if content not in self._places:
            self._places[content] = self._size
            padded = content.ljust(_aligned(len(content)), b"\0")
            self._parts.append(padded)
            self._size += len(padded)
        return self._places[content]

    def block(self) -> NDArray[np.uint8]:
        """All of it, aligned."""
        whole = allocate(max(self._size, ALIGNMENT))
        whole[: self._size] = np.frombuffer(b"".join(self._parts), np.uint8)
        return whole
