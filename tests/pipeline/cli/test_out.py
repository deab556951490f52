"""``-o`` and ``--force`` mean the same in every command."""

import shutil
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from frostbit.pipeline.cli.main import main
from frostbit.pipeline.experiments import grid
from tests import ROOT


def options(command: click.Command) -> dict[str | None, click.Parameter]:
    return {each.name: each for each in command.params}


OUT = {name: options(each) for name, each in main.commands.items() if "out" in options(each)}
FORCE = {name: options(each) for name, each in main.commands.items() if "force" in options(each)}


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def test_who_has_one_has_the_other_and_both_are_the_same() -> None:
    assert set(OUT) == set(FORCE)
    assert len(OUT) >= 9
    for found in OUT.values():
        assert found["out"].opts == ["-o", "--out"]
        force = found["force"]
        assert isinstance(force, click.Option)
        assert (force.opts, force.is_flag, force.help) == (
            ["--force"],
            True,
            "Overwrite what is there.",
        )


@pytest.fixture
def words(trained: Path, packed: Path, tmp_path: Path) -> dict[str, list[object]]:
    """Every command that writes one file, up to its ``-o``."""
    run = shutil.copytree(trained, tmp_path / "run")
    shutil.copy(packed, run / "model.bnn")
    quicknet = ROOT / "tests/data/foreign/mini_quicknet.tflite"
    return {
        "pack": ["pack", run],
        "import": ["import", quicknet, "--range", "-1..1"],
        "bundle": ["bundle", run / "model.bnn"],
        "report": ["report", run],
        "compare": ["compare", run],
    }


def test_a_file_that_is_there_stays(words: dict[str, list[object]], tmp_path: Path) -> None:
    for name, before in words.items():
        endings = {"report": "html", "compare": "html", "bundle": "zip"}
        there = tmp_path / f"{name}.{endings.get(name, 'bnn')}"
        there.write_text("mine")
        done = invoke(*before, "-o", there)
        assert done.exit_code == 2, name
        assert f"'{there}' exists; overwrite it with --force" in done.stderr, name
        assert there.read_text() == "mine"
        done = invoke(*before, "-o", tmp_path / "no" / "such.html")
        assert (done.exit_code, "no folder" in done.stderr or "ends in" in done.stderr) == (2, True)
    for name in ("report", "compare"):
        there = tmp_path / f"{name}.html"
        assert invoke(*words[name], "-o", there, "--force").exit_code == 0
        assert there.read_text() != "mine"


def test_a_folder_that_is_used_stays(
    packed: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    for command in ("train", "run"):
        done = invoke(command, "--recipe", "digits", "-o", run)
        assert done.exit_code == 2
        assert "is not empty; overwrite it with --force" in done.stderr
    model = shutil.copy(packed, tmp_path / "model.bnn")
    (tmp_path / "model.onnx").write_text("mine")
    done = invoke("export", model, "--format", "onnx", "-o", tmp_path)
    assert done.exit_code == 2
    assert "exists; overwrite it with --force" in done.stderr


def test_finished_runs_of_a_grid_are_made_again_only_with_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smoke = grid.load("smoke")
    (tmp_path / "runs").mkdir()
    for each in smoke.runs:
        (tmp_path / "runs" / f"{grid.slug(each)}.json").write_text("{}")
    asked: list[int] = []

    class Stop(Exception):
        """Seen enough."""

    def check(recipes: list[object], *_: object) -> None:
        asked.append(len(recipes))
        raise Stop

    monkeypatch.setattr(grid, "_check", check)
    for force in (False, True):
        with pytest.raises(Stop):
            grid.run(smoke, tmp_path, 1, None, None, False, force)
    assert asked == [0, len(smoke.runs)]
