"""Checkpoints: the state of a training run after a step, verified before it is trusted.

One safetensors file per checkpoint (never pickle): tensors of the network, the optimizer and the
interval being averaged; everything else as JSON in the file's metadata. Its name carries step and
SHA-256, so that it is complete and unchanged or not used. Masks, data order, augmentation and
random numbers are functions of (seed, step) and need no state. The last two files are kept.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct
from torch import Tensor

from frostbit.pipeline import json_file
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import Count
from frostbit.pipeline.run.folder import to_bytes, write_bytes, writing
from frostbit.pipeline.run.metrics import Metrics

VERSION = 1
KEPT = 2
_NAME = re.compile(r"step-(\d{9})-([0-9a-f]{64})\.safetensors")


class _Header(Struct):
    metadata: dict[str, str] = msgspec.field(name="__metadata__")


class _Version(Struct):
    version: int


class _Facts(Struct):
    step: Count
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    history: list[Metrics]


@dataclass(frozen=True)
class Checkpoint:
    """State after ``step`` training steps.

    Attributes:
        step: steps done.
        tensors: by name, as :meth:`frostbit.pipeline.training.loop.Trainer.state` gives them.
        facts: JSON values: recipe, history, seconds.
    """

    step: int
    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> Path:
    """Write a checkpoint atomically, then remove all but the last two; returns its path.

    Raises:
        UserError: full disk and the like; older checkpoints are then untouched.
    """
    facts = {"version": VERSION, "step": checkpoint.step, **checkpoint.facts}
    data = to_bytes(checkpoint.tensors, {"frostbit": json.dumps(facts)})
    digest = hashlib.sha256(data).hexdigest()
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
    path = folder / f"step-{checkpoint.step:09d}-{digest}.safetensors"
    write_bytes(path, data)
    with writing(folder):
        for old in _files(folder)[KEPT:]:
            old.unlink(missing_ok=True)
    return path


def _files(folder: Path) -> list[Path]:
    """Checkpoint files, newest first."""
    found = [p for p in folder.glob("step-*.safetensors") if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: p.name, reverse=True)


def newest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest valid checkpoint in ``folder`` (None if there is none), and what was wrong.

    The second value has one line for each newer file that is damaged.
    """
    notes: list[str] = []
    for path in _files(folder):
        try:
            return _load(path), notes
        except (OSError, UserError) as error:
            notes.append(f"checkpoint '{path.name[:14]}' is damaged ({error}); trying an older one")
    return None, notes


def _load(path: Path) -> Checkpoint:
    """Read one file; UserError saying what is wrong with it."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    match = _NAME.fullmatch(path.name)
    data = path.read_bytes()
    if match is None or hashlib.sha256(data).hexdigest() != match[2]:
        raise UserError("its checksum is wrong")
    size = int.from_bytes(data[:8], "little")
    try:
        text = json_file.parse(data[8 : 8 + size], _Header).metadata["frostbit"].encode()
        version = json_file.parse(text, _Version).version
        if version != VERSION:
            raise UserError(f"it has version {version}, not {VERSION}")
        facts = json_file.document(text, _Facts)
        if facts["step"] != int(match[1]):
            raise UserError("its name tells another step")
        return Checkpoint(int(match[1]), load(data), facts)
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"it is no checkpoint: {error}") from error


def _sweep(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote a checkpoint."""
    for left in folder.glob(".step-*"):
        left.unlink(missing_ok=True)


def remove(folder: Path) -> None:
    """Remove the checkpoints of a run that is finished, and their folder if nothing else is there.

    Raises:
        UserError: if a file cannot be removed.
    """
    with writing(folder):
        _sweep(folder)
        for path in _files(folder):
            path.unlink(missing_ok=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
