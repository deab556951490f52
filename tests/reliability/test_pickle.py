"""Nothing is ever unpickled: no source of ours does it, and no file can make us.

A pickle runs what it names. Here every kind of file that is read is replaced by one that would
leave a mark; reading it must fail with our error and leave none. Weights and checkpoints are
safetensors, so torch.load (with or without ``weights_only``) is never called.
"""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frostbit.kernels.ir.file import load_program
from frostbit.kernels.ir.program import FormatError
from frostbit.pipeline.data import pictures
from frostbit.pipeline.device import check as board_check
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering import pack
from frostbit.pipeline.run import checkpoint, metrics, recipe
from frostbit.pipeline.run import folder as run_folder
from tests import ROOT

FORBIDDEN = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def uses(path: Path) -> list[str]:
    """What in a source file could unpickle."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in FORBIDDEN]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in FORBIDDEN:
            found.append(str(node.module))
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            call = f"{getattr(node.func.value, 'id', '')}.{node.func.attr}"
            allowed = [k.value for k in node.keywords if k.arg == "allow_pickle"]
            if call == "torch.load" or call.endswith("_object_list"):
                found.append(call)
            elif call in ("np.load", "numpy.load", "format.read_array"):
                off = [isinstance(v, ast.Constant) and v.value is False for v in allowed]
                found += [] if off == [True] else [call]
    return found


def test_no_source_unpickles() -> None:
    paths = [
        p for package in ("kernels", "export", "pipeline") for p in (ROOT / package).rglob("*.py")
    ]
    assert len(paths) > 100
    assert {str(path): found for path in paths if (found := uses(path))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from dill import loads",
        "torch.load(f)",
        "torch.load(f, weights_only=True)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "dist.broadcast_object_list(x)",
    ],
)
def test_the_search_finds_what_it_is_for(line: str, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(line)
    assert uses(tmp_path / "x.py")


class Payload:
    """Unpickling it makes a folder."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def payloads(mark: Path) -> dict[str, bytes]:
    """A plain pickle, torch's file, NumPy's, and NumPy's archive."""
    torches, array, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    torch.save({"weight": Payload(mark)}, torches)
    objects = np.array([Payload(mark)], dtype=object)
    np.save(array, objects, allow_pickle=True)
    np.savez(archive, objects)
    made = {"torch": torches, "npy": array, "npz": archive}
    found = {name: buffer.getvalue() for name, buffer in made.items()}
    return {"pickle": pickle.dumps(Payload(mark)), **found}


Reader = Callable[[Path, bytes], Any]


def _in_run(name: str, read: Callable[[Path], Any]) -> Reader:
    """Put ``data`` in place of a run's file, with a right checksum, and read the run."""

    def reader(folder: Path, data: bytes) -> Any:
        facts = json.loads((folder / "run.json").read_text())
        (folder / name).write_bytes(data)
        if name in facts["sha256"]:
            facts["sha256"][name] = sha256(data).hexdigest()
            (folder / "run.json").write_text(json.dumps(facts))
        return read(folder)

    return reader


def _checkpoint(folder: Path, data: bytes) -> None:
    (folder / "checkpoints").mkdir()
    name = f"step-000000001-{sha256(data).hexdigest()}.safetensors"
    (folder / "checkpoints" / name).write_bytes(data)
    found, notes = checkpoint.newest(folder / "checkpoints")
    assert found is None
    raise UserError(notes[0])


def _bundle(folder: Path, data: bytes) -> None:
    (folder / "images.npy").write_bytes(data)
    board_check._array(folder, "images")


READERS: dict[str, Reader] = {
    "model.bnn": _in_run("model.bnn", lambda f: load_program(f / "model.bnn")),
    "model.safetensors": _in_run("model.safetensors", pack.pack),
    "settled.safetensors": _in_run("settled.safetensors", pack.pack),
    "run.json": _in_run("run.json", run_folder.read_run),
    "recipe.toml": _in_run("recipe.toml", run_folder.read_run),
    "metrics.jsonl": _in_run("metrics.jsonl", lambda f: metrics.read(f / "metrics.jsonl")),
    "a recipe file": _in_run("mine.toml", lambda f: recipe.from_file(f / "mine.toml", {})),
    "a picture": _in_run("a.png", lambda f: pictures.open_picture(f / "a.png")),
    "a checkpoint": _checkpoint,
    "a bundle's array": _bundle,
}


@pytest.mark.parametrize("kind", ["pickle", "torch", "npy", "npz"])
@pytest.mark.parametrize("where", READERS)
def test_a_pickle_in_place_of_a_file_is_refused_and_not_run(
    trained: Path, tmp_path: Path, where: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    data = payloads(mark)[kind]
    folder = shutil.copytree(trained, tmp_path / "run")
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    with pytest.raises((UserError, FormatError)):
        READERS[where](folder, data)
    assert not mark.exists()


def test_the_payload_would_run(tmp_path: Path) -> None:
    pickle.loads(payloads(tmp_path / "mark")["pickle"])
    assert (tmp_path / "mark").is_dir()


# ---------------------------------------------------------------- code named in files


CODE = "import os\nos.mkdir({mark!r})\n\ndef net(num_classes):\n    raise ValueError\n"


@pytest.mark.parametrize("trusted", [False, True])
def test_a_run_folder_that_names_code_is_refused_unless_trusted(
    trained: Path, tmp_path: Path, trusted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    name = f"evil_{trusted}"
    (folder / f"{name}.py").write_text(CODE.format(mark=str(tmp_path / "mark")))
    text = (folder / "recipe.toml").read_text().replace('"bireal-4"', f'"{name}:net"')
    monkeypatch.chdir(folder)  # as in `cd run; pipeline pack .`
    monkeypatch.setattr(recipe, "_TRUSTED", set())
    monkeypatch.setenv(recipe.TRUST_VARIABLE, str(int(trusted)))
    with pytest.raises(UserError, match="factory failed" if trusted else "if you trust it"):
        _in_run("recipe.toml", pack.pack)(folder, text.encode())
    assert (tmp_path / "mark").exists() == trusted
    if not trusted:
        with pytest.raises(UserError, match="if you trust it"):
            recipe.from_file(folder / "recipe.toml", {})
        assert recipe.from_file(folder / "recipe.toml", {"model": "bireal-2"}).model == "bireal-2"
        recipe.trust(f"{name}:net")  # as --model on the command line does
        assert recipe.from_file(folder / "recipe.toml", {}).model == f"{name}:net"
