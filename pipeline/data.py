"""Data sets behind one function: :func:`load` gives uint8 images, labels and stated splits.

======================  =======  ==========  ======  =====================================
data set                train    validation  test    source
======================  =======  ==========  ======  =====================================
``digits`` (8x8x1)       1,197         240     360   scikit-learn, in its wheel
``fashion-mnist``       55,000       5,000  10,000   IDX files; their own test files
(28x28x1)
``fashion-mnist-14``     55,000       5,000  10,000  the same, averaged 2x2 once and rounded
(14x14x1)
======================  =======  ==========  ======  =====================================

Splits follow a fixed shuffle of the image numbers. Settings are chosen on the validation split;
the test split is looked at once, when a run is finished.

Loading needs neither torch nor, for ``fashion-mnist``, scikit-learn.
"""

from __future__ import annotations

import difflib
import gzip
import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UserError

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DATA_VARIABLE = "FROSTBIT_DATA"
FASHION_CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_TRAIN_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
_TEST_FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


@dataclass(frozen=True, eq=False)
class Split:
    """Images uint8 ``[N, H, W, C]`` and labels int64 ``[N]``."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, count: int) -> Split:
        """The first ``count`` images, all for 0; UserError if there are fewer."""
        if count > len(self):
            raise UserError(f"train_images={count}, but there are {len(self)}; ask for fewer")
        return Split(self.images[:count], self.labels[:count]) if count else self


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set.

    Attributes:
        name: as given to :func:`load`.
        train, validation, test: the splits.
        classes: one name per label.
        mean, std: per channel, of pixels / 255 over the training split.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        height, width, channels = self.test.images.shape[1:]
        return height, width, channels


def shuffled(count: int) -> NDArray[np.int64]:
    """A fixed permutation of ``range(count)``, the same on every machine and version."""
    x = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.argsort(x ^ (x >> np.uint64(31)), kind="stable")


def _take(split: Split, order: NDArray[np.int64]) -> Split:
    return Split(np.ascontiguousarray(split.images[order]), split.labels[order])


def _dataset(
    name: str, train: Split, validation: Split, test: Split, classes: tuple[str, ...]
) -> Dataset:
    pixels = train.images.reshape(-1, train.images.shape[3]).astype(np.float64) / 255
    mean = tuple(round(float(m), 4) for m in pixels.mean(axis=0))
    std = tuple(round(float(s), 4) for s in pixels.std(axis=0))
    return Dataset(name, train, validation, test, classes, mean, std)


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
    return _dataset(
        "digits",
        _take(everything, train),
        _take(everything, validation),
        _take(everything, test),
        tuple("0123456789"),
    )


def _fashion(data_dir: Path | None, download: bool) -> Dataset:
    folder = _fashion_folder(data_dir, download)
    everything = _idx_pair(folder, _TRAIN_FILES, len(FASHION_CLASSES))
    test = _idx_pair(folder, _TEST_FILES, len(FASHION_CLASSES))
    if everything.images.shape[1:] != (28, 28, 1) or test.images.shape[1:] != (28, 28, 1):
        raise UserError(f"the images in '{folder}' are not 28x28; {_REMEDY}")
    order = shuffled(len(everything))
    held_out = len(everything) // 12
    return _dataset(
        "fashion-mnist",
        _take(everything, order[held_out:]),
        _take(everything, order[:held_out]),
        test,
        FASHION_CLASSES,
    )


def _fashion_small(data_dir: Path | None, download: bool) -> Dataset:
    whole = _fashion(data_dir, download)
    return _dataset(
        "fashion-mnist-14",
        _halved(whole.train),
        _halved(whole.validation),
        _halved(whole.test),
        whole.classes,
    )


def _halved(split: Split) -> Split:
    """Average 2x2 pixels, rounded to nearest (half up): the same on every machine."""
    n, height, width, channels = split.images.shape
    blocks = split.images.reshape(n, height // 2, 2, width // 2, 2, channels)
    images = (blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4
    return Split(images.astype(np.uint8), split.labels)


_REMEDY = "run `make system` as root, or give its folder with --data-dir or $" + DATA_VARIABLE


def _fashion_folder(data_dir: Path | None, download: bool) -> Path:
    """First folder that has the four files: the one asked for, else Debian's, else a download."""
    if data_dir is None and os.environ.get(DATA_VARIABLE):
        data_dir = Path(os.environ[DATA_VARIABLE])
    if data_dir is not None:
        nested = (data_dir, data_dir / "fashion-mnist", data_dir / "FashionMNIST" / "raw")
        return next((folder for folder in nested if _any_file(folder)), data_dir)
    cached = _cache_folder()
    for folder in (DEBIAN_FOLDER, cached / "FashionMNIST" / "raw"):
        if _any_file(folder):
            return folder
    if download:
        _download_fashion(cached)
        return cached / "FashionMNIST" / "raw"
    raise UserError(f"the fashion-mnist data set is not installed; {_REMEDY}")


