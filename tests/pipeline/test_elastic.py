"""A worker of torchrun dies: all are started again and go on from the checkpoint."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from pipeline.run_folder import read_run
from tests.pipeline.test_parallel import QUIET, TORCHRUN


def workers(parent: int) -> list[int]:
    """Processes that torchrun, ``parent``, started."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(each) for each in text.split()]


def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    out = tmp_path / "run"
    launcher = [*TORCHRUN[:-2], "--max-restarts=2", *TORCHRUN[-2:]]
    words = ["--recipe", "digits", "--set", "width=8", "--epochs", "4", "--checkpoint-every", "4"]
    command = [*launcher, "-m", "pipeline.cli", "train", *words, "--resume", str(out)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=QUIET
    )
    try:
        while not list(out.glob("checkpoints/step-*")) and process.poll() is None:
            time.sleep(0.02)
        victims = workers(process.pid)
        assert len(victims) == 2
        os.kill(victims[1], signal.SIGKILL)
        said, _ = process.communicate(timeout=400)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, said
    assert "going on from step" in said
    facts = read_run(out).facts
    assert facts["fully_frozen"] is True
    assert facts["ranks"] == 2
