"""Short versions of everything that ``make reliability`` does at length."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.reliability import ROOT, engines, fuzz, kills


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_mutated_models() -> None:
    fuzz._agrees(fuzz.nets.every_op())  # compiled before anything is timed
    found = fuzz.fuzz_models(2000, seed=1)
    assert found.wrong == 0
    assert found.accepted > 100  # the edits with a right checksum get through
    assert found.rejected > 1000
    assert found.slowest < fuzz.SECONDS


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_recipes_and_pictures(tmp_path: Path) -> None:
    for each in (fuzz.fuzz_recipes(300, 1), fuzz.fuzz_pictures(300, tmp_path, 1)):
        assert each.wrong == 0
        assert each.rejected > 30
        assert each.accepted > 5
        assert each.slowest < fuzz.SECONDS


def test_killed_trainings_end_with_the_same_bytes(tmp_path: Path) -> None:
    found = kills.survive(tmp_path, 4, seed=2)
    assert found.tried == 4
    assert found.in_writing >= 1
    assert found.equal == found.trainings >= 1


def test_threads_and_processes_race_for_the_first_compilation(tmp_path: Path) -> None:
    found = engines.together(tmp_path / "cache", 5.0)
    assert found.answers == 1
    assert found.inferences > engines.THREADS * engines.PROCESSES


def test_a_forked_child_can_go_on() -> None:
    assert engines.after_fork() == "equal"


def test_memory_stays_flat() -> None:
    found = engines.long_run(50_000)
    assert found.leak_mb < 1.0


def test_nothing_is_unpickled() -> None:
    """No source of ours imports pickle, or a loader that would use it."""
    loads = 0
    for package in ("kernels", "export", "pipeline"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = [
                    alias.name for alias in getattr(node, "names", []) if hasattr(alias, "name")
                ]
                assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & set(names), path
                if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                    continue
                owner = getattr(node.func.value, "id", "")
                keywords = {k.arg: getattr(k.value, "value", None) for k in node.keywords}
                if owner == "torch" and node.func.attr == "load":
                    raise AssertionError(f"{path} calls torch.load")
                if owner == "np" and node.func.attr == "load":
                    loads += 1
                    assert keywords.get("allow_pickle", False) is False, path
    assert loads >= 2
