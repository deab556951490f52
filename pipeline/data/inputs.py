"""The images on which runtimes are compared: the test split, or random ones and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.program import Program
from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import UserError

PICTURES = 2000
"""Pictures on disk that are compared at most (sets in memory are compared whole)."""


@dataclass(frozen=True)
class Inputs:
    """Images to run: the data set's test split with labels, or random ones and why.

    Attributes:
        images: uint8 ``[N, H, W, C]``.
        labels: int64 ``[N]``, or None for random images.
        dataset: name of the data set ("" for random images).
        remedy: for random images, why the data set is not used and what to do.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    dataset: str
    remedy: str = ""


def random_images(program: Program, seed: int, count: int) -> NDArray[np.uint8]:
    """Seeded random images uint8 ``[count, H, W, C]`` of the program's input shape."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, *program.input_shape), dtype=np.uint8)


def inputs_for(program: Program, data_dir: Path | None, seed: int, randoms: int = 64) -> Inputs:
    """The test split of the data set that ``program`` was trained on, else random images."""
    remedy = "the model names no data set"
    if program.dataset:
        try:
            photographs = datasets.Photographs(program.input_shape[0])
            test = datasets.load(program.dataset, data_dir, photographs=photographs).test
        except UserError as error:
            remedy = str(error)
        else:
            if test.image_shape == program.input_shape:
                count = len(test) if isinstance(test, datasets.Split) else min(len(test), PICTURES)
                return Inputs(test.take(range(count)), test.labels[:count], program.dataset)
            remedy = f"the images of {program.dataset} do not fit the model's {program.input_shape}"
    return Inputs(random_images(program, seed, randoms), None, "", remedy)
