"""The folder of a training run: which files it holds, written whole or not at all.

========================  =======================================================
``recipe.toml``           the recipe, overrides applied
``run.json``              figures and conditions (:func:`write_run`)
``model.safetensors``     trained latent weights, buffers and mask progress
``settled.safetensors``   the exact network (absent if training ended not binary)
``metrics.jsonl``         one line per measured interval
``training.png``          loss, accuracy and frozen share over time
``pictures.jsonl``        of a data set on disk: every picture, its hash and its part
``checkpoints/``          state of an unfinished run (:mod:`frostbit.pipeline.run.checkpoint`)
========================  =======================================================

``pack``, ``export`` and ``bench`` add their files beside these.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostbit.kernels.ir.output import check_writable, remove_file, write_file
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run import checks as run_checks
from frostbit.pipeline.run import recipe as recipes
from frostbit.pipeline.run.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor

LOCK = ".training"
"""Lies in a folder while a training runs there."""
LATER_FILES = ("model.bnn", "model.onnx", "model.tflite", "bench.json")


@dataclass(frozen=True)
class RunFolder:
    """Paths of a run folder."""

    path: Path

    @property
    def recipe(self) -> Path:
        return self.path / "recipe.toml"

    @property
    def run(self) -> Path:
        return self.path / "run.json"

    @property
    def model(self) -> Path:
        return self.path / "model.safetensors"

    @property
    def settled(self) -> Path:
        return self.path / "settled.safetensors"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def picture(self) -> Path:
        return self.path / "training.png"

    @property
    def pictures(self) -> Path:
        return self.path / "pictures.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def artifacts(self) -> tuple[Path, ...]:
        """Every file that a run or a later stage writes here."""
        own = (self.run, self.recipe, self.model, self.settled, self.metrics, self.picture)
        return (*own, self.pictures, *(self.path / name for name in LATER_FILES))


@dataclass(frozen=True)
class Run:
    """A finished run as read back: its folder, recipe, and the contents of run.json."""

    folder: RunFolder
    recipe: Recipe
    facts: dict[str, Any]


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an operating system error while writing ``path`` into a UserError."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(
            f"cannot write '{path}': {reason}; free space or choose another folder with --out"
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``path`` as :func:`frostbit.kernels.ir.output.write_file` does.

    Raises:
        UserError: full disk, read-only folder and the like; a regular file is then untouched.
    """
    with writing(path):
        write_file(path, data)


def require_writable(path: Path) -> None:
    """UserError now, before the work is done, unless the file ``path`` can be written."""
    with writing(path):
        check_writable(path)


def to_bytes(tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    """A state dict as safetensors (any device, any layout).

    Raises:
        UserError: two names share one tensor, which would be two when read.
    """
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    owners: dict[int, str] = {}
    for name, value in plain.items():
        other = owners.setdefault(value.data_ptr(), name) if value.numel() else name
        if other != name:
            raise UserError(f"'{other}' and '{name}' are one tensor; give each its own")
    return save(plain, metadata)


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write :func:`to_bytes` of a state dict."""
    write_bytes(path, to_bytes(tensors))


def refuse_existing(path: Path, force: bool) -> None:
    """UserError if a file ``path`` may not be overwritten, or its folder is missing."""
    if not path.parent.is_dir():
        raise UserError(f"there is no folder '{path.parent}'; make it or choose another --out")
    if path.is_file() and not force:
        raise UserError(f"'{path}' exists; overwrite it with --force or choose another --out")


def require_free(out: Path, used: bool = False) -> None:
    """UserError unless a run may go into ``out``: a new or empty folder, or a used one if told."""
    with writing(out):
        if out.exists() and not out.is_dir():
            raise UserError(f"'{out}' is a file; choose another folder with --out")
        held = {path.name for path in out.iterdir()} if out.exists() else set()
        if held - {LOCK} and not used:
            raise UserError(
                f"folder '{out}' is not empty; overwrite it with --force or choose another --out"
            )


def prepare(out: Path, force: bool, resume: bool = False) -> RunFolder:
    """Make ``out`` ready for a run.

    With ``force`` the artifacts of an older run are removed, with ``resume`` everything stays.

    Raises:
        UserError: the folder is not empty, not a folder, or cannot be written.
    """
    folder = RunFolder(out)
    require_free(out, force or resume)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        for artifact in () if resume else folder.artifacts:
            remove_file(artifact)
        for artifact in folder.artifacts:  # what a process left that was killed while it wrote
            for left in out.glob(f".{artifact.name}.*"):
                left.unlink(missing_ok=True)
    require_writable(folder.run)
    return folder


def write_run(folder: RunFolder, facts: dict[str, Any]) -> None:
    """Write run.json, last of all files, with the checksums of the others."""
    files = (folder.recipe, folder.model, folder.settled, folder.metrics, folder.pictures)
    sums = {path.name: _sha256(path) for path in files if path.exists()}
    content = {"format_version": run_checks.FORMAT_VERSION, **facts, "sha256": sums}
    write_bytes(folder.run, (json.dumps(content, indent=2) + "\n").encode())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def read_run(path: Path | str) -> Run:
    """Read and verify a run folder.

    Raises:
        UserError: no run there, another format version, or a damaged or missing file.
    """
    folder = RunFolder(Path(path))
    again = "train it again with `pipeline train --force`"
    facts = run_checks.read(folder.run, again)
    for name, expected in facts["sha256"].items():
        file = folder.path / Path(name).name[:200]
        if not file.is_file() or _sha256(file) != expected:
            raise UserError(f"'{file}' is missing or was changed after training; {again}")
    text = recipes.read_text(folder.recipe)
    return Run(folder, recipes.from_toml(text, f"'{folder.recipe}'"), facts)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; UserError if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise UserError(f"cannot read '{path}' ({error}); train the run again") from error
