"""Data sets behind one function: :func:`load` gives uint8 images, labels and stated splits.

======================  =======  ==========  ======  =====================================
data set                train    validation  test    source
======================  =======  ==========  ======  =====================================
``digits`` (8x8x1)       1,197         240     360   scikit-learn, in its wheel
``fashion-mnist``       55,000       5,000  10,000   IDX files; their own test files
(28x28x1)
``fashion-mnist-14``     55,000       5,000  10,000  the same, averaged 2x2 once and rounded
(14x14x1)
``cifar10``,            45,000       5,000  10,000   the binary version of the archives
``cifar100`` (32x32x3)
``imagenet``            9 in 10   1 in 10   "val"    a folder with train/WNID and val/WNID
``folder``              8 in 10   1 in 10   1 in 10  a folder per class; see data_folder
======================  =======  ==========  ======  =====================================

Splits follow a fixed shuffle of the image numbers. Settings are chosen on the validation split;
the test split is looked at once, when a run is finished.

Loading what fits in memory needs neither torch nor, but for ``digits``, scikit-learn.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from frostbit.pipeline.data.cifar import cifar10, cifar100
from frostbit.pipeline.data.fashion import fashion, fashion_small
from frostbit.pipeline.data.splits import (
    DATA_VARIABLE,
    AnySplit,
    Dataset,
    Images,
    Labels,
    Split,
    in_memory,
    pick,
    shuffled,
)
from frostbit.pipeline.errors import UserError

__all__ = [
    "DATA_VARIABLE",
    "AnySplit",
    "Dataset",
    "Images",
    "Labels",
    "Photographs",
    "Split",
    "as_json",
    "load",
    "shuffled",
]


@dataclass(frozen=True)
class Photographs:
    """How pictures on disk are read (``folder`` and ``imagenet``).

    Attributes:
        size: height and width after resizing and cropping; 0 means 224.
        skip_corrupt: leave out files that cannot be decoded, and say which.
        cache: keep decoded pictures in one file, so that a second epoch need not decode.
    """

    size: int = 0
    skip_corrupt: bool = False
    cache: bool = False


def _digits(data_dir: Path | None, download: bool) -> Dataset:
    """8x8 digits; grey levels 0..16 scaled once to 0..255."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError(
            "the digits data set comes with scikit-learn, which is missing; install it with "
            "pip install 'frostbit[train]'"
        ) from error
    source = load_digits()
    images = np.round(source.images * 255 / 16).astype(np.uint8)[..., None]
    everything = Split(images, source.target.astype(np.int64))
    order = shuffled(len(images))
    test, validation, train = np.split(order, [360, 600])
    return in_memory(
        "digits",
        pick(everything, train),
        pick(everything, validation),
        pick(everything, test),
        tuple("0123456789"),
    )


def _folder(data_dir: Path | None, photographs: Photographs) -> Dataset:
    from frostbit.pipeline.data.folders import folder

    return folder(data_dir, photographs.size, photographs.skip_corrupt, photographs.cache)


def _imagenet(data_dir: Path | None, photographs: Photographs) -> Dataset:
    from frostbit.pipeline.data.folders import imagenet

    return imagenet(data_dir, photographs.size, photographs.skip_corrupt, photographs.cache)


_LOADERS: dict[str, Callable[[Path | None, bool], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": fashion,
    "fashion-mnist-14": fashion_small,
    "cifar10": cifar10,
    "cifar100": cifar100,
}
_ON_DISK: dict[str, Callable[[Path | None, Photographs], Dataset]] = {
    "imagenet": _imagenet,
    "folder": _folder,
}
NAMES = (*_LOADERS, *_ON_DISK)


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    download: bool = False,
    photographs: Photographs | None = None,
) -> Dataset:
    """Load a data set.

    Args:
        name: one of :data:`NAMES`.
        data_dir: folder of the files (``digits`` needs none); default ``$FROSTBIT_DATA``, then
            the folder of Debian's package, then the user's cache.
        download: whether a missing set may be downloaded to the user's cache.
        photographs: for sets on disk.

    Raises:
        UserError: unknown name, missing or corrupt file; with the remedy.
    """
    place = None if data_dir is None else Path(data_dir)
    if name in _ON_DISK:
        return _ON_DISK[name](place, photographs or Photographs())
    if name not in _LOADERS:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0)
        raise UserError(f"unknown data set '{name}'; did you mean '{near[0]}'?")
    return _LOADERS[name](place, download)


def as_json(dataset: Dataset) -> dict[str, Any]:
    """What a run folder records of its data: shape, classes, normalisation and split sizes."""
    return {
        "name": dataset.name,
        "image_shape": list(dataset.image_shape),
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "splits": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
    }
