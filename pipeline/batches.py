"""Order and augmentation of training images: a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.data import Images, Labels, Split


class Batches:
    """Shuffled batches of a split; the images of a last, incomplete batch wait for next epoch.

    Args:
        split: training images.
        batch: images per batch; at most the number of images is used.
        seed: of order and augmentation.
        shift: images move by -shift..shift pixels each way; black (0) moves in.
    """

    def __init__(self, split: Split, batch: int, seed: int, shift: int = 0) -> None:
        self.labels, self.seed, self.shift = split.labels, seed, shift
        self.batch = min(batch, len(split))
        self.steps_per_epoch = len(split) // self.batch
        pads = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        self._padded = np.pad(split.images, pads) if shift else split.images
        self._windows = self._view(split.images.shape[1:3])

    def _view(self, size: tuple[int, ...]) -> NDArray[np.uint8]:
        """``[N, dy, dx, H, W, C]``: every shifted position of every image, without a copy."""
        windows = np.lib.stride_tricks.sliding_window_view(self._padded, size, axis=(1, 2))
        return np.moveaxis(windows, 3, 5)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Images, Labels]]:
        """Batches of one epoch from ``first`` on: uint8 ``[B, H, W, C]`` and int64 ``[B]``."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.labels))
        moves = rng.integers(0, 2 * self.shift + 1, (2, len(order)))
        for step in range(first, self.steps_per_epoch):
            part = slice(step * self.batch, (step + 1) * self.batch)
            chosen = order[part]
            yield self._windows[chosen, moves[0, part], moves[1, part]], self.labels[chosen]
