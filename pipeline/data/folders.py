"""Pictures in folders, one folder per class, decoded when they are needed; torch is not.

Layouts: ``D/train/CLASS/*`` with ``D/test`` and/or ``D/val`` beside it (with both, ``val`` is the
validation split; with one, that is the test split and a tenth of ``train`` is held out), or plain
``D/CLASS/*``. What is held out is decided by content (:mod:`frostbit.pipeline.data.contents`); a
picture that stands in two of the folders stays in the one that is tested.

How a picture is decoded, resized and cropped says :mod:`frostbit.pipeline.data.pictures`.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from frostbit.pipeline.console import Bars
from frostbit.pipeline.data import contents, pictures
from frostbit.pipeline.data.contents import Picture
from frostbit.pipeline.data.picture_cache import decoded_once
from frostbit.pipeline.data.pictures import Pixels, Size
from frostbit.pipeline.data.splits import Dataset, Images, Labels, asked_folder, require, statistics
from frostbit.pipeline.errors import UserError

ENDINGS = (
    ".jpg", ".jpeg", ".png", ".apng", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm", ".pnm",
    ".tif", ".tiff",
)  # fmt: skip
PARTS_OF = {"train": "train", "val": "validation", "test": "test"}
"""Folders that divide a data set themselves."""
USUAL_SIZE = (224, 224)
MEASURED = 2000
"""Training images from which mean and standard deviation are measured."""
AT_ONCE = 50


@dataclass(frozen=True)
class Photographs:
    """How pictures on disk are read (``folder`` and ``imagenet``).

    Attributes:
        size: height and width after resizing and cropping.
        channels: 3 for RGB, 1 for grey.
        skip_corrupt: leave out files that cannot be decoded, and say which.
        cache: keep decoded pictures in one file, so that a second epoch need not decode.
        known: the list of a run: of one that goes on, or of the model that is tested.
    """

    size: Size = USUAL_SIZE
    channels: int = 3
    skip_corrupt: bool = False
    cache: bool = False
    known: tuple[Picture, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(H, W, C)``."""
        return *self.size, self.channels


@dataclass(frozen=True, eq=False)
class FolderSplit:
    """A split on disk.

    Attributes:
        paths: one picture each.
        labels: int64 ``[N]``.
        image_shape: ``(H, W, C)`` of what :meth:`take` gives.
        decoded: uint8 ``[N, h, w, C]`` with the margin of evaluated pictures, if they are cached.
    """

    paths: tuple[Path, ...]
    labels: Labels
    image_shape: tuple[int, int, int]
    decoded: Pixels | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, index: int) -> Pixels:
        """One picture to be cropped for training, uint8 ``[h, w, C]``: whole, or as cached.

        Raises:
            UserError: naming a file that cannot be decoded.
        """
        if self.decoded is not None:
            found: Pixels = self.decoded[index]
            return found
        picture = pictures.open_picture(self.paths[index], self.image_shape[2])
        return pictures.pixels_of(picture)

    def evaluated(self, index: int) -> Pixels:
        """Picture ``index`` resized and cropped in the centre, uint8 ``[H, W, C]``."""
        if self.decoded is None:
            return pictures.evaluated(self.paths[index], self.image_shape)
        return pictures.centre(self.decoded[index], self.image_shape[:2])

    def take(self, indices: Sequence[int]) -> Images:
        """Pictures by number, uint8 ``[n, H, W, C]``."""
        return np.stack([self.evaluated(int(index)) for index in indices])

    def first(self, count: int) -> FolderSplit:
        """The first ``count`` pictures, all for 0; UserError if there are fewer."""
        require(count, len(self))
        if count == 0:
            return self
        kept = None if self.decoded is None else self.decoded[:count]
        return replace(self, paths=self.paths[:count], labels=self.labels[:count], decoded=kept)


@dataclass(frozen=True)
class _Entry:
    """A file of a data folder: path relative to it, class, part of the folder it is in or ""."""

    path: str
    label: int
    given: str


@dataclass(frozen=True)
class _Scan:
    """What lies in a data folder, nothing of it opened yet."""

    root: Path
    entries: list[_Entry]
    classes: tuple[str, ...]
    notes: list[str]

    def split(
        self, listed: Sequence[Picture], part: str, shape: tuple[int, int, int]
    ) -> FolderSplit:
        """The pictures of ``part``, in the order of their hashes: shuffled, and always the same."""
        labels = {each.path: each.label for each in self.entries}
        chosen = [each for each in listed if each.part == part]
        chosen.sort(key=lambda each: (each.stamp.sha256, each.path))
        paths = tuple(self.root / each.path for each in chosen)
        return FolderSplit(paths, np.array([labels[e.path] for e in chosen], np.int64), shape)


