"""What README and docs show is run: their shell commands in order, then their Python.

A fenced ``sh`` block is run as it stands; what cannot run here (ssh, torchrun on many machines,
Android) stands in indented blocks.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import ROOT

README = (ROOT / "README.md").read_text()
DOCS = ("deploy-pi", "bench", "your-data")
"""Pages with commands; they use the run that the README's commands made."""


def blocks(language: str, text: str = README) -> list[str]:
    """Fenced code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def page(name: str) -> str:
    return (ROOT / "docs" / f"{name}.md").read_text()


def run_commands(text: str, where: Path) -> None:
    """Run every command of the shell blocks of ``text`` in the folder ``where``."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for line in (line for block in blocks("sh", text) for line in block.splitlines()):
        program, *arguments = shlex.split(line, comments=True)
        assert program == "pipeline", line
        command = [sys.executable, "-m", "frostbit", *arguments]
        done = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every shell command of the README has run."""
    where = tmp_path_factory.mktemp("readme")
    assert sum(block.count("\n") for block in blocks("sh")) >= 4
    # The one file that the commands do not make: a small QuickNet of the official converter.
    shutil.copy(ROOT / "tests/data/foreign/mini_quicknet.tflite", where / "quicknet.tflite")
    run_commands(README, where)
    return where


@pytest.mark.parametrize("name", DOCS)
def test_commands_of_the_docs_run(folder: Path, name: str) -> None:
    rng = np.random.default_rng(0)
    for kind, tint in (("apple", 40), ("pear", 200)):
        (folder / "pictures" / kind).mkdir(parents=True, exist_ok=True)
        for i in range(20):
            pixels = rng.integers(tint - 40, tint + 40, (70, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / kind / f"{i}.png")
    run_commands(page(name), folder)


def test_no_page_with_commands_is_forgotten() -> None:
    pages = {path.stem for path in (ROOT / "docs").glob("*.md") if blocks("sh", path.read_text())}
    assert pages == set(DOCS)


def test_the_python_of_the_method_runs() -> None:
    (code,) = blocks("python", page("method"))
    names: dict[str, Any] = {}
    exec(compile(code, "method", "exec"), names)
    assert tuple(names["logits"].shape) == (2, 10)


def test_the_page_of_the_python_api_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    whole, plain = blocks("python", page("api"))
    exec(compile(whole, "api", "exec"), names)
    assert names["logits"].shape == (360, 10)
    right, exported, parity = capsys.readouterr().out.splitlines()
    assert float(right.split()[0]) > 20
    assert " 0 differ" in exported
    assert parity == "passed"
    exec(compile(plain, "api", "exec"), names)
    batches = names["batches"][:6]
    freezer = names["fb"].StoMPP(names["net"], len(batches))
    names["train"](names["net"], batches, names["optimizer"], freezer, first=3)
    assert freezer.step == len(batches)


def test_links_to_files_lead_somewhere() -> None:
    for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


def test_the_python_example_runs(folder: Path) -> None:
    (code,) = blocks("python")
    model = folder / "runs" / "mine" / "model.bnn"
    images = np.zeros((2, 8, 8, 1), np.uint8)
    names = {"images": images}
    # The example itself, with the path of the model that the commands above made.
    exec(compile(code.replace('"model.bnn"', repr(str(model))), "README", "exec"), names)
    assert np.asarray(names["logits"]).shape == (2, 10)


def test_both_commands_and_every_dependency_are_named() -> None:
    assert "make demo" in README
    assert "make test" in README
    listed = re.findall(
        r'^    "([a-z-]+)[>=;]', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )
    assert len(listed) > 10
    for name in listed:
        assert re.search(rf"\|[^|\n]*\b{name}\b", page("dependencies")), name


def test_the_first_screen() -> None:
    """What it is, one table, two commands, one picture; the rest is in docs/."""
    assert README.count("\n") <= 150
    first = README.partition("## What it does")[0]
    assert first.count("\n") <= 45
    assert len(re.findall(r"^\|[-|]+\|$", first, re.MULTILINE)) == 1
    assert len(re.findall(r"^make ", first, re.MULTILINE)) == 2
    assert len(re.findall(r"^!\[", README, re.MULTILINE)) == 1
