"""Splits and data sets as every other module sees them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from frostbit.pipeline.data.contents import Picture
from frostbit.pipeline.errors import UserError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
DATA_VARIABLE = "FROSTBIT_DATA"


class AnySplit(Protocol):
    """A part of a data set, in memory (:class:`Split`) or on disk (``FolderSplit``)."""

    @property
    def labels(self) -> Labels:
        """int64 ``[N]``."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        ...

    def __len__(self) -> int: ...

    def take(self, indices: Sequence[int]) -> Images:
        """Images by number as they are evaluated, not augmented: uint8 ``[n, H, W, C]``."""
        ...

    def first(self, count: int) -> AnySplit:
        """The first ``count`` images, all for 0; UserError if there are fewer."""
        ...


@dataclass(frozen=True, eq=False)
class Split:
    """A split in memory: images uint8 ``[N, H, W, C]`` and labels int64 ``[N]``."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        height, width, channels = self.images.shape[1:]
        return height, width, channels

    def take(self, indices: Sequence[int]) -> Images:
        """Images by number; a range gives a view."""
        if isinstance(indices, range):
            return self.images[indices.start : indices.stop : indices.step]
        return self.images[indices]

    def first(self, count: int) -> Split:
        """The first ``count`` images, all for 0; UserError if there are fewer."""
        require(count, len(self))
        return Split(self.images[:count], self.labels[:count]) if count else self


def require(count: int, there: int) -> None:
    """UserError if more images are asked for than there are."""
    if count > there:
        raise UserError(f"train_images={count}, but there are {there}; ask for fewer")


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes:
        name: as given to :func:`frostbit.pipeline.data.datasets.load`.
        train, validation, test: the splits.
        classes: one name per label.
        mean, std: per channel, of pixels / 255 over the training split.
        notes: what a user should know, e.g. which files were skipped.
        pictures: of a set on disk: its files, and the part of each.
    """

    name: str
    train: AnySplit
    validation: AnySplit
    test: AnySplit
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        return self.test.image_shape


def shuffled(count: int) -> NDArray[np.int64]:
    """A fixed permutation of ``range(count)``, the same on every machine and version."""
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


def pick(split: Split, order: NDArray[np.int64]) -> Split:
    """A copy of the images in ``order``."""
    return Split(np.ascontiguousarray(split.images[order]), split.labels[order])


def statistics(images: Images) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of pixels / 255, rounded to 4 digits."""
    pixels = images.reshape(-1, images.shape[3]).astype(np.float64) / 255
    mean = tuple(round(float(m), 4) for m in pixels.mean(axis=0))
    return mean, tuple(round(float(s), 4) for s in pixels.std(axis=0))


def in_memory(
    name: str, train: Split, validation: Split, test: Split, classes: tuple[str, ...]
) -> Dataset:
    """A data set of splits in memory; mean and std are those of the training split."""
    mean, std = statistics(train.images)
    return Dataset(name, train, validation, test, classes, mean, std)


def cache_folder() -> Path:
    """Where downloads and decoded images go: ``frostbit`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "frostbit"


def asked_folder(data_dir: Path | None) -> Path | None:
    """The folder of ``--data-dir``, else of $FROSTBIT_DATA, else None."""
    named = os.environ.get(DATA_VARIABLE)
    return data_dir or (Path(named) if named else None)
