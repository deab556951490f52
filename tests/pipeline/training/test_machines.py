"""The launch line for several machines and the sweeps of docs/, with neither at hand."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run.folder import read_run
from tests import ROOT
from tests.pipeline.training.test_parallel import QUIET

SMALL = ["--epochs", "1", "--device", "cpu"]
SETTINGS = ("width=8", "model=bireal-2", "batch=100", "train_images=400")
SMALL += [word for text in SETTINGS for word in ("--set", text)]
FILES = ("model.safetensors", "settled.safetensors", "metrics.jsonl")


def launcher(nodes: int, processes: int, port: int, out: Path) -> subprocess.Popen[str]:
    """What is typed on one machine."""
    words = ["--nnodes", str(nodes), "--nproc-per-node", str(processes), "--rdzv-backend", "c10d"]
    words += ["--rdzv-id", "test", "--rdzv-endpoint", f"127.0.0.1:{port}"]
    train = ["-m", "frostbit", "train", "--recipe", "digits", *SMALL, "--resume", str(out)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *words, *train],
        cwd=ROOT, env=QUIET, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_two_machines_train_what_one_with_two_processes_trains(tmp_path: Path) -> None:
    found = []
    for nodes, processes in ((1, 2), (2, 1)):
        out, port = tmp_path / f"nodes{nodes}", free_port()
        children = [launcher(nodes, processes, port, out) for _ in range(nodes)]
        try:
            for child in children:
                said, _ = child.communicate(timeout=240)
                assert child.returncode == 0, said
        finally:
            for child in children:
                child.kill()
                child.wait()
        assert read_run(out).facts["ranks"] == 2
        found.append({name: (out / name).read_bytes() for name in FILES})
    assert found[0] == found[1]


def test_ranks_that_see_different_checkpoints_stop() -> None:
    from types import SimpleNamespace

    import torch

    from frostbit.pipeline.training.parallel import Ranks
    from frostbit.pipeline.training.resume import Keeper

    class Two(Ranks):
        """Rank 0 of two; the other one is at step 7."""

        def mean(self, values: torch.Tensor) -> torch.Tensor:
            return (values + 7) / 2

        def any(self, flag: bool, device: torch.device) -> bool:
            return flag

    setting = SimpleNamespace(ranks=Two(0, 2))
    trainer: Any = SimpleNamespace(setting=setting, device=torch.device("cpu"))
    keeper = Keeper.__new__(Keeper)
    keeper.folder = SimpleNamespace(path="run")  # type: ignore[assignment]
    keeper._agree(trainer, 7)
    with pytest.raises(UserError, match="storage that all machines share"):
        keeper._agree(trainer, 5)


# ---------------------------------------------------------------- sweeps


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """The environment of an array task, with a scontrol that only writes down what it is told."""
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/scontrol.log\n')
    (tools / "scontrol").chmod(0o755)
    path = f"{tools}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {
        **QUIET, "PATH": path, "PYTHONPATH": str(ROOT), "SRUN": "",
        "SLURM_ARRAY_TASK_ID": "5", "SLURM_ARRAY_JOB_ID": "77", "SLURM_CPUS_PER_TASK": "1",
        "OUT": str(tmp_path / "sweep"), "EXTRA": " ".join(SMALL),
    }  # fmt: skip


def test_the_slurm_array_trains_is_requeued_and_goes_on(
    slurm: dict[str, str], tmp_path: Path
) -> None:
    script = [str(ROOT / "docs" / "sweeps" / "slurm-array.sh")]
    out = tmp_path / "sweep" / "lr0.01-seed2"
    long = {**slurm, "EXTRA": slurm["EXTRA"].replace("--epochs 1", "--epochs 30")}
    pipe = subprocess.PIPE
    first = subprocess.Popen(
        script, cwd=ROOT, env=long, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )
    while not list(out.glob("checkpoints/step-*")):
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    children = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGTERM)  # as Slurm does before the time limit
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 143, errors
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77_5\n"
    again = subprocess.run(script, cwd=ROOT, env=long, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "going on from step" in again.stdout
    run = read_run(out)
    assert (run.recipe.seed, run.recipe.lr_binary) == (2, 0.01)


def ray_example() -> Any:
    path = ROOT / "docs" / "sweeps" / "ray_tune.py"
    spec = importlib.util.spec_from_file_location("ray_tune_example", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_trial_of_the_ray_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial as it is, with a tuner that only listens; `make test-sweeps` runs the real one."""
    example = ray_example()
    reports: list[dict[str, Any]] = []

    class Listener:
        def report(self, values: dict[str, Any]) -> None:
            reports.append(values)

        def get_context(self) -> Any:
            return self

        def get_trial_id(self) -> str:
            return "t1"

    monkeypatch.setattr(example, "tune", Listener())
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    config = {"recipe": "digits", "epochs": 1, "lr_binary": 0.02, "refresh": 0.1}
    example.trial({**config, "out": str(tmp_path)})
    facts = json.loads((tmp_path / "t1" / "run.json").read_text())
    assert reports == [
        {"validation": facts["accuracy"]["validation"], "folder": str(tmp_path / "t1")}
    ]
    assert read_run(tmp_path / "t1").recipe.refresh == 0.1
    with pytest.raises(RuntimeError, match="unknown recipe"):
        example.trial({**config, "recipe": "none", "out": str(tmp_path / "x")})
