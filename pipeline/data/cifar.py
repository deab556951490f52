"""CIFAR-10 and CIFAR-100 from their binary version, which needs no unpickling.

A record is the label (CIFAR-100: coarse and fine label) and 3,072 bytes, 32x32 in the order
channel, row, column (the archives' readme).
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frostbit.pipeline.data.splits import (
    Dataset,
    Split,
    asked_folder,
    cache_folder,
    in_memory,
    pick,
    shuffled,
)
from frostbit.pipeline.errors import UserError

PIXELS = 32 * 32 * 3


@dataclass(frozen=True)
class _Archive:
    """Where the parts of a data set lie: archive, folder in it, files, bytes of labels."""

    name: str
    file: str
    folder: str
    train: tuple[str, ...]
    test: str
    classes: str
    label_bytes: int
    count: int


_CIFAR10 = _Archive(
    "cifar10",
    "cifar-10-binary.tar.gz",
    "cifar-10-batches-bin",
    tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
    "test_batch.bin",
    "batches.meta.txt",
    1,
    10,
)
_CIFAR100 = _Archive(
    "cifar100",
    "cifar-100-binary.tar.gz",
    "cifar-100-binary",
    ("train.bin",),
    "test.bin",
    "fine_label_names.txt",
    2,
    100,
)


def cifar10(data_dir: Path | None, download: bool) -> Dataset:
    """CIFAR-10: 10 classes of 32x32x3 images."""
    return _load(_CIFAR10, data_dir)


def cifar100(data_dir: Path | None, download: bool) -> Dataset:
    """CIFAR-100 with its 100 fine classes."""
    return _load(_CIFAR100, data_dir)


def _load(archive: _Archive, data_dir: Path | None) -> Dataset:
    read = _Reader(archive, data_dir)
    names = read(archive.classes).decode("utf-8", "replace").split("\n")
    classes = tuple(name.strip() for name in names if name.strip())
    if len(classes) != archive.count:
        raise UserError(f"{archive.classes} has {len(classes)} classes; {read.remedy}")
    parts = [_records(archive, name, read) for name in archive.train]
    everything = Split(
        np.concatenate([part.images for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    order, held_out = shuffled(len(everything)), len(everything) // 10
    return in_memory(
        archive.name,
        pick(everything, order[held_out:]),
        pick(everything, order[:held_out]),
        _records(archive, archive.test, read),
        classes,
    )


class _Reader:
    """Reads a file of the data set from its folder, or from the archive as it is."""

    def __init__(self, archive: _Archive, data_dir: Path | None) -> None:
        self.archive = archive
        self.remedy = (
            f"put {archive.file} (the binary version) into a folder and name it with --data-dir"
        )
        asked = asked_folder(data_dir)
        places = [cache_folder()] if asked is None else [asked]
        folders = [place / inner for place in places for inner in (archive.folder, ".")]
        tars = [place / archive.file for place in places]
        self.folder = next((f for f in folders if (f / archive.test).is_file()), None)
        self.tar = next((t for t in tars if t.is_file()), None)
        if self.folder is None and self.tar is None:
            raise UserError(f"no {archive.name} in '{places[0]}'; {self.remedy}")

    def __call__(self, name: str) -> bytes:
        try:
            if self.folder is not None:
                return (self.folder / name).read_bytes()
            if self.tar is None:
                raise FileNotFoundError(name)
            with tarfile.open(self.tar) as tar:
                member = tar.extractfile(f"{self.archive.folder}/{name}")
                if member is None:
                    raise KeyError(name)
                return member.read()
        except (OSError, KeyError, EOFError, tarfile.TarError) as error:
            raise UserError(
                f"cannot read {name} of {self.archive.name} ({error}); {self.remedy}"
            ) from error


def _records(archive: _Archive, name: str, read: _Reader) -> Split:
    raw = np.frombuffer(read(name), np.uint8)
    size = archive.label_bytes + PIXELS
    if len(raw) == 0 or len(raw) % size:
        raise UserError(f"{name} is not made of records of {size} bytes; {read.remedy}")
    records = raw.reshape(-1, size)
    labels = records[:, archive.label_bytes - 1].astype(np.int64)
    if labels.max() >= archive.count:
        raise UserError(
            f"{name} has a label {labels.max()}, not in 0..{archive.count - 1}; {read.remedy}"
        )
    images = records[:, archive.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), labels)