def _any_file(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*_TRAIN_FILES, *_TEST_FILES))


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "frostbit"


def _download_fashion(root: Path) -> None:
    try:
        from torchvision.datasets import FashionMNIST

        FashionMNIST(str(root), download=True)
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"fashion-mnist is not installed and its download failed; {_REMEDY}"
        ) from error


def _idx_pair(folder: Path, names: tuple[str, str], classes: int) -> Split:
    """Images and labels of two IDX files; UserError naming the file that is wrong."""
    images = _idx(folder / names[0], 3)
    labels = _idx(folder / names[1], 1)
    if len(images) != len(labels) or len(images) == 0:
        raise UserError(
            f"'{folder / names[1]}' has {len(labels)} labels for {len(images)} images; {_REMEDY}"
        )
    if int(labels.max()) >= classes:
        raise UserError(
            f"'{folder / names[1]}' has a label {labels.max()}, not in 0..{classes - 1}; {_REMEDY}"
        )
    return Split(images[..., None], labels.astype(np.int64))


def _idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read a gzipped IDX file of unsigned bytes: magic 0 0 8 d, d big-endian sizes, data."""
    try:
        with gzip.open(path, "rb") as file:
            raw = file.read()
    except FileNotFoundError as error:
        raise UserError(f"missing data file '{path}'; {_REMEDY}") from error
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read data file '{path}' ({error}); {_REMEDY}") from error
    header = 4 + 4 * dimensions
    sizes = np.frombuffer(raw[4:header], ">u4") if len(raw) >= header else np.zeros(0)
    if len(sizes) != dimensions or raw[:4] != bytes((0, 0, 8, dimensions)):
        raise UserError(f"'{path}' is not an IDX file of {dimensions} dimensions; {_REMEDY}")
    shape = tuple(int(size) for size in sizes)
    if len(raw) - header != int(np.prod(shape, dtype=object)):
        raise UserError(f"'{path}' should hold {shape} bytes, has {len(raw) - header}; {_REMEDY}")
    return np.frombuffer(raw, np.uint8, offset=header).reshape(shape).copy()  # writable, for torch


_LOADERS: dict[str, Callable[[Path | None, bool], Dataset]] = {
    "digits": _digits,
    "fashion-mnist": _fashion,
    "fashion-mnist-14": _fashion_small,
}
NAMES = tuple(_LOADERS)


def load(name: str, data_dir: Path | str | None = None, *, download: bool = False) -> Dataset:
    """Load a data set.

    Args:
        name: one of :data:`NAMES`.
        data_dir: folder of the files (``digits`` needs none); default ``$FROSTBIT_DATA``, then
            the folder of Debian's package, then the user's cache.
        download: whether a missing set may be downloaded to the user's cache.

    Raises:
        UserError: unknown name, missing or corrupt file; with the remedy.
    """
    if name not in _LOADERS:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0)
        raise UserError(f"unknown data set '{name}'; did you mean '{near[0]}'?")
    return _LOADERS[name](None if data_dir is None else Path(data_dir), download)


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
