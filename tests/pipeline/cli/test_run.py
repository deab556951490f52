"""The whole line as README's first command runs it, and the same bytes when it runs again."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from frostbit.kernels.machine import cpu
from tests.export.lce.lce_fixture import require_lce

ENGINE = f"engine:{cpu.chosen_kernel()}"
PACKED = [ENGINE, "ort", "ort:int8", "lce:default", "lce:indirect", "torch"]
RUNTIMES = [*PACKED, "ort-fp32", "ort-int8", "torch-fp32"]


def run(out: Path) -> str:
    """``pipeline run`` in a process of its own, three epochs; returns what it printed."""
    command = [sys.executable, "-m", "frostbit", "run", "--recipe", "digits"]
    options = ["--epochs", "3", "--rounds", "2", "--device", "cpu", "--out", str(out)]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, str]:
    """Two runs with the same seed, in different folders, and what the first one printed."""
    require_lce()
    first, second = (tmp_path_factory.mktemp(name) / "run" for name in ("first", "second"))
    printed = run(first)
    run(second)
    return first, second, printed


@pytest.mark.parametrize("name", ["model.bnn", "model.onnx", "model.tflite"])
def test_same_seed_same_bytes(twice: tuple[Path, Path, str], name: str) -> None:
    first, second, _ = twice
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_every_runtime_agrees_on_the_test_set(twice: tuple[Path, Path, str]) -> None:
    bench = json.loads((twice[0] / "bench.json").read_text())
    assert [row["name"] for row in bench["runtimes"]] == RUNTIMES
    accuracies = {row["accuracy"] for row in bench["runtimes"][: len(PACKED)]}
    assert len(accuracies) == 1
    assert accuracies.pop() > 60
    compared = bench["parity"]["runtimes"]
    assert [each["name"] for each in compared] == PACKED
    assert {each["sign_bits_differing"] for each in compared} == {0}
    assert min(each["sign_bits_compared"] for each in compared) > 1_000_000


def test_it_ends_in_five_lines(twice: tuple[Path, Path, str]) -> None:
    lines = twice[2].strip().splitlines()[-5:]
    assert [line.split()[0] for line in lines] == [
        "accuracy", "size", "latency", "faster", "parity",
    ]  # fmt: skip
    assert "passed" in lines[4]


def test_the_run_folder_is_complete(twice: tuple[Path, Path, str]) -> None:
    names = {path.name for path in twice[0].iterdir()}
    assert names == {
        "recipe.toml", "run.json", "model.safetensors", "settled.safetensors", "metrics.jsonl",
        "training.png", "model.bnn", "model.onnx", "model.tflite", "bench.json",
    }  # fmt: skip
