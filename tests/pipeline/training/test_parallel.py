"""Two processes under torchrun (gloo) train one network."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from frostbit.pipeline.run.folder import read_run
from frostbit.pipeline.training.parallel import Ranks, SyncedBatchNorm2d, joined, part, synchronise
from tests.pipeline.training import rank_probe

TORCHRUN = [
    sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
]  # fmt: skip
FIELDS: dict[str, Any] = {
    "epochs": 1, "width": 8, "model": "bireal-2", "batch": 100, "sync_batchnorm": True,
}  # fmt: skip
QUIET = {**os.environ, "OMP_NUM_THREADS": "1", "FROSTBIT_THREADS": "1", "PYTHONWARNINGS": ""}


def launch(*arguments: str) -> None:
    done = subprocess.run(
        [*TORCHRUN, *arguments], capture_output=True, text=True, timeout=240, env=QUIET
    )
    assert done.returncode == 0, done.stderr


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A torchrun in the background; whatever happens, it and its workers end with the block."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=QUIET
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()  # it ends its workers, after 30 s by force
                try:
                    process.wait(timeout=60)
                except subprocess.TimeoutExpired:
                    process.kill()


def read(folder: Path, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"rank{rank}.json").read_text())
    return content


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("together")
    launch("-m", "tests.pipeline.training.rank_probe", str(out), json.dumps(FIELDS))
    return out


def test_masks_and_weights_are_equal_at_every_step(together: Path) -> None:
    first, second = read(together, 0), read(together, 1)
    assert len(first["steps"]) == 11
    assert first["steps"] == second["steps"]
    assert len({masks for masks, _, _ in first["steps"]}) >= 9


def test_one_process_sees_the_same_masks_and_the_same_first_loss(
    together: Path, tmp_path: Path
) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.pipeline.training.rank_probe",
            str(tmp_path),
            json.dumps(FIELDS),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        env=QUIET,
    )
    assert done.returncode == 0, done.stderr
    alone, two = read(tmp_path, 0)["steps"], read(together, 0)["steps"]
    assert [masks for masks, _, _ in alone] == [masks for masks, _, _ in two]
    assert abs(alone[0][2] - two[0][2]) < 1e-6
    assert abs(alone[1][2] - two[1][2]) < 1e-3


def test_only_rank_0_writes_and_the_run_is_binary(together: Path) -> None:
    assert [read(together, rank)["result"] for rank in (0, 1)] == [True, False]
    assert read(together, 1)["written"], "no process leaves before rank 0 has finished"
    facts = read_run(together / "run").facts
    assert facts["fully_frozen"] is True
    assert facts["ranks"] == 2


def test_the_command_stops_on_sigterm_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [
        "-m",
        "frostbit",
        "train",
        "--recipe",
        "digits",
        "--set",
        "width=8",
    ]
    command += ["--set", "model=bireal-2", "--epochs", "8", "--device", "cpu"]
    with started([*TORCHRUN, *command, "-o", str(out), "--checkpoint-every", "8"]) as process:
        while not list(out.glob("checkpoints/step-*")) and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "nothing is lost" in said or (out / "run.json").exists(), said
    launch(*command, "--resume", str(out))
    assert read_run(out).facts["fully_frozen"] is True


def test_a_batch_that_ranks_cannot_share_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [*TORCHRUN, "-m", "frostbit", "train", "--recipe", "digits", "--set", "batch=51",
         "-o", str(tmp_path / "run")],
        capture_output=True, text=True, timeout=240, env=QUIET,
    )  # fmt: skip
    assert done.returncode != 0
    assert "batch 51 cannot be shared by 2 processes" in done.stderr


def test_a_network_refused_by_process_0_stops_all_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "own_pair.py").write_text(
        "from torch import nn\n\n\ndef net(num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 7))\n"
    )
    command = ["-m", "frostbit", "train", "--recipe", "digits", "--model", "own_pair:net"]
    done = subprocess.run(
        [*TORCHRUN, *command, "--device", "cpu", "-o", "run"],
        capture_output=True, text=True, timeout=240, env=QUIET, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stderr.count("refused before training") == 1
    assert "stopped with process 0, which says why" in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_lone_process_is_rank_0_of_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with joined(torch.device("cpu")) as ranks:
        assert ranks == Ranks(0, 1)
        assert ranks.first
        assert ranks.any(True, torch.device("cpu"))


def test_synchronised_batchnorm_keeps_weights_and_evaluates_alike() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
    net(torch.randn(8, 1, 6, 6))
    net.eval()
    x = torch.randn(2, 1, 6, 6)
    before = net(x)
    synchronise(net)
    net.eval()
    assert isinstance(net[1], SyncedBatchNorm2d)
    assert torch.equal(net(x), before)
    part(net)
    assert type(net[1]) is nn.BatchNorm2d
    assert torch.equal(net(x), before)


def test_the_probe_sees_a_changed_mask() -> None:
    """The comparison above can fail: the hash depends on a single mask bit."""
    from frostbit.pipeline.network.binary import BinaryLinear

    class Holder:
        model = nn.Sequential(BinaryLinear(4, 4))

    found = []
    for bit in (0.0, 1.0):
        mask = torch.zeros(4, 4)
        mask[2, 2] = bit
        Holder.model[0].freeze(0.5, mask)  # type: ignore[operator]
        found.append(rank_probe.masks(Holder()))  # type: ignore[arg-type]
    assert found[0] != found[1]
