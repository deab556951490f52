"""SIGTERM and a full disk, on the real command: what is left is whole, and training goes on."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from frostbit.pipeline.run import checkpoint
from frostbit.pipeline.run.folder import RunFolder
from tests import ROOT
from tests.reliability.kills import FILES

TRAIN = [sys.executable, "-m", "frostbit", "train"]
RECIPE = ["--recipe", "digits", "--device", "cpu", "--epochs", "40", "--checkpoint-every", "3"]
RECIPE += [word for text in ("width=8", "model=bireal-2", "train_images=300", "batch=60")
           for word in ("--set", text)]  # fmt: skip


def start(*words: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([*TRAIN, *words], cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


def finish(*words: str) -> str:
    child = start(*words)
    said, errors = child.communicate(timeout=300)
    assert child.returncode == 0, errors
    return said


def wait_for_checkpoints(child: subprocess.Popen[str], folder: Path) -> None:
    while len(list(folder.glob("checkpoints/step-*"))) < checkpoint.KEPT:
        assert child.poll() is None, child.communicate()
        time.sleep(0.01)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES if name != "model.bnn"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the run that nothing stopped."""
    out = tmp_path_factory.mktemp("whole") / "run"
    finish(*RECIPE, "--out", str(out))
    return contents(out)


def test_sigterm_saves_exits_143_and_resume_may_name_the_folder_twice(
    whole: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    child = start(*RECIPE, "--out", str(out))
    wait_for_checkpoints(child, out)
    child.send_signal(signal.SIGTERM)
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 128 + signal.SIGTERM
    assert "nothing is lost" in errors
    assert "Traceback" not in errors
    kept, notes = checkpoint.newest(RunFolder(out).checkpoints)
    assert notes == []
    assert kept is not None
    assert f"after step {kept.step}," in errors
    said = finish("--resume", str(out), "--out", f"{out}/../run")
    assert f"going on from step {kept.step} of" in said
    assert contents(out) == whole
    other = start("--resume", str(out), "--out", str(tmp_path / "other"))
    _, errors = other.communicate(timeout=60)
    assert other.returncode == 2
    assert "leave out --out" in errors


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    mounted = shutil.which("mount") and subprocess.run(words, check=False).returncode == 0
    if not mounted:
        assert not os.environ.get("CI"), "cannot mount a tmpfs: CI runs as root"
        pytest.skip("mounting a tmpfs needs root")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(child: subprocess.Popen[str], path: Path) -> None:
    """Take every byte that is left or becomes free, until training has ended."""
    with path.open("wb", buffering=0) as stream:
        while child.poll() is None:
            for size in (1 << 16, 1 << 12, 1):
                with contextlib.suppress(OSError):
                    while stream.write(bytes(size)) == size:
                        pass
            time.sleep(0.01)


def test_a_full_disk_ends_training_with_the_last_good_checkpoint(
    whole: dict[str, bytes], disk: Path
) -> None:
    out = disk / "run"
    child = start(*RECIPE, "--out", str(out))
    wait_for_checkpoints(child, out)
    fill(child, disk / "filler")
    _, errors = child.communicate(timeout=60)
    assert child.returncode == 2, errors
    assert "No space left on device" in errors
    assert "free space" in errors
    assert "Traceback" not in errors
    kept, notes = checkpoint.newest(RunFolder(out).checkpoints)
    assert kept is not None
    assert notes == []
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]
    (disk / "filler").unlink()
    assert f"going on from step {kept.step} of" in finish("--resume", str(out))
    assert contents(out) == whole
