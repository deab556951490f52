"""A worker of torchrun dies: all are started again and go on from the checkpoint."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch.distributed as dist

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run.folder import read_run
from frostbit.pipeline.training import parallel
from frostbit.pipeline.training.parallel import agree, lost
from tests.pipeline.training.test_parallel import TORCHRUN, started


def workers(parent: int) -> list[int]:
    """Processes that torchrun, ``parent``, started."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(each) for each in text.split()]


def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = [*TORCHRUN[:-2], "--max-restarts=2", *TORCHRUN[-2:]]
    words = ["--recipe", "digits", "--set", "width=8", "--epochs", "4", "--checkpoint-every", "4"]
    command = [*launcher, "-m", "frostbit", "train", *words, "--resume", str(out)]
    with started(command) as process:
        while not list(out.glob("checkpoints/step-*")) and process.poll() is None:
            time.sleep(0.02)
        victims = workers(process.pid)
        assert len(victims) == 2
        os.kill(victims[1], signal.SIGKILL)
        said, _ = process.communicate(timeout=400)
    assert process.returncode == 0, said
    assert "going on from step" in said
    assert "Traceback" not in said
    facts = read_run(out).facts
    assert facts["fully_frozen"] is True
    assert facts["ranks"] == 2


def test_processes_started_again_do_not_meet_the_dead() -> None:
    """torchrun keeps its store over restarts: what the dead left in it is not taken for new."""
    store = dist.HashStore()
    names: list[str] = []
    for _ in range(3):
        with ThreadPoolExecutor(3) as pool:
            found = [pool.submit(agree, store, rank, 3) for rank in range(3)]
            (name,) = {each.result(timeout=60) for each in found}
        names.append(name)
    assert len(set(names)) == 3


def test_a_process_that_died_while_they_met_is_not_waited_for() -> None:
    store = dist.HashStore()
    store.set("frostbit/word/1", "left by one that died before it got an answer")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(agree, store, 0, 2)
        time.sleep(0.1)  # rank 0 answers the old word meanwhile
        assert not first.done()
        second = pool.submit(agree, store, 1, 2)
        assert first.result(timeout=60) == second.result(timeout=60)


def test_processes_that_do_not_come_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "MEETING_SECONDS", 0.1)
    with pytest.raises(UserError, match="of 3 processes these did not come: 1, 2"):
        agree(dist.HashStore(), 0, 3)


def test_a_lost_process_is_told_from_other_errors() -> None:
    error = RuntimeError(
        "[/src/gloo/transport/tcp/pair.cc:545] Read error [127.0.0.1]:1: Connection reset by peer. "
        "This is typically caused by a remote worker hanging"
    )
    said = str(lost(error))
    assert "another process of this training is gone (Read error" in said
    assert "Connection reset by peer)" in said
    assert said.endswith("--resume goes on from the last checkpoint")
    assert lost(dist.DistNetworkError("no route")) is not None
    assert lost(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
