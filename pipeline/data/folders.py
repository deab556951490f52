"""Pictures in folders, one folder per class, decoded when they are needed.

Layouts: ``D/train/CLASS/*`` with ``D/test`` and/or ``D/val`` beside it (with both, ``val`` is the
validation split; with one, that is the test split and a tenth of ``train`` is held out), or plain
``D/CLASS/*``, of which a fixed shuffle keeps 8 in 10 for training, 1 for validation, 1 for test.

A picture is evaluated as usual for ImageNet: converted to RGB, shorter side resized to 256/224 of
the crop size, centre crop. For training it is a random resized crop, mirrored by chance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import v2

from frostbit.kernels.ir.output import replacing
from frostbit.pipeline.data import pictures
from frostbit.pipeline.data.splits import (
    Dataset,
    Images,
    Labels,
    asked_folder,
    cache_folder,
    require,
    shuffled,
    statistics,
)
from frostbit.pipeline.errors import UserError

ENDINGS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
USUAL_SIZE = 224
MEASURED = 2000
"""Training images from which mean and standard deviation are measured."""


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """A split on disk.

    Attributes:
        paths: one picture each.
        labels: int64 ``[N]``.
        size: height and width of what :meth:`take` gives.
        decoded: uint8 ``[N, R, R, 3]`` if pictures are cached, R the size before the crop.
    """

    paths: tuple[Path, ...]
    labels: Labels
    size: int
    decoded: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """``(H, W, 3)``."""
        return self.size, self.size, 3

    def pixels(self, index: int) -> Tensor:
        """One picture, uint8 ``[3, h, w]``: as in its file, or the cached square.

        Raises:
            UserError: naming a file that cannot be decoded.
        """
        if self.decoded is not None:
            return torch.from_numpy(self.decoded[index].copy()).permute(2, 0, 1)
        return decode(self.paths[index])

    def evaluated(self, index: int) -> Tensor:
        """Picture ``index`` resized and cropped in the centre, uint8 ``[H, W, 3]``."""
        if self.decoded is None:
            found = pictures.evaluated(self.paths[index], self.size)
        else:
            found = pictures.centre(self.decoded[index], (self.size, self.size))
        return torch.from_numpy(found.copy())

    def take(self, indices: Sequence[int]) -> Images:
        """Pictures by number, uint8 ``[n, H, W, 3]``."""
        return torch.stack([self.evaluated(int(index)) for index in indices]).numpy()

    def first(self, count: int) -> FolderSplit:
        """The first ``count`` pictures, all for 0; UserError if there are fewer."""
        require(count, len(self))
        kept = None if self.decoded is None else self.decoded[:count]
        return (
            FolderSplit(self.paths[:count], self.labels[:count], self.size, kept) if count else self
        )


class Augmented(torch.utils.data.Dataset[Tensor | UserError]):
    """Training pictures by ``(epoch, index)``: what comes is a function of those and the seed.

    A picture that cannot be decoded comes as its error, for the main process to raise.
    """

    def __init__(self, split: FolderSplit, seed: int, flip: bool) -> None:
        self.split, self.seed = split, seed
        steps: list[torch.nn.Module] = [v2.RandomResizedCrop(split.size, antialias=True)]
        self.transform = v2.Compose([*steps, v2.RandomHorizontalFlip()] if flip else steps)

    def __getitem__(self, key: tuple[int, int]) -> Tensor | UserError:
        epoch, index = key
        number = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)[0]
        try:
            pixels = self.split.pixels(index)
        except UserError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(number))
            moved: Tensor = self.transform(pixels)
        return moved.permute(1, 2, 0).contiguous()


def decode(path: Path) -> Tensor:
    """A picture as uint8 ``[3, h, w]``; UserError naming it if it cannot be decoded."""
    picture = pictures.open_picture(path)
    pixels: Tensor = v2.functional.pil_to_tensor(picture)
    return pixels


def _listed(root: Path, classes: tuple[str, ...] | None) -> tuple[list[Path], Labels, list[str]]:
    """Pictures under ``root`` in the order of their names, their labels, and the classes."""
    found = sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    if len(found) < 2 and classes is None:
        raise UserError(f"'{root}' needs a folder for each of at least 2 classes, has {len(found)}")
    names = found if classes is None else list(classes)
    unknown = sorted(set(found) - set(names))
    if unknown:
        raise UserError(f"'{root / unknown[0]}' is no class of the training folder; remove it")
    paths: list[Path] = []
    labels: list[int] = []
    for name in found:
        files = sorted(f for f in (root / name).iterdir() if f.suffix.lower() in ENDINGS)
        if not files:
            raise UserError(
                f"class folder '{root / name}' has no picture ({', '.join(ENDINGS)}); add some "
                "or remove the folder"
            )
        paths += files
        labels += [names.index(name)] * len(files)
    return paths, np.array(labels, np.int64), names


def _checked(paths: list[Path], labels: Labels) -> tuple[list[Path], Labels, list[str]]:
    """Without the pictures that cannot be decoded, and a note for each of those."""

    def problem(path: Path) -> str:
        try:
            decode(path)
        except UserError:
            return f"skipped corrupt image '{path}'"
        return ""

    with ThreadPoolExecutor() as pool:
        notes = list(pool.map(problem, paths))
    good = [i for i, note in enumerate(notes) if not note]
    return [paths[i] for i in good], labels[good], [note for note in notes if note]


@dataclass(frozen=True)
class _Source:
    """A root folder read: pictures, labels, classes, notes."""

    paths: list[Path]
    labels: Labels
    classes: list[str]
    notes: list[str]

    def part(self, order: NDArray[np.int64], size: int) -> FolderSplit:
        """The pictures in ``order`` as a split."""
        if len(order) == 0:
            raise UserError("too few pictures to split them for training and testing; add some")
        return FolderSplit(tuple(self.paths[i] for i in order), self.labels[order], size)


def _read(root: Path, skip_corrupt: bool, classes: tuple[str, ...] | None = None) -> _Source:
    paths, labels, names = _listed(root, classes)
    notes: list[str] = []
    if skip_corrupt:
        found = set(labels)
        paths, labels, notes = _checked(paths, labels)
        for number in sorted(found - set(labels)):
            raise UserError(
                f"class folder '{root / names[number]}' has no picture that can be decoded; add "
                "some or remove the folder"
            )
    return _Source(paths, labels, names, notes)


def folder(data_dir: Path | None, size: int, skip_corrupt: bool, cache: bool) -> Dataset:
    """Any folder of class folders; see the module's text for layouts and splits."""
    return _load("folder", data_dir, size or USUAL_SIZE, skip_corrupt, cache)


