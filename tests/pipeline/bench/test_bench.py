"""The benchmark's arithmetic and fairness, without a clock, and its command's forms."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from frostbit.export.onnx.float_twin import OrtTwin
from frostbit.export.onnx.int8_twin import OrtInt8Twin, int8_twin
from frostbit.export.parity import Comparison, ParityReport
from frostbit.kernels.ir.file import save_program
from frostbit.kernels.ir.program import Program
from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.integers import INT8_KINDS
from frostbit.pipeline.bench import conditions, timing
from frostbit.pipeline.bench import measure as bench
from frostbit.pipeline.bench.rows import Row
from frostbit.pipeline.bench.static_estimate import BOARDS
from frostbit.pipeline.bench.table import bench_markdown, bench_table
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.data.inputs import Place, inputs_for
from frostbit.pipeline.parity.torch_twin import TorchTwin
from tests.nets import every_op, images, imported


def test_twins_have_the_architecture_and_run() -> None:
    program = every_op()
    for twin in (OrtTwin(program), TorchTwin(program)):
        assert (twin.latency(images(program, 1), 2) > 0).all()
        weights = sum(4 * op.weights.size for op in program.ops if hasattr(op, "weights"))
        binary = sum(4 * op.words.shape[0] * op.taps for op in program.ops if hasattr(op, "words"))
        assert twin.size_bytes >= weights + binary


def test_twins_have_what_imported_networks_have() -> None:
    program = imported()
    batch = images(program, 1)
    for twin in (OrtTwin(program), OrtInt8Twin(program), TorchTwin(program)):
        assert (twin.latency(batch, 2) > 0).all()
        twin.close()


def row(name: str, ms: list[float], accuracy: float | None = None, threads: int = 1) -> Row:
    """A measured runtime, one run a round, beside an engine of 1 ms."""
    latency = timing.summarise([np.array([each]) for each in ms])
    engine = timing.summarise([np.array([1.0])] * len(ms))
    ratio = timing.paired_ratio(latency, latency if name.startswith("engine") else engine)
    return Row(name, "toy", name.partition(":")[2], threads, latency, ratio, accuracy, 1234)


def benchmark(*rows: Row, noise: float = 0.0) -> bench.Bench:
    checked = bench.Checked("toy", "", "", None)
    facts = {
        **conditions.conditions(),
        "batch": 1, "threads": 1, "thread_counts": [1], "rounds": 9, "measured_s": 10.0,
        "peak_rss_mib": 100.0,
        "noise": noise, "noisiest": "engine:xnor", "cpu": "a CPU",
        "sensors": {"before": {}, "after": {}},
    }  # fmt: skip
    return bench.Bench(rows, (checked,), facts)


def test_the_table_is_relative_to_the_engine() -> None:
    found = benchmark(row("engine:xnor", [1.0] * 9, 91.25), row("ort-fp32", [2.0, 3.0, 2.5] * 3))
    (table,), lines = bench_table(found, [])
    columns = {column.header: list(column.cells) for column in table.columns}
    assert columns["x engine (95 % interval)"] == ["1", "2.5 (1.37 to 4.57)"]
    assert columns["accuracy"] == ["91.25 %", ""]
    assert "not checked" in lines[0]
    assert "| ort-fp32 | 2.5000 |" in bench_markdown(found)


def test_a_name_cannot_act_in_the_markdown_table() -> None:
    """Names of ops come from a stranger's model; the first that differs is named."""
    evil = "<b>\u202e`x`"
    each = Comparison("ort", 2, 8, 1, 0, evil, 1, 0.0, 0.0, 0, 1.0, None)
    report = ParityReport(2, True, True, True, (each,))
    found = replace(benchmark(row("ort", [1.0])), models=(bench.Checked(evil, "", "", report),))
    assert r"first at '&lt;b&gt;\\u202e\`x\`'" in bench_markdown(found)


def test_a_noisy_machine_is_named() -> None:
    quiet, noisy = (benchmark(row("engine:xnor", [1.0]), noise=n) for n in (0.01, 0.3))
    assert not any("noisy" in line for line in bench_table(quiet, [])[1])
    assert any(
        "noisy: rounds of engine:xnor spread by 30 %" in line for line in bench_table(noisy, [])[1]
    )


def test_what_the_machine_did_is_told() -> None:
    found = benchmark(row("engine:xnor", [1.0]))
    steady = {"governor": "performance", "throttled": 3, "steal": 5.0}
    for after, words in (
        (steady, ""),
        ({**steady, "governor": "ondemand"}, "governor 'ondemand'"),
        ({**steady, "throttled": 4}, "was throttled"),
        ({**steady, "steal": 5.5}, "took 5 % of a core"),
    ):
        found.conditions["sensors"] = {"before": steady, "after": after}
        lines = conditions.warnings(found.conditions)
        assert len(lines) == bool(words)
        assert words in "".join(lines)


def test_a_cold_start_is_a_process_of_its_own(tmp_path: Path) -> None:
    save_program(every_op(), tmp_path / "model.bnn")
    found = conditions.cold_start(tmp_path / "model.bnn")
    assert len(found["cold_start_s"]) == conditions.COLD_STARTS
    facts = {**benchmark(row("engine:xnor", [1.0])).conditions, **found}
    assert f"{min(found['cold_start_s']):.2f} s after start" in conditions.lines(facts)[-1]
    # torch, which this process may have loaded, is not in it
    assert 30 < found["engine_peak_rss_mib"] < 400


def test_random_images_stand_in_for_a_missing_data_set() -> None:
    program: Program = every_op()
    inputs = inputs_for(program, Place(), seed=3)
    assert inputs.labels is None
    assert "unknown data set 'toy'" in inputs.remedy
    again = inputs_for(program, Place(), seed=3)
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
    names = [word for kernel in cpu.available() for word in ("--runtime", f"engine:{kernel}")]
    arguments = ["bench", "--synthetic", "resnet18@32", *names, "--rounds", "2", "--profile"]
    done = CliRunner().invoke(main, [*arguments, "--json", str(out)])
    assert done.exit_code == 0, done.output
    for words in ("where the time goes", "steps sum to", "a limit, no latency", "cortex-a72"):
        assert words in done.output
    found = json.loads(out.read_text())
    assert [row["kernel"] for row in found["runtimes"]] == list(cpu.available())
    profile = found["profile"]
    assert [each["cpu"] for each in profile["static_estimates"]][-2:] == list(BOARDS)
    assert profile["kernel"] == cpu.chosen_kernel()
    steps = {step["name"]: step for step in profile["steps"]}
    assert steps["layer1.0.conv1"]["binary_macs"] == 32 * 32 * 64 * 64 * 9
    assert steps["fc"]["float_macs"] == 512 * 10
    assert steps["layer1.0.conv1"]["limit"] in (
        None,
        (profile["limit"] or {}).get("macs_per_cycle"),
    )
    if INT8_KINDS:
        assert steps["conv1"]["limit"] > 16
        assert steps["conv1"]["instruction"]
    assert sum(step["share"] for step in steps.values()) == pytest.approx(1, abs=0.01)
    total = sum(step["microseconds"] for step in steps.values())
    assert total == pytest.approx(profile["sum_microseconds"], rel=0.01)
    for step in steps.values():
        if step["of_limit"] is not None:
            expected = step["macs_per_cycle"] / step["limit"]
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
