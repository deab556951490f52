"""The benchmark's arithmetic and fairness, without a clock, and its command's forms."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from export.runtimes import Images, Milliseconds
from export.twin_int8 import OrtInt8Twin, int8_twin
from export.twins import OrtTwin
from kernels import features
from kernels.program import Program
from pipeline import bench
from pipeline.cli import main
from pipeline.tables import bench_table
from pipeline.torch_runtime import TorchTwin
from tests.nets import every_op, images


class Clock:
    """A runtime that takes a stated time and notes when it was called."""

    def __init__(self, name: str, ms: float, log: list[tuple[str, int]]) -> None:
        self.name, self.ms, self.log = name, ms, log

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        self.log.append((self.name, repeats))
        return np.full(repeats, self.ms)

    def close(self) -> None:
        pass


def test_runtimes_take_turns() -> None:
    log: list[tuple[str, int]] = []
    clocks = [Clock("fast", 0.01, log), Clock("slow", 25.0, log)]
    program = every_op()
    found = bench.measure(clocks, images(program, 3), rounds=4, seed=0)
    assert [name for name, _ in log[:2]] == ["fast", "slow"]  # warm-up
    for turn in range(4):
        pair = log[2 + 2 * turn : 4 + 2 * turn]
        assert {name for name, _ in pair} == {"fast", "slow"}
    assert [latency.median for latency in found] == [0.01, 25.0]
    assert [latency.n for latency in found] == [4 * bench.MAX_REPEATS, 4]


def test_statistics() -> None:
    latency = bench.summarise(np.arange(1.0, 102.0))
    assert (latency.min, latency.median, latency.p90, latency.p99) == (1.0, 51.0, 91.0, 100.0)
    assert latency.n == 101


def test_twins_have_the_architecture_and_run() -> None:
    program = every_op()
    for twin in (OrtTwin(program), TorchTwin(program)):
        assert (twin.latency(images(program, 1), 2) > 0).all()
        weights = sum(4 * op.weights.size for op in program.ops if hasattr(op, "weights"))
        binary = sum(4 * op.words.shape[0] * op.taps for op in program.ops if hasattr(op, "words"))
        assert twin.size_bytes >= weights + binary


def test_the_table_is_relative_to_the_engine() -> None:
    latency = bench.Latency(1.0, 2.0, 3.0, 4.0, 10)
    slower = bench.Latency(2.0, 5.0, 6.0, 8.0, 10)
    rows = (
        bench.Row("engine:xnor", "xnor", latency, 91.25, 1234),
        bench.Row("ort-fp32", "", slower, None, 5678),
    )
    table, lines = bench_table(bench.Bench(rows, None, "", {}), [])
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["x engine"] == ["1.00", "2.50"]
    assert columns["accuracy"] == ["91.25 %", ""]
    assert "not checked" in lines[0]


def test_random_images_stand_in_for_a_missing_data_set() -> None:
    program: Program = every_op()
    inputs = bench.inputs_for(program, None, seed=3)
    assert inputs.labels is None
    assert "unknown data set 'toy'" in inputs.remedy
    again = bench.inputs_for(program, None, seed=3)
    assert np.array_equal(inputs.images, again.images)


# ---------------------------------------------------------------- standard networks, peers


def test_a_standard_network_with_its_peers(tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in ("found.json", "found.md")]
    arguments = ["--peers", "--rounds", "1", "--json", files[0], "--markdown", files[1]]
    result = CliRunner().invoke(main, ["bench", "--synthetic", "resnet18@32", *arguments])
    assert result.exit_code == 0, result.output
    found = json.loads(Path(files[0]).read_text())
    names = [row["name"] for row in found["runtimes"]]
    assert names[0].startswith("engine")
    assert names[1:] == ["ort-fp32", "ort-int8", "torch-fp32", "lce:indirect"]
    sizes = {row["name"]: row["size_bytes"] for row in found["runtimes"]}
    assert sizes["ort-int8"] < sizes["ort-fp32"] / 3
    assert found["parity"]["sign_bits_compared"] > 10**7
    assert found["parity"]["sign_bits_differing"] == 0
    table = Path(files[1]).read_text()
    assert table.count("\n| ") == 5
    assert "0 of" in table
    assert "- cpu: " in table


def test_the_profile_is_shown_and_written(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    names = [word for kernel in features.available() for word in ("--runtime", f"engine:{kernel}")]
    arguments = ["bench", "--synthetic", "resnet18@32", *names, "--rounds", "2", "--profile"]
    done = CliRunner().invoke(main, [*arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    for words in ("where the time goes", "steps sum to"):
        assert words in done.output
    found = json.loads(out.read_text())
    assert [row["kernel"] for row in found["runtimes"]] == list(features.available())
    profile = found["profile"]
    assert profile["kernel"] == features.chosen_kernel()
    steps = {step["name"]: step for step in profile["steps"]}
    assert steps["layer1.0.conv1"]["binary_macs"] == 32 * 32 * 64 * 64 * 9
    assert steps["fc"]["float_macs"] == 512 * 10
    assert sum(step["share"] for step in steps.values()) == pytest.approx(1, abs=0.01)
    total = sum(step["microseconds"] for step in steps.values())
    assert total == pytest.approx(profile["sum_microseconds"], rel=0.01)
    for step in steps.values():
        if step["of_limit"] is not None:
            expected = step["macs_per_cycle"] / profile["limit"]["macs_per_cycle"]
            assert step["of_limit"] == pytest.approx(expected, rel=0.01)


def test_the_engine_can_be_compiled_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTBIT_CACHE", str(tmp_path / "cache"))
    result = CliRunner().invoke(main, ["bench", "--warm-cache"])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "cache") in result.output
    assert "engine ready after" in result.output


@pytest.mark.parametrize("arguments", [[], ["--synthetic", "resnet18@33"]])
def test_what_to_measure_must_be_clear(arguments: list[str]) -> None:
    result = CliRunner().invoke(main, ["bench", *arguments])
    assert result.exit_code == 2
    assert "--synthetic" in result.output or "resnet18@32" in result.output


def test_the_int8_twin_is_quantized() -> None:
    program = every_op()
    kinds = {node.op_type for node in onnx.load_model_from_string(int8_twin(program)).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    twin = OrtInt8Twin(program)
    image = np.zeros((1, *program.input_shape), np.uint8)
    assert len(twin.latency(image, 3)) == 3
    twin.close()
