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
``folder``              8 in 10   1 in 10   1 in 10  a folder per class; see folders
======================  =======  ==========  ======  =====================================

Splits follow a fixed shuffle of the image numbers; pictures on disk are split by their contents, so
that shares are about those. Settings are chosen on the validation split;
the test split is looked at once, when a run is finished.

Loading what fits in memory needs neither torch nor, but for ``digits``, scikit-learn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from frostbit.pipeline.console import Bars, silent
from frostbit.pipeline.data import folders
from frostbit.pipeline.data.cifar import cifar10, cifar100
from frostbit.pipeline.data.fashion import fashion, fashion_small
from frostbit.pipeline.data.folders import Photographs
from frostbit.pipeline.data.pictures import PREPROCESSING
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
from frostbit.pipeline.errors import UserError, unknown

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
    "load_test",
    "shuffled",
]


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


_LOADERS: dict[str, Callable[[Path | None, bool], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": fashion,
    "fashion-mnist-14": fashion_small,
    "cifar10": cifar10,
    "cifar100": cifar100,
}
ON_DISK = ("imagenet", "folder")
"""Pictures in folders; the others fit in memory."""
NAMES = (*_LOADERS, *ON_DISK)


def load(
    name: str,
    data_dir: Path | str | None = None,
    *,
    download: bool = False,
    photographs: Photographs | None = None,
    bars: Bars = silent,
) -> Dataset:
    """Load a data set.

    Args:
        name: one of :data:`NAMES`.
        data_dir: folder of the files (``digits`` needs none); default ``$FROSTBIT_DATA``, then
            the folder of Debian's package, then the user's cache.
        download: whether a missing set may be downloaded to the user's cache.
        photographs: for sets on disk.
        bars: progress bars by label, for sets on disk.

    Raises:
        UserError: unknown name, missing or corrupt file; with the remedy.
    """
    place = None if data_dir is None else Path(data_dir)
    if name in ON_DISK:
        return folders.load(name, place, photographs or Photographs(), bars)
    if name not in _LOADERS:
        raise unknown("data set", name, NAMES)
    return _LOADERS[name](place, download)


def load_test(
    name: str,
    data_dir: Path | None,
    photographs: Photographs,
    classes: Sequence[str],
    bars: Bars = silent,
) -> tuple[AnySplit, tuple[str, ...]]:
    """The test images for a trained model, and notes for its user.

    Args:
        name, data_dir, bars: as for :func:`load`.
        photographs: for sets on disk; ``known``: the pictures of the model's run.
        classes: of the model: a folder may have got others since.

    Raises:
        UserError: as :func:`load`, or there is nothing that was not trained on.
    """
    if name in ON_DISK:
        return folders.tested(data_dir, photographs, classes, bars)
    return load(name, data_dir).test, ()


def as_json(dataset: Dataset) -> dict[str, Any]:
    """What a run folder records of its data: shape, classes, normalisation and split sizes."""
    return {
        "name": dataset.name,
        "image_shape": list(dataset.image_shape),
        "classes": list(dataset.classes),
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        **({"preprocessing": PREPROCESSING} if dataset.name in ON_DISK else {}),
        "splits": {
            "train": len(dataset.train),
            "validation": len(dataset.validation),
            "test": len(dataset.test),
        },
    }
