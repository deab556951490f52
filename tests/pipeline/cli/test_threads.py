"""``--threads`` of the commands that run the engine."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from frostbit.kernels.ir.file import save_program
from frostbit.kernels.machine import threads
from frostbit.pipeline.cli.main import main
from tests.kernels.test_threads import wide_net


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.bnn"
    save_program(wide_net(), path)
    return path


@pytest.mark.parametrize("bad", ["0", "-1", "1000", "many", "2.5"])
@pytest.mark.parametrize("command", ["predict", "verify", "bench"])
def test_bad_numbers_are_refused_in_one_line(command: str, bad: str, model: Path) -> None:
    pictures = [str(model)] if command == "predict" else []
    done = CliRunner().invoke(main, [command, str(model), *pictures, "--threads", bad])
    assert done.exit_code == 2
    assert f"--threads '{bad}': write " in done.output
    assert len(done.output.strip().splitlines()) == 1


def test_a_bad_number_of_the_environment_is_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(threads.VARIABLE, "many")
    done = CliRunner().invoke(main, ["verify", str(model), "--formats", "bnn"])
    assert done.exit_code == 2
    assert "FROSTBIT_ENGINE_THREADS must be 1 to 256 or 'auto', not 'many'" in done.output


@pytest.mark.parametrize("count", ["1", "3", "auto"])
def test_predict_and_verify(count: str, model: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (9, 9, 3), np.uint8)).save(tmp_path / "a.png")
    answers = []
    for number in ("1", count):
        words = ["predict", str(model), str(tmp_path / "a.png"), "--threads", number]
        done = CliRunner().invoke(main, [*words, "--json", str(tmp_path / "out.json")])
        assert done.exit_code == 0, done.output
        answers.append(json.loads((tmp_path / "out.json").read_text()))
    assert answers[0] == answers[1]
    done = CliRunner().invoke(main, ["verify", str(model), "--formats", "bnn", "--threads", count])
    assert done.exit_code == 0, done.output
