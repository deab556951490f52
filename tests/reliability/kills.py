"""SIGKILL a training again and again; the model at the end must have the same bytes.

Half of the kills come at random moments, half as soon as a checkpoint's temporary file is seen,
so while it is being written. The killed command is repeated as a job scheduler would, with
``--resume``, until it ends by itself.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tests import ROOT

STEP = 2
"""Steps between checkpoints: so many that a kill often meets one being written."""
FILES = ("model.safetensors", "settled.safetensors", "metrics.jsonl", "model.bnn")


@dataclass(frozen=True)
class Kills:
    """What :func:`survive` saw.

    Attributes:
        tried: processes that were killed.
        in_writing: of those, while a checkpoint was being written.
        trainings: that were brought to an end.
        equal: of those, with every file of :data:`FILES` equal to the uninterrupted one's.
    """

    tried: int
    in_writing: int
    trainings: int
    equal: int


def _command(folder: Path, resume: bool) -> list[str]:
    recipe = ["--recipe", "digits", "--epochs", "6", "--set", "width=8"]
    where = ["--resume", str(folder)] if resume else ["--out", str(folder)]
    every = ["--checkpoint-every", str(STEP)]
    return [sys.executable, "-m", "frostbit", "train", *recipe, *where, *every]


def _start(folder: Path, resume: bool) -> subprocess.Popen[bytes]:
    quiet = subprocess.DEVNULL
    return subprocess.Popen(_command(folder, resume), cwd=ROOT, stdout=quiet, stderr=quiet)


def _digest(folder: Path) -> str:
    pack = [sys.executable, "-m", "frostbit", "pack", str(folder), "--force"]
    subprocess.run(pack, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    digest = hashlib.sha256()
    for name in FILES:
        digest.update((folder / name).read_bytes())
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    assert not left, left
    return digest.hexdigest()


def _kill(child: subprocess.Popen[bytes], folder: Path, delay: float, in_writing: bool) -> str:
    """Wait, kill; ``ended``, ``killed`` or ``killed in writing``."""
    end = time.monotonic() + delay
    leftovers = _temporary(folder)
    while child.poll() is None:
        if time.monotonic() > end and (not in_writing or _temporary(folder) - leftovers):
            break
        time.sleep(0 if in_writing else 0.005)
    if child.poll() is not None:
        return "ended"
    child.send_signal(signal.SIGKILL)
    child.wait()
    return "killed in writing" if in_writing or _temporary(folder) - leftovers else "killed"


def _temporary(folder: Path) -> set[str]:
    try:
        return {name for name in os.listdir(folder / "checkpoints") if name.startswith(".")}
    except FileNotFoundError:
        return set()


def survive(folder: Path, kills: int, seed: int = 0) -> Kills:
    """Kill ``kills`` times, over as many trainings as that takes."""
    start = time.monotonic()
    whole = _start(folder / "whole", False)
    assert whole.wait() == 0
    seconds = time.monotonic() - start
    expected = _digest(folder / "whole")
    rng = np.random.default_rng(seed)
    tried = in_writing = trainings = equal = 0
    while tried < kills:
        out = folder / f"run{trainings}"
        resume = False
        while True:
            child = _start(out, resume)
            resume = True
            if tried >= kills:
                assert child.wait() == 0
                break
            wanted = tried % 2 == 1
            delay = float(rng.uniform(0.2, 0.95) * seconds)
            how = _kill(child, out, delay, wanted)
            if how == "ended":
                assert child.returncode == 0
                break
            tried += 1
            in_writing += how == "killed in writing"
        trainings += 1
        equal += _digest(out) == expected
    return Kills(tried, in_writing, trainings, equal)
