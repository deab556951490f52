"""CIFAR in its real binary format, from a folder and from the archive."""

import tarfile
from pathlib import Path

import numpy as np
import pytest

from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import UserError

RNG = np.random.default_rng(3)


def records(count: int, classes: int, label_bytes: int) -> np.ndarray:
    """uint8 ``[count, label_bytes + 3072]`` as in the archives."""
    labels = np.arange(count)[:, None] % classes
    coarse = labels // 5
    parts = [labels] if label_bytes == 1 else [coarse, labels]
    pixels = RNG.integers(0, 256, (count, 3072))
    return np.concatenate([*parts, pixels], axis=1).astype(np.uint8)


def write10(folder: Path) -> np.ndarray:
    inner = folder / "cifar-10-batches-bin"
    inner.mkdir(parents=True)
    batches = [records(20, 10, 1) for _ in range(5)]
    for number, batch in enumerate(batches, 1):
        (inner / f"data_batch_{number}.bin").write_bytes(batch.tobytes())
    (inner / "test_batch.bin").write_bytes(records(10, 10, 1).tobytes())
    (inner / "batches.meta.txt").write_text("\n".join(f"class{i}" for i in range(10)) + "\n\n")
    return np.concatenate(batches)


def write100(folder: Path) -> np.ndarray:
    inner = folder / "cifar-100-binary"
    inner.mkdir(parents=True)
    train = records(200, 100, 2)
    (inner / "train.bin").write_bytes(train.tobytes())
    (inner / "test.bin").write_bytes(records(100, 100, 2).tobytes())
    (inner / "fine_label_names.txt").write_text("\n".join(f"fine{i}" for i in range(100)) + "\n")
    return train


def test_cifar10(tmp_path: Path) -> None:
    written = write10(tmp_path)
    found = datasets.load("cifar10", tmp_path)
    assert found.classes == tuple(f"class{i}" for i in range(10))
    assert found.image_shape == (32, 32, 3)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [90, 10, 10]
    order = datasets.shuffled(100)
    expected = written[order[10:], 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    assert np.array_equal(found.train.take(range(90)), expected)
    assert np.array_equal(found.train.labels, written[order[10:], 0])
    assert np.array_equal(found.validation.labels, written[order[:10], 0])
    assert len(found.mean) == len(found.std) == 3


def test_cifar100_uses_the_fine_labels(tmp_path: Path) -> None:
    written = write100(tmp_path)
    found = datasets.load("cifar100", tmp_path)
    assert found.classes[7] == "fine7"
    order = datasets.shuffled(200)
    assert np.array_equal(found.train.labels, written[order[20:], 1])
    assert found.train.labels.max() == 99


def test_the_archive_is_read_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write10(tmp_path / "made")
    plain = datasets.load("cifar10", tmp_path / "made")
    (tmp_path / "packed").mkdir()
    with tarfile.open(tmp_path / "packed" / "cifar-10-binary.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "made" / "cifar-10-batches-bin", "cifar-10-batches-bin")
    monkeypatch.setenv(datasets.DATA_VARIABLE, str(tmp_path / "packed"))
    packed = datasets.load("cifar10")
    assert np.array_equal(packed.test.take(range(10)), plain.test.take(range(10)))
    assert not (tmp_path / "packed" / "cifar-10-batches-bin").exists()


def refused(folder: Path, *words: str, name: str = "cifar10") -> None:
    with pytest.raises(UserError) as refusal:
        datasets.load(name, folder)
    for word in (*words, "binary", "--data-dir"):
        assert word in str(refusal.value), str(refusal.value)


def test_what_is_missing_or_damaged_is_named(tmp_path: Path) -> None:
    refused(tmp_path, "no cifar10", "cifar-10-binary.tar.gz")
    refused(tmp_path, "no cifar100", name="cifar100")
    write10(tmp_path)
    inner = tmp_path / "cifar-10-batches-bin"
    batch = inner / "data_batch_3.bin"
    whole = batch.read_bytes()
    batch.write_bytes(whole[:-5])
    refused(tmp_path, "data_batch_3.bin", "records of 3073 bytes")
    batch.write_bytes(bytes([10]) + whole[1:])
    refused(tmp_path, "data_batch_3.bin", "label 10")
    batch.unlink()
    refused(tmp_path, "cannot read data_batch_3.bin")
    (inner / "batches.meta.txt").write_text("one\n")
    refused(tmp_path, "has 1 classes")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"\x1f\x8bnonsense")
    refused(tmp_path, "cannot read")
