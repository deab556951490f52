"""Images as a model takes them, and seeded random ones for runtimes without a data set."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.program import Preprocessing, Program

Images = NDArray[np.uint8 | np.float32]
"""``[N, H, W, C]``: pixels, or the floats that an imported model takes."""
FLOAT_RANGE = (-1.0, 1.0)
"""Of images for a model that takes floats and whose file does not say what pixels become."""


def random_images(program: Program, seed: int, count: int) -> Images:
    """Random images ``[count, H, W, C]`` of ``program``'s input: pixels, or what they become."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, *program.input_shape), dtype=np.uint8)
    if program.input_kind == "u8":
        return pixels
    known = program.preprocessing
    return (known or Preprocessing.of_range(*FLOAT_RANGE, program.input_shape[2])).apply(pixels)
