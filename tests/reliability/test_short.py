"""Short versions of everything that ``make reliability`` does at length."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pytest

from frostbit.pipeline.errors import UserError
from tests.export.lce.lce_fixture import require_lce
from tests.reliability import engines, fuzz, guard, interrupts, kills


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_mutated_models() -> None:
    found = fuzz.fuzz_models(2000, seed=1)
    assert found.tried == 2000
    assert found.wrong == 0
    assert found.accepted > 100  # the edits with a right checksum get through
    assert found.rejected > 1000


def test_mutated_tflite_files() -> None:
    require_lce()
    found = fuzz.fuzz_tflite(300, seed=1, compared=6)
    assert found.tried == 300
    assert found.wrong == 0
    assert found.rejected > 100
    assert found.accepted > 60


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_mutated_onnx_files() -> None:
    found = fuzz.fuzz_onnx(150, seed=1)
    assert found.tried >= 150
    assert found.wrong == 0
    assert found.rejected > 80
    assert found.accepted > 10
    assert found.slowest < guard.SECONDS


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_mutated_recipes_pictures_and_runs(tmp_path: Path) -> None:
    results = [
        fuzz.fuzz_recipes(300, 1),
        fuzz.fuzz_pictures(300, tmp_path, 1),
        fuzz.fuzz_runs(40, tmp_path / "runs", 1),
    ]
    for each in results:
        assert each.tried >= 40
        assert each.wrong == 0
        assert each.rejected > 20
        assert each.accepted >= 2


def test_a_wrong_answer_a_hang_and_a_glutton_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself can fail, in every way that it looks for."""
    monkeypatch.setattr(guard, "SECONDS", 0.1)
    monkeypatch.setattr(guard, "MEGABYTES", 128)

    def hang(rng: Random, found: fuzz.Fuzzed) -> bool:
        while True:
            pass

    def glutton(rng: Random, found: fuzz.Fuzzed) -> bool:
        return bool(np.ones(1 << 28, np.uint8).any())

    def many_lines(rng: Random, found: fuzz.Fuzzed) -> bool:
        raise UserError("a\nb")

    def foreign(rng: Random, found: fuzz.Fuzzed) -> bool:
        raise KeyError("x")

    wrong: list[tuple[Callable[[Random, fuzz.Fuzzed], bool], type[Exception]]] = [
        (hang, guard.Hang),
        (glutton, MemoryError),
        (many_lines, AssertionError),
        (foreign, KeyError),
        (lambda rng, found: False, AssertionError),
    ]
    for one, error in wrong:
        with pytest.raises(error):
            fuzz._run(5, 0, one, (UserError,))


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


def test_used_by_an_exit_handler_and_a_thread_that_outlives_main() -> None:
    assert engines.after_main() == "equal equal"


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_after_an_interrupted_call_every_answer_is_right(threads: int) -> None:
    found = interrupts.interrupts(threads, 400, seed=threads)
    assert found.hit > 20
    assert found.wrong == 0
    assert max(found.waits) < 5.0  # of a batch that takes a minute; a twentieth on idle cores
