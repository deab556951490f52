"""The scripts in ``examples/`` run and say what is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import frostbit as fb
from frostbit.pipeline.data import datasets
from tests import ROOT

EXAMPLES = {path.name for path in (ROOT / "examples").glob("*.py")}


def run(name: str, where: Path, *words: Path) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, words)]
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def own_loop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which the script trained a network, and what it printed."""
    folder = tmp_path_factory.mktemp("examples")
    return folder, run("own_loop.py", folder, folder)


def test_every_script_is_run_here() -> None:
    assert {"own_loop.py", "camera_loop.py", "export_and_verify.py"} == EXAMPLES


def test_the_engine_is_as_right_as_the_module(own_loop: tuple[Path, str]) -> None:
    _, printed = own_loop
    found = dict(re.findall(r"^(module|engine): (\d+) of 360 right", printed, re.MULTILINE))
    assert found["module"] == found["engine"]
    assert int(found["engine"]) > 330


def test_a_class_and_a_latency_for_every_frame(own_loop: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = own_loop
    test = datasets.load("digits").test
    pictures = test.take(range(12))
    for index, pixels in enumerate(pictures):
        Image.fromarray(pixels[:, :, 0]).save(tmp_path / f"{index:02}.png")
    printed = run("camera_loop.py", tmp_path, folder / "digits.bnn", tmp_path)
    found = re.findall(r"^(\d\d)\.png: (\d) \(\d+\.\d{3} ms\)$", printed, re.MULTILINE)
    answers = fb.load(folder / "digits.bnn").run(pictures).argmax(axis=1)
    assert found == [(f"{index:02}", str(each)) for index, each in enumerate(answers)]
    assert len(np.unique(answers)) > 4


def test_exports_are_written_and_compared(own_loop: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = own_loop
    printed = run("export_and_verify.py", tmp_path, folder / "digits.bnn", tmp_path)
    assert {"model.onnx", "model.c"} <= {path.name for path in tmp_path.iterdir()}
    assert printed.splitlines()[-1] == "parity passed"
    assert re.search(r"^ort: 0 of [\d,]+ bits differ$", printed, re.MULTILINE)
    assert re.search(r"^c: 0 of [\d,]+ bits differ$", printed, re.MULTILINE)
