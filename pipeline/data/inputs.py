"""The images on which runtimes are compared: the test split, or random ones and why."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostbit.export.inputs import Images, random_images
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.console import Bars, Progress, silent
from frostbit.pipeline.data import contents, datasets
from frostbit.pipeline.data.contents import Picture
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run.folder import RunFolder, read_run

PICTURES = 2000
"""Pictures on disk that are compared at most (sets in memory are compared whole)."""
AT_ONCE = 50


@dataclass(frozen=True)
class Place:
    """Where a model's data is, and how it is read.

    Attributes:
        data_dir: folder of the data set's files.
        skip_corrupt: leave out pictures that cannot be decoded, and say which.
        run: run folder that says which pictures the model trained on, if it is the model's.
    """

    data_dir: Path | None = None
    skip_corrupt: bool = False
    run: Path | None = None


@dataclass(frozen=True)
class Inputs:
    """Images to run: the data set's test split with labels, or random ones and why.

    Attributes:
        images: ``[N, H, W, C]``, uint8 or float32, as the model takes them.
        labels: int64 ``[N]``, or None for random images.
        dataset: name of the data set ("" for random images).
        remedy: for random images, why the data set is not used and what to do.
        notes: what a user should know of the images, e.g. how a folder changed.
    """

    images: Images
    labels: NDArray[np.int64] | None
    dataset: str
    remedy: str = ""
    notes: tuple[str, ...] = ()

    def told(self) -> list[str]:
        """Lines for the user: why the images are random ones, and the notes."""
        why = [f"random images; {self.remedy}"] if self.remedy else []
        return [*why, *self.notes]


def as_taken(program: Program, pixels: NDArray[np.uint8]) -> Images:
    """``pixels`` ``[N, H, W, C]`` as ``program`` takes images.

    Raises:
        UserError: it takes floats, and nothing says what pixels become.
    """
    if program.input_kind == "u8":
        return pixels
    if program.preprocessing is None:
        raise UserError(
            "the model takes floats, and its file does not say what pixels become: import it again "
            "with their range, e.g. --range -1..1"
        )
    return program.preprocessing.apply(pixels)


def inputs_for(
    program: Program,
    place: Place,
    seed: int,
    randoms: int = 64,
    bars: Bars = silent,
    most: int | None = None,
) -> Inputs:
    """The test split of the data set that ``program`` was trained on, else random images.

    Args:
        program: names the data set.
        place: where it is looked for, and how it is read.
        seed, randoms: of the random images, and how many.
        bars: progress while pictures are read.
        most: of the test split at most so many; None for the usual number.

    Raises:
        UserError: naming a picture that cannot be decoded.
    """
    remedy = "the model names no data set"
    if program.dataset:
        try:
            test, notes = _test_split(program, place, bars)
        except UserError as error:
            remedy = str(error)
        else:
            if test.image_shape == program.input_shape:
                pixels = _images(test, bars("decoding pictures"), most)
                labels = test.labels[: len(pixels)]
                images = as_taken(program, pixels)
                return Inputs(images, labels, program.dataset, notes=notes)
            remedy = f"the images of {program.dataset} do not fit the model's {program.input_shape}"
    return Inputs(random_images(program, seed, randoms), None, "", remedy)


def _test_split(
    program: Program, place: Place, bars: Bars
) -> tuple[datasets.AnySplit, tuple[str, ...]]:
    height, width, channels = program.input_shape
    known = _trained_on(program, place.run) if program.dataset in datasets.ON_DISK else ()
    photographs = datasets.Photographs((height, width), channels, place.skip_corrupt, known=known)
    return datasets.load_test(program.dataset, place.data_dir, photographs, program.classes, bars)


def _trained_on(program: Program, run: Path | None) -> tuple[Picture, ...]:
    """The pictures of the run that ``program`` came from; none where that is not in ``run``."""
    if run is None or not RunFolder(run).run.is_file():
        return ()
    found = read_run(run)
    if found.facts.get("settled_hash") != program.settled_hash:
        return ()
    known = contents.read_lines(found.folder.pictures)
    if not known:
        raise UserError(
            f"'{run}' has no list of the pictures that it trained on, so none can be tested; "
            "train it again"
        )
    return known


def _images(test: datasets.AnySplit, bar: Progress, most: int | None) -> datasets.Images:
    if isinstance(test, datasets.Split):
        return test.images[:most]
    count = min(len(test), most or PICTURES)
    starts = range(0, count, AT_ONCE)
    return np.concatenate([test.take(range(i, min(i + AT_ONCE, count))) for i in bar(starts)])
