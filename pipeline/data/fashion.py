"""Fashion-MNIST from its IDX files: Debian's package, a folder, or a download."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostbit.pipeline.data.splits import (
    DATA_VARIABLE,
    AnySplit,
    Dataset,
    Split,
    asked_folder,
    cache_folder,
    in_memory,
    pick,
    shuffled,
)
from frostbit.pipeline.errors import UserError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
FASHION_CLASSES = (
    "T-shirt", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
_TRAIN_FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
_TEST_FILES = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")


def fashion(data_dir: Path | None, download: bool) -> Dataset:
    """Fashion-MNIST, 28x28x1."""
    folder = _fashion_folder(data_dir, download)
    everything = _idx_pair(folder, _TRAIN_FILES, len(FASHION_CLASSES))
    test = _idx_pair(folder, _TEST_FILES, len(FASHION_CLASSES))
    if everything.images.shape[1:] != (28, 28, 1) or test.images.shape[1:] != (28, 28, 1):
        raise UserError(f"the images in '{folder}' are not 28x28; {_REMEDY}")
    order = shuffled(len(everything))
    held_out = len(everything) // 12
    return in_memory(
        "fashion-mnist",
        pick(everything, order[held_out:]),
        pick(everything, order[:held_out]),
        test,
        FASHION_CLASSES,
    )


def fashion_small(data_dir: Path | None, download: bool) -> Dataset:
    """Fashion-MNIST averaged to 14x14x1."""
    whole = fashion(data_dir, download)
    return in_memory(
        "fashion-mnist-14",
        _halved(whole.train),
        _halved(whole.validation),
        _halved(whole.test),
        whole.classes,
    )


def _halved(split: AnySplit) -> Split:
    """Average 2x2 pixels, rounded to nearest (half up): the same on every machine."""
    images = split.take(range(len(split)))
    n, height, width, channels = images.shape
    blocks = images.reshape(n, height // 2, 2, width // 2, 2, channels)
    halved = (blocks.sum(axis=(2, 4), dtype=np.uint16) + 2) // 4
    return Split(halved.astype(np.uint8), split.labels)


_REMEDY = "run `make system` as root, or give its folder with --data-dir or $" + DATA_VARIABLE


def _fashion_folder(data_dir: Path | None, download: bool) -> Path:
    """First folder that has the four files: the one asked for, else Debian's, else a download."""
    data_dir = asked_folder(data_dir)
    if data_dir is not None:
        nested = (data_dir, data_dir / "fashion-mnist", data_dir / "FashionMNIST" / "raw")
        return next((folder for folder in nested if _any_file(folder)), data_dir)
    cached = cache_folder()
    for folder in (DEBIAN_FOLDER, cached / "FashionMNIST" / "raw"):
        if _any_file(folder):
            return folder
    if download:
        _download_fashion(cached)
        return cached / "FashionMNIST" / "raw"
    raise UserError(f"the fashion-mnist data set is not installed; {_REMEDY}")


def _any_file(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (*_TRAIN_FILES, *_TEST_FILES))


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
