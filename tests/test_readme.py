"""What the README shows is run: its shell commands in order, then its Python."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    """Fenced code blocks of one language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every shell command of the README has run."""
    where = tmp_path_factory.mktemp("readme")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    commands = [line for block in blocks("sh") for line in block.splitlines()]
    assert len(commands) >= 4
    for line in commands:
        program, *arguments = shlex.split(line, comments=True)
        assert program == "pipeline", line
        command = [sys.executable, "-m", "pipeline.cli", *arguments]
        done = subprocess.run(
            command, cwd=where, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return where


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
        assert re.search(rf"\|[^|\n]*\b{name}\b", README), name
