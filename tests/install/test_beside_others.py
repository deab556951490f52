"""Installed beside Hugging Face's ``kernels`` and PyPI's ``pipeline`` and ``export``."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import numpy as np
import pytest

import frostbit as fb
from frostbit.kernels.ir import reference
from tests.nets import every_op, images

OTHERS = ("kernels", "pipeline", "export")


def pip(environment: Path, words: list[str]) -> None:
    command = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")]
    done = subprocess.run([*command, "install", "-q", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def output(where: Path, *command: str | Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=where, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("first", "whole"),
    [("ours", False), ("theirs", False), pytest.param("theirs", True, marks=pytest.mark.slow)],
)
def test_all_work_whichever_came_first(
    first: str, whole: bool, wheel: Path, tmp_path: Path
) -> None:
    """A fresh environment; ``whole``: with what ours needs from the registry, else from here."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    (site,) = environment.glob("lib/python*/site-packages")
    if not whole:
        (site / "shared.pth").write_text(f"{Path(np.__file__).parents[1]}\n")
    ours = [str(wheel)] if whole else ["--no-deps", str(wheel)]
    for words in (ours, [*OTHERS]) if first == "ours" else ([*OTHERS], ours):
        pip(environment, words)

    program = every_op()
    pictures = images(program, 3)
    fb.save(program, tmp_path / "model.bnn")
    np.save(tmp_path / "images.npy", pictures)
    python = environment / "bin" / "python"
    script = (
        "import numpy as np, frostbit as fb, kernels, pipeline.pipeline, export.api\n"
        "np.save('logits.npy', fb.load('model.bnn').run(np.load('images.npy')))\n"
        "print(fb.__file__, kernels.__file__, pipeline.__file__, export.__file__, sep='\\n')\n"
        "print(kernels.__version__, callable(kernels.get_kernel))\n"
    )
    *files, version = output(tmp_path, python, "-c", script).splitlines()
    assert files == [str(site / name / "__init__.py") for name in ("frostbit", *OTHERS)]
    assert version.endswith(" True")
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_array_equal(logits, reference.run(program, pictures))
    for command in ([environment / "bin" / "pipeline"], [python, "-m", "frostbit"]):
        assert "Example: pipeline run" in output(tmp_path, *command, "--help")
    assert "frostbit" not in output(tmp_path, environment / "bin" / "kernels", "--help")
