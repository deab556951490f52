"""Building blocks of the standard networks, with random parameters.

Parameters are small integers times a power of two, so :mod:`frostbit.kernels.ir.exact` proves body
and head exact, and scaled so that about half of the bits of every layer are +1. Full-precision
weights have 8 bits and a scale per output channel, as a settled network's. They come from the
raw stream of PCG64, which NumPy keeps the same in all versions: a name and a seed always give the
same Program.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.bits import WORD_BITS, words_for
from frostbit.kernels.ir.integer_weights import INT8_LARGEST
from frostbit.kernels.ir.program import (
    INPUT,
    Affine,
    BinaryConv,
    Conv,
    Dense,
    GlobalSum,
    Op,
    Sign,
    Threshold,
    Window,
)

STEP = 2.0**-12
PIXEL_MEAN = (124, 116, 104)
PIXEL_SPREAD = 74.0  # standard deviation of uniform pixels


def window(kernel: int, stride: int) -> Window:
    """Square window with torchvision's padding, (kernel - 1) / 2 on every side."""
    pad = (kernel - 1) // 2
    return Window((kernel, kernel), (stride, stride), (pad, pad, pad, pad))


@dataclass
class Net:
    """Ops so far, and the source of random parameters; methods return the new value's name."""

    raw: np.random.PCG64
    ops: list[Op] = field(default_factory=list)

    def append(self, op: Op) -> str:
        self.ops.append(op)
        return op.name

    def words(self, *shape: int) -> NDArray[np.uint64]:
        """Random uint64."""
        return np.asarray(self.raw.random_raw(int(np.prod(shape))), np.uint64).reshape(shape)

    def bits(self, *shape: int) -> NDArray[np.uint64]:
        """Random words that hold the last axis of ``shape`` as bits, tail bits 0."""
        *rest, count = shape
        words = self.words(*rest, words_for(count))
        if count % WORD_BITS:
            words[..., -1] &= np.uint64((1 << count % WORD_BITS) - 1)
        return words

    def integers(self, low: int, high: int, *shape: int) -> NDArray[np.int64]:
        """Random int64 in [low, high]."""
        return low + (self.words(*shape) % np.uint64(high - low + 1)).astype(np.int64)

    def around(self, size: float, *shape: int) -> NDArray[np.float32]:
        """Multiples of ``STEP``, evenly spread over [-size, size]."""
        most = max(1, round(size / STEP))
        return (self.integers(-most, most, *shape) * STEP).astype(np.float32)

    def weights(self, size: float, out: int, *shape: int) -> NDArray[np.float32]:
        """Whole numbers of 8 bits ``[out, *shape]`` times a scale per row, over about +-size."""
        step = round(size / STEP / INT8_LARGEST)
        scale = self.integers(max(1, step * 3 // 4), max(1, step * 5 // 4), out) * STEP
        small = self.integers(-INT8_LARGEST, INT8_LARGEST, out, *shape)
        return (small * scale.reshape(-1, *[1] * len(shape))).astype(np.float32)

    def stem(self, kernel: int, stride: int, out: int, shift: float) -> str:
        """Convolution of pixels minus their mean, ``shift`` deviations below 0; its signs."""
        weights = self.integers(-INT8_LARGEST, INT8_LARGEST, out, kernel, kernel, len(PIXEL_MEAN))
        pixel = np.array(PIXEL_MEAN, np.uint8)
        spread = PIXEL_SPREAD * np.sqrt((weights**2).sum(axis=(1, 2, 3)))
        added = -(weights * pixel).sum(axis=(1, 2, 3)) - np.round(shift * spread)
        self.append(
            Conv(
                "conv1", (INPUT,), window(kernel, stride), weights.astype(np.float32),
                added.astype(np.float32), pixel,
            )
        )  # fmt: skip
        return self.append(Sign("sign1", ("conv1",)))

    def binary(
        self, name: str, source: str, window: Window, channels: tuple[int, int], *, last: bool
    ) -> str:
        """Binary convolution of ``channels = (I, O)``; ``last`` keeps the number."""
        inside, out = channels
        taps = window.kernel[0] * window.kernel[1] * inside
        words = self.bits(out, *window.kernel, inside)
        epilogue: Affine | Threshold
        if last:
            one = round(1.0 / (np.sqrt(taps) * STEP))
            mul = self.integers(one // 2, one * 3 // 2, out) * STEP
            epilogue = Affine(mul.astype(np.float32), self.around(0.25, out))
        else:
            most = max(1, round(0.4 * taps**0.5))
            epilogue = Threshold(self.integers(-most, most, out).astype(np.int32))
        return self.append(BinaryConv(name, (source,), window, words, inside, 1, 0, epilogue))

    def head(self, source: str, channels: int, classes: int) -> None:
        """Sum over the map and dense layer."""
        self.append(GlobalSum("sum", (source,)))
        weights = self.weights(INT8_LARGEST * STEP, classes, channels)
        added = self.around(0.25, classes)
        self.append(Dense("fc", ("sum",), weights, added))
