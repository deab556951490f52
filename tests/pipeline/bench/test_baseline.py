"""bench --baseline, --pin, several models: the command's forms, and verdicts on stated times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from frostbit.kernels.ir.file import save_program
from frostbit.pipeline.bench import baseline
from frostbit.pipeline.bench import file as bench_file
from frostbit.pipeline.bench.file import labels
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.errors import UserError
from tests.nets import every_op
from tests.pipeline.bench.test_bench import benchmark, row

STEADY = [1.0, 1.001, 0.999] * 10


def verdict(now: float, allowed: float = 5.0) -> baseline.Verdict:
    """Verdict on an engine that takes ``now`` times what it took."""
    before = json.loads(benchmark(row("engine:xnor", STEADY)).to_json())
    found = benchmark(row("engine:xnor", [now * each for each in STEADY]))
    (only,), warning = baseline.compare(found, before, allowed)
    assert not warning
    return only


@pytest.mark.parametrize(
    ("now", "word", "regressed"),
    [
        (1.0, "within noise", False),
        (1.005, "within noise", False),
        (0.8, "faster", False),
        (1.04, "within noise", False),
        (1.08, "slower", False),
        (1.2, "slower", True),
    ],
)
def test_verdicts(now: float, word: str, regressed: bool) -> None:
    found = verdict(now, allowed=10)
    assert (found.word, found.regressed) == (word, regressed)
    assert word in str(found)


def test_what_is_allowed_is_no_regression() -> None:
    assert not verdict(1.2, allowed=25).regressed


def test_another_machine_and_new_runtimes_are_said() -> None:
    before = json.loads(benchmark(row("engine:xnor", STEADY)).to_json())
    before["conditions"] |= {"cpu": "another CPU", "batch": 8}
    verdicts, warning = baseline.compare(benchmark(row("ort", STEADY)), before, 5)
    assert "another CPU" in warning
    assert "batch 8, now 1" in warning
    assert str(verdicts[0]) == "toy ort: not in the baseline"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"runtimes": [{"latency_ms": {"median": 1}}]}'])
def test_a_file_that_is_no_benchmark(tmp_path: Path, text: str) -> None:
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"no bench\.json of this version"):
        bench_file.read(path)
    with pytest.raises(UserError, match="there is no benchmark"):
        bench_file.read(tmp_path / "absent.json")


def bench(*arguments: object) -> Result:
    words = ["bench", *map(str, arguments), "--runtime", "engine", "--rounds", "2"]
    return CliRunner().invoke(main, words)


def test_several_models_side_by_side_and_against_a_baseline(tmp_path: Path) -> None:
    models = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        models.append(tmp_path / name / "model.bnn")
        save_program(every_op(), models[-1])
    out = tmp_path / "both.json"
    done = bench(*models, "--json", out, "--batch", 3)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert [row["model"] for row in found["runtimes"]] == ["one", "two"]
    assert [each["model"] for each in found["models"]] == ["one", "two"]
    assert all(each["parity"]["passed"] for each in found["models"])
    assert found["conditions"]["batch"] == 3
    again = bench(*models, "--json", tmp_path / "again.json", "--baseline", out, "--allowed", 1000)
    assert again.exit_code == 0, again.output
    assert "times the baseline" in again.output
    for each in found["runtimes"]:
        each["latency_ms"]["rounds"] = [1e-6, 1e-6]
    out.write_text(json.dumps(found))
    slower = bench(*models, "--json", tmp_path / "again.json", "--baseline", out)
    assert slower.exit_code == 1, slower.output
    assert "slower" in slower.output


def test_labels(tmp_path: Path) -> None:
    a, b, c = tmp_path / "a/model.bnn", tmp_path / "b/model.bnn", tmp_path / "net.bnn"
    assert labels([a, b, c]) == ["a", "b", "net"]
    assert labels([c, tmp_path / "x/net.bnn"]) == [str(c), str(tmp_path / "x/net.bnn")]


def test_a_cpu_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "model.bnn"
    save_program(every_op(), path)
    done = bench(path, "--pin", 4096)
    assert done.exit_code == 2
    assert "there is no CPU 4096" in done.output
