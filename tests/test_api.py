"""The public names: which they are, that they are documented, and that they load nothing early."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
import types
from pathlib import Path

import pytest

import frostbit as fb
from frostbit.export.version import VERSION
from frostbit.kernels.ir.file import save_program
from tests import ROOT, one_name
from tests.nets import every_op

PUBLIC = {
    "Engine", "FormatError", "Program", "StoMPP", "__version__", "binarize", "export_model",
    "load", "pack", "read", "save", "verify",
}  # fmt: skip
BASE = ("Engine", "FormatError", "Program", "__version__", "load", "read", "save")
"""What the base install gives."""
FUNCTIONS = ("binarize", "export_model", "load", "pack", "read", "save", "verify")
IMAGES = "uint8 ``[N, H, W, C]``"
PIXELS = "``[N, C, H, W]``"
LOGITS = "``[N, classes]``"
WORDS = {
    "binarize": (PIXELS, "0..255", "float"),
    "export_model": (PIXELS, "0..255", "float32"),
    "load": (IMAGES, "float32", LOGITS),
    "pack": (PIXELS, IMAGES, "0..255", "float32", LOGITS),
    "read": (IMAGES, "0..255", "float32", LOGITS),
    "save": ("SHA-256",),
    "verify": (IMAGES, "0..255", "int64 ``[N]``"),
    "Engine": ("``(H, W, C)``", "bytes"),
    "Program": ("``(H, W, C)``", "uint8", "float32"),
    "StoMPP": (PIXELS, "0..255", LOGITS),
    "FormatError": ("model file",),
}
"""Shapes, dtypes and units that each documentation must name."""


def run(statement: str, where: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", statement]
    return subprocess.run(command, capture_output=True, text=True, cwd=where, check=False)


def documentation(name: str) -> str:
    """All that is written about a name, a class's ``__init__`` and methods included."""
    found = getattr(fb, name)
    texts = [found.__doc__ or ""]
    if inspect.isclass(found):
        texts += [each.__doc__ or "" for each in vars(found).values() if inspect.isfunction(each)]
    return "\n".join(texts)


def test_the_list_of_names() -> None:
    assert set(fb.__all__) == PUBLIC
    assert set(dir(fb)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_name_is_what_it_is_called_and_documented(name: str) -> None:
    found = getattr(fb, name)
    assert found.__name__ == name
    assert found.__module__ == fb._HOMES[name]
    text = documentation(name)
    assert "Source:" in text
    for word in WORDS[name]:
        assert word in " ".join(text.split()), word
    assert name not in ("Engine", "StoMPP") or "Raises:" in text


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_argument_and_error_is_documented(name: str) -> None:
    found = getattr(fb, name)
    text = documentation(name)
    for section in ("Args:", "Raises:"):
        assert section in text
    arguments = text.partition("Args:")[2].partition("Raises:")[0]
    signature = inspect.signature(found)
    for parameter in signature.parameters.values():
        assert f"{parameter.name}:" in arguments or f"{parameter.name}," in arguments, parameter
        assert parameter.annotation is not inspect.Parameter.empty
    assert signature.return_annotation is not inspect.Signature.empty


def test_stompp_has_the_defaults_of_the_paper() -> None:
    from frostbit.pipeline.run.recipe import load

    paper = load("paper")
    parameters = inspect.signature(fb.StoMPP).parameters
    settings = set(parameters) - {"net", "steps", "activations"}
    assert {"method", "ramp", "refresh", "seed", "warmup", "settle", "overlap"} == settings
    for name in settings:
        assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[name].default == getattr(paper, name), name


def test_the_version_is_one() -> None:
    assert fb.__version__ == VERSION


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(fb, "nonsense")
    with pytest.raises(AttributeError, match="nonsense"):
        _ = fb.nonsense  # type: ignore[attr-defined]


@pytest.mark.parametrize("names", [(), BASE])
def test_names_of_the_base_install_load_nothing_heavy(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    heavy = ("torch", "onnx", "onnxruntime", "sklearn", "matplotlib", "rich", "click")
    looked_at = "".join(f"fb.{name}; " for name in names)
    done = run(f"import sys, frostbit as fb; {looked_at}print(*sys.modules)", tmp_path)
    loaded = set(done.stdout.split())
    assert "frostbit" in loaded, done.stderr
    assert not loaded & {*heavy, *(() if names else ("numpy", "numba", "frostbit.kernels"))}


def test_the_base_install_reads_saves_and_runs_without_torch(tmp_path: Path) -> None:
    save_program(every_op(), tmp_path / "model.bnn")
    done = run(
        "import sys; sys.modules.update(torch=None, onnx=None, onnxruntime=None, sklearn=None)\n"
        "import numpy as np, frostbit as fb\n"
        "program = fb.read('model.bnn'); fb.save(program, 'again.bnn')\n"
        "images = np.zeros((2, *program.input_shape), np.uint8)\n"
        "print(fb.load('again.bnn').run(images).shape)\n"
        "print(fb.verify(program, np.arange(168, dtype=np.uint8).reshape(2, 6, 7, 2)).passed)\n",
        tmp_path,
    )
    assert done.stdout.splitlines() == ["(2, 5)", "True"], done.stderr
    assert (tmp_path / "again.bnn").read_bytes() == (tmp_path / "model.bnn").read_bytes()


@pytest.mark.parametrize("name", ["StoMPP", "binarize", "pack"])
def test_what_needs_an_extra_names_it_in_one_line(name: str, tmp_path: Path) -> None:
    statement = f"import sys; sys.modules['torch'] = None\nfrom frostbit import {name}"
    last = run(statement, tmp_path).stderr.splitlines()[-1]
    assert last == f"ImportError: frostbit.{name} needs torch: pip install 'frostbit[train]'"


def test_a_package_under_its_old_name_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert one_name.imported_twice(sys.modules) == []
    monkeypatch.syspath_prepend(ROOT)
    kernels = importlib.import_module("kernels")
    try:
        assert kernels is not sys.modules["frostbit.kernels"]
        assert "kernels" in one_name.imported_twice(sys.modules)
    finally:
        for name in one_name.imported_twice(sys.modules):
            del sys.modules[name]
    stranger = types.ModuleType("kernels")
    stranger.__file__ = "/elsewhere/kernels/__init__.py"
    assert one_name.imported_twice({"kernels": stranger}) == []