def imagenet(data_dir: Path | None, size: int, skip_corrupt: bool, cache: bool) -> Dataset:
    """ImageNet as ``D/train/WNID/*`` and ``D/val/WNID/*``: ``val`` is the test split."""
    place = asked_folder(data_dir)
    if place is None or not all((place / name).is_dir() for name in ("train", "val")):
        raise UserError("imagenet needs --data-dir with folders train and val, one folder a class")
    return _load("imagenet", place, size or USUAL_SIZE, skip_corrupt, cache)


def _load(name: str, data_dir: Path | None, size: int, skip_corrupt: bool, cache: bool) -> Dataset:
    place = asked_folder(data_dir)
    if place is None or not place.is_dir():
        raise UserError(f"no folder '{place}'; name the folder of the classes with --data-dir")
    inner = {each: place / each for each in ("train", "val", "test") if (place / each).is_dir()}
    source = _read(inner.get("train", place), skip_corrupt)
    notes, order = source.notes, shuffled(len(source.paths))
    tenth = len(order) // 10
    if "train" not in inner:
        parts = np.split(order, [tenth, 2 * tenth])
        test, validation, train = (source.part(part, size) for part in parts)
    else:
        others = [
            _read(inner[each], skip_corrupt, tuple(source.classes))
            for each in ("val", "test")
            if each in inner
        ]
        if not others:
            raise UserError(f"'{place}' has train but neither test nor val; add one of them")
        notes = [note for each in (source, *others) for note in each.notes]
        held = 0 if len(others) == 2 else tenth
        whole = [each.part(np.arange(len(each.paths)), size) for each in others]
        train, test = source.part(order[held:], size), whole[-1]
        validation = whole[0] if len(others) == 2 else source.part(order[:held], size)
    if cache:
        train, validation, test = (_cached(each) for each in (train, validation, test))
    mean, std = statistics(train.take(range(min(MEASURED, len(train)))))
    return Dataset(name, train, validation, test, tuple(source.classes), mean, std, tuple(notes))


def _cached(split: FolderSplit) -> FolderSplit:
    """``split`` with its pictures decoded once into a file of the user's cache folder.

    They are kept as squares of 256/224 of the crop size, so that training crops come from the
    middle of a picture and not from its edges; the file has 3 * R * R bytes a picture. It is
    named by a hash of the files' names, sizes and times.
    """
    side = pictures.side_for(split.size)
    digest = hashlib.sha256(f"{side}".encode())
    for path in split.paths:
        state = path.stat()
        digest.update(f"{path}:{state.st_size}:{state.st_mtime_ns};".encode())
    file = cache_folder() / "decoded" / f"{digest.hexdigest()}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            shape = (len(split), side, side, 3)
            made = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.uint8, shape=shape)
            with ThreadPoolExecutor() as pool:
                squares = pool.map(lambda path: _square_of(path, side), split.paths)
                for index, square in enumerate(squares):
                    made[index] = square
            made.flush()
    return replace(split, decoded=np.load(file, mmap_mode="r", allow_pickle=False))


def _square_of(path: Path, side: int) -> Images:
    return pictures.centre(pictures.resized(pictures.open_picture(path), side, path), (side, side))