def _scan(place: Path | None, classes: Sequence[str]) -> _Scan:
    """The pictures in ``place``; ``classes``: those of a model or of a run that goes on.

    Raises:
        UserError: no folder, or no layout that is known.
    """
    if place is None or not place.is_dir():
        raise UserError(f"no folder '{place}'; name the folder of the classes with --data-dir")
    try:
        layout = _layout(place, classes)
        names = tuple(classes) or _folders(place / next(iter(layout)))
        if len(names) < 2 and not classes:
            raise UserError(
                f"'{place}' needs a folder for each of at least 2 classes, has {len(names)}"
            )
        scan = _Scan(place, [], names, [])
        for folder, part in layout.items():
            _list(scan, folder, part, strict=not classes)
    except OSError as error:
        raise UserError(f"cannot read folder '{place}' ({error.strerror}); check it") from error
    return scan


def _layout(place: Path, classes: Sequence[str]) -> dict[str, str]:
    """Folders to look into and the parts they stand for; ``{"": ""}`` if content decides."""
    inner = [each for each in PARTS_OF if (place / each).is_dir() and each not in classes]
    if "train" not in inner and not (classes and inner):
        return {"": ""}
    if inner == ["train"]:
        raise UserError(f"'{place}' has train but neither test nor val; add one of them")
    layout = {each: PARTS_OF[each] for each in inner}
    return layout if "test" in layout else {**layout, "val": "test"}


def _folders(root: Path) -> tuple[str, ...]:
    return tuple(
        sorted(f.name for f in root.iterdir() if f.is_dir() and not f.name.startswith("."))
    )


def _list(scan: _Scan, folder: str, part: str, strict: bool) -> None:
    """Add the pictures in the class folders of ``folder`` to ``scan``."""
    left_out: list[Path] = []
    for name in _folders(scan.root / folder):
        place = scan.root / folder / name
        if name not in scan.classes:
            if strict:
                raise UserError(f"'{place}' is no class of the training folder; remove it")
            scan.notes.append(f"'{place}' is no class that was trained: left out")
            continue
        files = sorted(f for f in place.iterdir() if not f.name.startswith("."))
        found = [f for f in files if f.suffix.lower() in ENDINGS]
        left_out += [f for f in files if f not in found]
        if not found and strict:
            raise UserError(
                f"class folder '{place}' has no picture ({', '.join(ENDINGS)}); add some or "
                "remove the folder"
            )
        label = scan.classes.index(name)
        prefix = PurePosixPath(folder, name)
        scan.entries.extend(_Entry(str(prefix / f.name), label, part) for f in found)
    if left_out and strict:
        scan.notes.append(
            f"left out for their names, no picture's: {len(left_out)}, e.g. '{left_out[0]}'"
        )


def _stamped(scan: _Scan, photographs: Photographs, bad: set[str], bars: Bars) -> list[Picture]:
    """The pictures of ``scan`` with the parts that layout and content give; ``bad`` ones unused."""
    known = {each.path: each.stamp for each in photographs.known}
    paths = [each.path for each in scan.entries]
    stamps = contents.stamps(scan.root, paths, known, bars("reading pictures"))
    hashes: dict[str, set[str]] = {part: set() for part in ("", *contents.PARTS)}
    for entry, stamp in zip(scan.entries, stamps, strict=True):
        hashes["unused" if entry.path in bad else entry.given].add(stamp.sha256)
    held_out = hashes["test"] | hashes["validation"]
    free = ("validation",) if hashes["test"] and not hashes["validation"] else ()
    divided = contents.divided(
        (hashes[""] | hashes["train"]) - held_out, ("test", "validation") if hashes[""] else free
    )
    found = []
    for entry, stamp in zip(scan.entries, stamps, strict=True):
        part = entry.given if entry.given in ("test", "validation") else divided.get(stamp.sha256)
        if entry.path in bad or (part == "validation" and stamp.sha256 in hashes["test"]):
            part = "unused"
        found.append(Picture(entry.path, part or "unused", stamp))
    return found


def _undecodable(
    scan: _Scan, paths: Sequence[str], photographs: Photographs, bars: Bars
) -> set[str]:
    """Those of ``paths`` that cannot be decoded, each noted, if they may be skipped."""
    if not photographs.skip_corrupt:
        return set()

    def problem(path: str) -> str:
        try:
            pictures.open_picture(scan.root / path, photographs.channels, "it is left out")
        except UserError as error:
            return str(error)
        return ""

    with ThreadPoolExecutor() as pool:
        problems = pool.map(problem, paths)
        reasons = [next(problems) for _ in bars("checking pictures")(range(len(paths)))]
    scan.notes.extend(filter(None, reasons))
    return {path for path, reason in zip(paths, reasons, strict=True) if reason}


