"""Random inputs that look different from each other: noise of several sizes, one on another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

GRAINS = (1, 3, 8, 21, 64)
"""Pixels of a side of one blot, the smallest first."""


def images(
    seed: int, number: int, shape: tuple[int, int, int], low: float, high: float
) -> NDArray[np.float32]:
    """Inputs ``[number, *shape]`` float32 within ``low`` and ``high``."""
    rng = np.random.default_rng(seed)
    height, width, channels = shape
    total = np.zeros((number, *shape))
    for grain in GRAINS:
        blots = rng.normal(size=(number, -(-height // grain), -(-width // grain), channels))
        total += blots.repeat(grain, 1).repeat(grain, 2)[:, :height, :width]
    share = np.clip(total / (2 * np.sqrt(len(GRAINS))), -1, 1) / 2 + 0.5
    return (low + share * (high - low)).astype(np.float32)
