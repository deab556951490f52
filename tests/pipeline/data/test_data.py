"""Data sets: stated splits, the IDX format, and what a damaged file is told."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from frostbit.pipeline.data import datasets
from frostbit.pipeline.data import fashion as data_idx
from frostbit.pipeline.errors import UserError

IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"


def idx(array: np.ndarray) -> bytes:
    """``array`` (uint8) as an uncompressed IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def write(folder: Path, train: int = 36, test: int = 12) -> Path:
    """A small Fashion-MNIST in its real format."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    for names, count in (((IMAGES, LABELS), train), ((TEST_IMAGES, TEST_LABELS), test)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        (folder / names[0]).write_bytes(gzip.compress(idx(images)))
        labels = (np.arange(count) % 10).astype(np.uint8)
        (folder / names[1]).write_bytes(gzip.compress(idx(labels)))
    return folder


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    return write(tmp_path / "set")


def test_the_small_fashion_set_is_the_large_one_averaged(fashion: Path) -> None:
    large, small = (datasets.load(name, fashion) for name in ("fashion-mnist", "fashion-mnist-14"))
    assert small.image_shape == (14, 14, 1)
    assert np.array_equal(small.test.labels, large.test.labels)
    mean = large.test.images.astype(np.float64).reshape(-1, 14, 2, 14, 2, 1).mean(axis=(2, 4))
    assert np.array_equal(small.test.images, np.floor(mean + 0.5).astype(np.uint8))


def test_the_first_images_of_a_split() -> None:
    train = datasets.load("digits").train
    assert len(train.first(100)) == 100
    assert np.array_equal(train.first(100).labels, train.labels[:100])
    assert train.first(0) is train
    with pytest.raises(UserError, match="there are 1197"):
        train.first(1198)


def test_digits() -> None:
    digits = datasets.load("digits")
    assert (len(digits.train), len(digits.validation), len(digits.test)) == (1197, 240, 360)
    assert digits.image_shape == (8, 8, 1)
    assert digits.classes == tuple("0123456789")
    splits = (digits.train, digits.validation, digits.test)
    for split in splits:
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        assert set(split.labels) == set(range(10))
        levels = np.round(np.arange(17) * 255 / 16)
        assert set(np.unique(split.images)) == set(levels)
    together = np.concatenate([split.images for split in splits]).reshape(1797, 64)
    from sklearn.datasets import load_digits

    original = np.round(load_digits().data * 255 / 16)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, original.tolist()))
    pixels = digits.train.images / 255
    assert digits.mean == pytest.approx((pixels.mean(),), abs=1e-4)
    assert digits.std == pytest.approx((pixels.std(),), abs=1e-4)


def test_the_split_is_fixed() -> None:
    order = datasets.shuffled(1797)
    assert sorted(order) == list(range(1797))
    assert datasets.shuffled(10).tolist() == [2, 4, 6, 8, 5, 1, 7, 0, 9, 3]


def test_fashion_from_a_folder(fashion: Path) -> None:
    found = datasets.load("fashion-mnist", fashion)
    assert (len(found.train), len(found.validation), len(found.test)) == (33, 3, 12)
    assert found.image_shape == (28, 28, 1)
    assert len(found.classes) == 10
    raw = gzip.decompress((fashion / IMAGES).read_bytes())[16:]
    everything = np.frombuffer(raw, np.uint8).reshape(36, 28, 28, 1)
    order = datasets.shuffled(36)
    assert np.array_equal(found.validation.images, everything[order[:3]])
    assert np.array_equal(found.train.images, everything[order[3:]])
    assert np.array_equal(found.train.labels, order[3:] % 10)
    assert found.test.labels.tolist() == [i % 10 for i in range(12)]
    for split in (found.train, found.validation, found.test):
        assert split.images.flags.writeable  # torch warns otherwise
        assert split.labels.flags.writeable


@pytest.mark.parametrize("inside", ["fashion-mnist", "FashionMNIST/raw"])
def test_fashion_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str
) -> None:
    write(tmp_path / inside)
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path))
    assert len(datasets.load("fashion-mnist").test) == 12


def test_description(fashion: Path) -> None:
    facts = datasets.as_json(datasets.load("fashion-mnist", fashion))
    assert facts["image_shape"] == [28, 28, 1]
    assert facts["splits"] == {"train": 33, "validation": 3, "test": 12}


def refuse(folder: Path, *words: str) -> None:
    with pytest.raises(UserError) as refusal:
        datasets.load("fashion-mnist", folder)
    text = str(refusal.value)
    assert "\n" not in text
    for word in (*words, "make system", "--data-dir"):
        assert word in text


@pytest.mark.parametrize("name", [IMAGES, LABELS, TEST_IMAGES, TEST_LABELS])
def test_a_missing_file_is_named(fashion: Path, name: str) -> None:
    (fashion / name).unlink()
    refuse(fashion, "missing", name)


@pytest.mark.parametrize("name", [IMAGES, TEST_LABELS])
def test_a_truncated_or_foreign_file_is_named(fashion: Path, name: str) -> None:
    path = fashion / name
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"no gzip at all", b"", whole[:-9] + bytes(9)):
        path.write_bytes(content)
        refuse(fashion, name)


def test_wrong_content_is_named(fashion: Path) -> None:
    images = np.zeros((36, 28, 28), np.uint8)
    good = idx(images)
    cases = {
        "not an IDX": b"\0\0\x0d\x03" + good[4:],
        "not an IDX file of 3": good[:7],
        "should hold": good[:-1],
        "28x28": idx(np.zeros((36, 27, 28), np.uint8)),
        "36 labels for 35 images": idx(images[:35]),
        "labels for 0 images": idx(images[:0]),
    }
    for word, content in cases.items():
        (fashion / IMAGES).write_bytes(gzip.compress(content))
        refuse(fashion, word)


def test_a_label_out_of_range_is_named(fashion: Path) -> None:
    labels = np.arange(36).astype(np.uint8) % 11
    (fashion / LABELS).write_bytes(gzip.compress(idx(labels)))
    refuse(fashion, LABELS, "label 10, not in 0..9")


def test_an_absent_set_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(data_idx, "DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="make system"):
        datasets.load("fashion-mnist")


def test_a_failing_download_names_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(root: str, download: bool) -> None:
        raise RuntimeError(f"no network for {root} {download}")

    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(data_idx, "DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", offline)
    with pytest.raises(UserError, match=r"download failed.*make system"):
        datasets.load("fashion-mnist", download=True)


def test_a_download_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(root: str, download: bool) -> None:
        assert download
        write(Path(root) / "FashionMNIST" / "raw")

    monkeypatch.delenv(datasets.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(data_idx, "DEBIAN_FOLDER", tmp_path / "nowhere")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fetch)
    assert len(datasets.load("fashion-mnist", download=True).train) == 33
    assert len(datasets.load("fashion-mnist").train) == 33  # from the cache


def test_an_unknown_set_gets_a_suggestion() -> None:
    with pytest.raises(UserError, match="did you mean 'fashion-mnist'"):
        datasets.load("fashion")


def test_loading_needs_no_torch(fashion: Path) -> None:
    code = (
        "import sys; from frostbit.pipeline.data import datasets; datasets.load('digits'); "
        f"datasets.load('fashion-mnist', {str(fashion)!r}); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
