"""Folders of pictures: layouts, decoding, augmentation, cache, and what is refused."""

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frostbit.pipeline.console import silent
from frostbit.pipeline.data import datasets
from frostbit.pipeline.data.datasets import AnySplit, Photographs
from frostbit.pipeline.data.folders import FolderSplit
from frostbit.pipeline.data.picture_cache import decoded_once
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run import recipe
from frostbit.pipeline.run.recipe import Recipe
from frostbit.pipeline.training.batches import Batches, Changes
from frostbit.pipeline.training.parallel import Ranks
from frostbit.pipeline.training.train import Options, photographs, train

CLASSES = ("apple", "pear")
SMALL = Photographs((16, 16))


def picture(path: Path, shade: int, size: tuple[int, int] = (40, 30)) -> None:
    """A gradient whose first channel tells the class."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = shade
    pixels[..., 1] = np.arange(width) * 255 // width
    pixels[..., 2] = (np.arange(height) * 255 // height)[:, None]
    Image.fromarray(pixels).save(path)


def fill(root: Path, each: int = 10, shade: int = 0) -> Path:
    for number, name in enumerate(CLASSES):
        for index in range(each):
            ending = "jpg" if index % 2 else "png"
            path = root / name / f"{index:03d}.{ending}"
            picture(path, 50 + shade + 150 * number, (40 + index, 30))
    (root / CLASSES[0] / "notes.txt").write_text("not a picture")
    return root


def pixels_of(split: AnySplit) -> np.ndarray:
    return split.take(range(len(split)))


def test_plain_class_folders_are_split_by_content(tmp_path: Path) -> None:
    found = datasets.load("folder", fill(tmp_path, 100), photographs=SMALL)
    assert found.classes == CLASSES
    assert found.image_shape == (16, 16, 3)
    splits = (found.train, found.validation, found.test)
    paths = [path for split in splits for path in split.paths]  # type: ignore[attr-defined]
    assert len(paths) == len(set(paths)) == 200
    assert [15 <= len(split) <= 25 or len(split) >= 150 for split in splits] == [True] * 3
    images = pixels_of(found.train)
    assert images.shape == (len(found.train), 16, 16, 3)
    assert images.dtype == np.uint8
    is_pear = images[..., 0].mean(axis=(1, 2)) > 125
    assert np.array_equal(is_pear, found.train.labels == 1)
    for each in found.pictures:
        assert each.stamp.sha256 == hashlib.sha256((tmp_path / each.path).read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("parts", "test"),
    [(("train", "val", "test"), 6), (("train", "test"), 6), (("train", "val"), 4)],
)
def test_given_splits_are_kept(tmp_path: Path, parts: tuple[str, ...], test: int) -> None:
    for number, part in enumerate(parts):  # other shades: no picture is in two parts
        fill(tmp_path / part, {"train": 50, "val": 2, "test": 3}[part], 7 * number)
    found = datasets.load("folder", tmp_path, photographs=SMALL)
    assert len(found.test) == test
    if len(parts) == 3:
        assert (len(found.train), len(found.validation)) == (100, 4)
    else:
        assert len(found.train) + len(found.validation) == 100
        assert 4 <= len(found.validation) <= 16
    if parts == ("train", "val"):
        again = datasets.load("imagenet", tmp_path, photographs=Photographs())
        assert again.image_shape == (224, 224, 3)
        assert len(again.test) == 4


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", 9, (300, 150))
    split = FolderSplit((tmp_path / "a.png",), np.zeros(1, np.int64), (56, 56, 3))
    image = split.take([0])[0]
    # shorter side 150 -> 64; the crop shows the middle 56 of 128 columns and of 64 rows
    columns, rows = image[28, :, 1].astype(int), image[:, 28, 2].astype(int)
    assert columns[0] == pytest.approx(255 * 36.5 / 128, abs=3)
    assert columns[-1] == pytest.approx(255 * 91.5 / 128, abs=3)
    assert rows[0] == pytest.approx(255 * 4.5 / 64, abs=3)


def batches(root: Path, **options: object) -> list[np.ndarray]:
    found = datasets.load("folder", root, photographs=SMALL)
    made = Batches(found.train, 8, 5, Changes(flip=True), **options)  # type: ignore[arg-type]
    epochs = [made.epoch(epoch) for epoch in (0, 1)]
    return [images for epoch in epochs for images, _ in epoch]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a single core
def test_augmentation_is_a_function_of_seed_epoch_and_image(tmp_path: Path) -> None:
    fill(tmp_path)
    alone = batches(tmp_path)
    assert len(alone) == 4
    assert not np.array_equal(alone[0], alone[2])
    for workers in (0, 2):
        again = batches(tmp_path, workers=workers)
        assert all(np.array_equal(a, b) for a, b in zip(alone, again, strict=True))
    halves = [batches(tmp_path, ranks=Ranks(rank, 2)) for rank in (0, 1)]
    joined = [np.concatenate(pair) for pair in zip(*halves, strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(alone, joined, strict=True))


def test_an_epoch_can_be_entered_in_the_middle(tmp_path: Path) -> None:
    found = datasets.load("folder", fill(tmp_path), photographs=SMALL)
    made = Batches(found.train, 4, 5)
    whole = list(made.epoch(3))
    rest = list(made.epoch(3, first=2))
    assert len(rest) == 2
    for (a, la), (b, lb) in zip(whole[2:], rest, strict=True):
        assert np.array_equal(a, b)
        assert np.array_equal(la, lb)


def test_the_cache_decodes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = fill(tmp_path / "set")
    chosen = Photographs((16, 16), cache=True)
    first = datasets.load("folder", root, photographs=chosen)
    kept = sorted((tmp_path / "cache").rglob("*.npy"))
    assert len(kept) == 3
    # decoding again would fail
    monkeypatch.setattr("frostbit.pipeline.data.pictures.open_picture", None)
    second = datasets.load("folder", root, photographs=chosen)
    assert np.array_equal(pixels_of(first.train), pixels_of(second.train))
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (root / "apple" / "000.png").touch()  # another time: it may be another picture
    datasets.load("folder", root, photographs=chosen)
    assert len(sorted((tmp_path / "cache").rglob("*.npy"))) == 4
    made = Batches(second.train, 8, 0)
    assert next(made.epoch(0))[0].shape == (8, 16, 16, 3)


def test_a_run_on_pictures(tmp_path: Path) -> None:
    fill(tmp_path / "set", 20)
    (tmp_path / "set" / "pear" / "broken.png").write_bytes(b"\x89PNG nonsense")
    fields = {"dataset": "folder", "image_size": 16, "width": 8, "model": "bireal-2"}
    chosen = recipe.load("digits", {**fields, "epochs": 3, "batch": 4, "flip": True})
    place = {"data_dir": tmp_path / "set"}
    with pytest.raises(UserError, match=r"broken\.png.*--skip-corrupt"):
        train(chosen, tmp_path / "no", Options(**place))
    result = train(chosen, tmp_path / "run", Options(skip_corrupt=True, **place))
    assert result is not None
    assert result.test_after is not None


def test_adding_pictures_moves_no_other_one(tmp_path: Path) -> None:
    before = datasets.load("folder", fill(tmp_path, 40), photographs=SMALL)
    for index in range(20):
        picture(tmp_path / "pear" / f"new{index}.png", 120 + index, (50, 40))
    after = datasets.load("folder", tmp_path, photographs=SMALL)
    parts = {each.path: each.part for each in after.pictures}
    assert len(parts) == 100
    assert all(parts[each.path] == each.part for each in before.pictures)


def test_copies_are_never_on_both_sides(tmp_path: Path) -> None:
    for number, part in enumerate(("train", "val", "test")):
        fill(tmp_path / part, 20, 7 * number)
    for source, target in (("test", "train"), ("val", "train"), ("test", "val")):
        name = f"from-{source}.png"
        shutil.copy(tmp_path / source / "pear" / "000.png", tmp_path / target / "pear" / name)
    shutil.copy(tmp_path / "train/pear/002.png", tmp_path / "train/apple/torn.png")
    found = datasets.load("folder", tmp_path, photographs=SMALL)
    unused = [each.path for each in found.pictures if each.part == "unused"]
    assert unused == [
        "train/pear/from-test.png", "train/pear/from-val.png", "val/pear/from-test.png",
    ]  # fmt: skip
    assert len(found.train) == 41
    notes = " ".join(found.notes)
    assert "3 pictures stand in a folder for testing too" in notes
    assert "two classes, byte for byte, e.g. 'train/apple/torn.png' and 'train/pear/002" in notes


def test_the_classes_of_a_model_number_the_labels(tmp_path: Path) -> None:
    """A class folder that came later shifts no label and is not tested."""
    photographs, classes = Photographs((16, 16)), ("apple", "pear")
    fill(tmp_path, 40)
    before, _ = datasets.load_test("folder", tmp_path, photographs, classes)
    picture(tmp_path / "banana" / "1.png", 3)
    after, notes = datasets.load_test("folder", tmp_path, photographs, classes)
    assert np.array_equal(before.labels, after.labels)
    assert np.array_equal(pixels_of(before), pixels_of(after))
    assert "banana" in notes[0]
    assert "no class that was trained" in notes[0]


def test_the_cache_changes_no_pixel_of_any_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes 8 to 256, square and not, on pictures that leave half a pixel over on either side."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    paths = []
    for index, (height, width) in enumerate([(60, 91), (90, 61)]):
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(pixels).save(paths[-1])
    for size in range(8, 257):
        shapes = [(size, size, 1)]
        shapes += [(size, int(rng.integers(8, 257)), 1)] if size % 4 == 0 else []
        for shape in shapes:
            plain = FolderSplit(tuple(paths), np.zeros(2, np.int64), shape)
            cached = replace(plain, decoded=decoded_once(paths, shape, silent))
            assert np.array_equal(pixels_of(plain), pixels_of(cached)), shape
        for file in (tmp_path / "cache").rglob("*.npy"):
            file.unlink()


# ---------------------------------------------------------------- refusals


def refused(folder: Path | None, *words: str, name: str = "folder") -> None:
    with pytest.raises(UserError) as refusal:
        datasets.load(name, folder, photographs=SMALL)
    for word in words:
        assert word in str(refusal.value), str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_cannot_be_used_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    refused(None, "--data-dir")
    refused(tmp_path / "none", "no folder", "--data-dir")
    refused(tmp_path, "at least 2 classes")
    refused(tmp_path, "train and val", name="imagenet")
    (tmp_path / "empty").mkdir()
    fill(tmp_path)
    refused(tmp_path, "class folder", "empty", "no picture")
    (tmp_path / "empty").rmdir()
    fill(tmp_path / "split" / "train")
    refused(tmp_path / "split", "neither test nor val")
    picture(tmp_path / "split" / "test" / "plum" / "1.png", 3)
    refused(tmp_path / "split", "plum", "no class")
    fill(tmp_path / "few", 1)
    refused(tmp_path / "few", "too few pictures")


def test_a_corrupt_picture_is_named_and_skipped_by_flag(tmp_path: Path) -> None:
    fill(tmp_path)
    bad = tmp_path / "apple" / "000.png"
    bad.write_bytes(bad.read_bytes()[:60])
    refused(tmp_path, "cannot decode image", "000.png", "--skip-corrupt")
    found = datasets.load("folder", tmp_path, photographs=Photographs((16, 16), skip_corrupt=True))
    assert ["000.png" in note for note in found.notes] == [False, True]
    assert "notes.txt" in found.notes[0]
    assert len(found.train) + len(found.validation) + len(found.test) == 19


def test_a_class_whose_pictures_are_all_corrupt_is_refused(tmp_path: Path) -> None:
    fill(tmp_path)
    for path in (tmp_path / "pear").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"class 'pear' .* has no picture that can be trained on"):
        datasets.load("folder", tmp_path, photographs=Photographs((16, 16), skip_corrupt=True))


def test_crop_and_colour_change_the_training_pictures_alone(tmp_path: Path) -> None:
    found = datasets.load("folder", fill(tmp_path), photographs=SMALL)

    def first(changes: Changes) -> np.ndarray:
        images: np.ndarray = next(Batches(found.train, 4, 5, changes).epoch(0))[0]
        return images.astype(int)

    whole, tinted = first(Changes(crop=1.0)), first(Changes(crop=1.0, colour=0.5))
    assert np.abs(whole - first(Changes())).max() > 0
    assert np.abs(whole - tinted).max() > 10
    assert np.array_equal(tinted, first(Changes(crop=1.0, colour=0.5)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dataset": "folder", "shift": 2}, "use crop"),
        ({"dataset": "digits", "crop": 0.5}, "crop is for pictures on disk"),
        ({"dataset": "digits", "colour": 0.5}, "colour is for pictures on disk"),
        ({"dataset": "folder", "crop": 0.0}, "crop must be"),
        ({"dataset": "folder", "colour": 1.5}, "colour must be"),
    ],
)
def test_changes_that_do_not_fit_the_data_are_refused(
    changes: dict[str, object], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        photographs(recipe.override(Recipe(), changes), skip_corrupt=False)