def _duplicates(scan: _Scan, found: Sequence[Picture], bad: set[str]) -> list[str]:
    """A note on pictures that stand in two parts, and one on those that stand in two classes."""
    notes = []
    twice = [each.path for each in found if each.part == "unused" and each.path not in bad]
    if twice:
        notes.append(
            f"{len(twice)} pictures stand in a folder for testing too, byte for byte, and are left "
            f"out here, e.g. '{scan.root / twice[0]}'"
        )
    first: dict[str, _Entry] = {}
    pairs = [
        (first.setdefault(each.stamp.sha256, entry), entry)
        for entry, each in zip(scan.entries, found, strict=True)
    ]
    torn = [(one.path, other.path) for one, other in pairs if one.label != other.label]
    if torn:
        notes.append(
            f"{len(torn)} pictures stand in two classes, byte for byte, e.g. '{torn[0][0]}' and "
            f"'{torn[0][1]}'"
        )
    return notes


def load(name: str, data_dir: Path | None, photographs: Photographs, bars: Bars) -> Dataset:
    """A folder of class folders to train on.

    Args:
        name: ``folder``, or ``imagenet``: a folder with ``train/WNID`` and ``val/WNID``.
        data_dir: the folder; default ``$FROSTBIT_DATA``.
        photographs: how pictures are read; with ``known``, a run that goes on takes the very
            pictures that it began with.
        bars: progress bars by label.

    Raises:
        UserError: no such folder or layout, too few pictures, or not those of the list.
    """
    place = asked_folder(data_dir)
    if name == "imagenet" and not all((Path(place or ".") / e).is_dir() for e in ("train", "val")):
        raise UserError("imagenet needs --data-dir with folders train and val, one folder a class")
    classes = sorted({PurePosixPath(each.path).parent.name for each in photographs.known})
    scan = _scan(place, classes)
    if photographs.known:
        found = _as_listed(scan, photographs, bars)
    else:
        bad = _undecodable(scan, [each.path for each in scan.entries], photographs, bars)
        found = _stamped(scan, photographs, bad, bars)
        scan.notes.extend(_duplicates(scan, found, bad))
    splits = {part: scan.split(found, part, photographs.shape) for part in contents.PARTS[:3]}
    _require_enough(scan, splits)
    if photographs.cache:
        splits = {
            part: replace(each, decoded=decoded_once(each.paths, each.image_shape, bars))
            for part, each in splits.items()
        }
    mean, std = statistics(_measured(splits["train"], bars))
    return Dataset(
        name=name,
        **splits,
        classes=scan.classes,
        mean=mean,
        std=std,
        notes=tuple(scan.notes),
        pictures=tuple(found),
    )


def _as_listed(scan: _Scan, photographs: Photographs, bars: Bars) -> list[Picture]:
    now = {each.path: each.stamp.sha256 for each in _stamped(scan, photographs, set(), bars)}
    used = [each for each in photographs.known if each.part != "unused"]
    lost = [each.path for each in used if now.get(each.path) != each.stamp.sha256]
    if lost:
        raise UserError(
            f"{len(lost)} pictures that this run began with were changed or removed, e.g. "
            f"'{scan.root / lost[0]}'; put them back, or start a new run"
        )
    return list(photographs.known)


def _require_enough(scan: _Scan, splits: dict[str, FolderSplit]) -> None:
    if not all(len(split) for split in splits.values()):
        raise UserError("too few pictures to split them for training and testing; add some")
    trained = set(splits["train"].labels.tolist())
    for label, name in enumerate(scan.classes):
        if label not in trained:
            raise UserError(
                f"class '{name}' in '{scan.root}' has no picture that can be trained on; add some "
                "or remove the folder"
            )


def _measured(split: FolderSplit, bars: Bars) -> Images:
    """The first training pictures as they are evaluated."""
    count = min(MEASURED, len(split))
    starts = bars("measuring pixels")(range(0, count, AT_ONCE))
    return np.concatenate([split.take(range(i, min(i + AT_ONCE, count))) for i in starts])


def tested(
    data_dir: Path | None, photographs: Photographs, classes: Sequence[str], bars: Bars
) -> tuple[FolderSplit, tuple[str, ...]]:
    """The test pictures for a trained model, and what a user should know of them.

    Args:
        data_dir: the folder; default ``$FROSTBIT_DATA``. Only ``test`` or ``val`` will do.
        photographs: how pictures are read; ``known`` is the list of the model's run: nothing that
            it trained on is tested.
        classes: of the model.
        bars: progress bars by label.

    Raises:
        UserError: no such folder or layout, or nothing in it to test on.
    """
    scan = _scan(asked_folder(data_dir), classes)
    if not photographs.known:  # of train nothing need be read
        scan = replace(scan, entries=[e for e in scan.entries if e.given in ("", "test")])
    found = _stamped(scan, photographs, set(), bars)
    if photographs.known:
        found, changes = contents.compared(found, photographs.known)
        if str(changes):
            scan.notes.append(f"'{scan.root}' since the training: {changes}")
    bad = _undecodable(scan, [e.path for e in found if e.part == "test"], photographs, bars)
    split = scan.split([e for e in found if e.path not in bad], "test", photographs.shape)
    if not len(split):
        raise UserError("; ".join([f"'{scan.root}' has no picture to test on", *scan.notes]))
    return split, tuple(scan.notes)
