"""Two trainings never write into one folder; the lock ends with its process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run.folder import LOCK
from frostbit.pipeline.training.folder_lock import locked

HOLDER = (
    "import sys, time; from pathlib import Path; "
    "from frostbit.pipeline.training.folder_lock import locked\n"
    "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
)


@pytest.fixture
def holder(tmp_path: Path) -> "subprocess.Popen[str]":
    """Another process that has the lock of ``tmp_path / 'run'``."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as said:
        assert said.readline() == "held\n"
    return process


def enter(folder: Path) -> None:
    with locked(folder):
        pass


def test_another_process_is_kept_out_until_it_dies(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    try:
        link = tmp_path / "link"
        link.symlink_to("run")
        for folder in (tmp_path / "run", link):
            with pytest.raises(UserError, match="another training runs in"):
                enter(folder)
        command = ["train", "--recipe", "digits", "--force", "--out", str(tmp_path / "run")]
        done = subprocess.run(
            [sys.executable, "-m", "frostbit", *command],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 2
        assert "another training runs in" in done.stderr
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    enter(tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_one_process_is_kept_out_of_its_own_folder(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(UserError, match="another training runs in"):
            enter(tmp_path)
        enter(tmp_path / "other")
        assert (tmp_path / LOCK).exists()
    enter(tmp_path)


def test_a_forked_process_does_not_hold_the_lock(tmp_path: Path) -> None:
    """A killed training's picture decoders may outlive it by seconds."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=hold_and_fork, args=(tmp_path, ready))
    process.start()
    assert ready.wait(60)
    assert process.pid is not None
    child = int((tmp_path / "child").read_text())
    try:
        process.kill()
        process.join()
        os.kill(child, 0)  # still there
        enter(tmp_path)
    finally:
        os.kill(child, signal.SIGKILL)


def hold_and_fork(folder: Path, ready: "multiprocessing.synchronize.Event") -> None:
    with locked(folder):
        child = os.fork()
        if child == 0:
            time.sleep(600)
        (folder / "child").write_text(str(child))
        ready.set()
        time.sleep(600)


def test_a_stale_file_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).write_text("")
    enter(tmp_path)
