"""bench --threads: several numbers of threads in one run, the table of what they bring."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from frostbit.kernels.ir.file import save_program
from frostbit.kernels.machine import cpu
from frostbit.pipeline.bench import baseline, conditions, timing
from frostbit.pipeline.bench import file as bench_file
from frostbit.pipeline.bench.rows import Row, scaling
from frostbit.pipeline.bench.table import bench_markdown, bench_table
from frostbit.pipeline.cli.main import main
from tests import ROOT
from tests.nets import every_op
from tests.pipeline.bench.test_bench import benchmark, row

RUNTIMES = ("engine", "ort-fp32", "lce:indirect", "c")


def bench(model: Path, *words: object) -> Result:
    names = [word for name in RUNTIMES for word in ("--runtime", name)]
    return CliRunner().invoke(main, ["bench", str(model), *names, *map(str, words)])


def test_every_runtime_at_every_number_of_threads(tmp_path: Path) -> None:
    model, out = tmp_path / "model.bnn", tmp_path / "bench.json"
    save_program(every_op(), model)
    words = ("--rounds", 2, "--json", out, "--markdown", tmp_path / "bench.md")
    done = bench(model, "--threads", "1, 2", *words)
    assert done.exit_code == 0, done.output
    found = bench_file.read(out)
    rows = [(each["name"].split(":")[0], each["threads"]) for each in found["runtimes"]]
    several = [(name, count) for count in (1, 2) for name in ("engine", "ort-fp32", "lce")]
    assert sorted(rows) == sorted([*several, ("c", 1)])
    assert found["conditions"]["thread_counts"] == [1, 2]
    assert found["conditions"]["available_cores"] == cpu.available_cores()
    for each in found["runtimes"]:  # beside the engine with as many threads
        is_engine = each["name"].startswith("engine")
        assert (each["ratio"]["low"] == each["ratio"]["high"]) == is_engine
    compared = [each["name"] for each in found["parity"]["runtimes"]]
    assert len(set(compared)) == len(compared) == 5
    assert sum(name.endswith(":threads2") for name in compared) == 2
    assert found["parity"]["sign_bits_differing"] == 0
    assert len(found["scaling"]) == 6
    medians = {
        (each["name"], each["threads"]): each["latency_ms"]["median"] for each in found["runtimes"]
    }
    for each in found["scaling"]:
        assert each["over"] == 1
        assert each["median_ms"] == medians[each["name"], each["threads"]]
        assert (each["faster"]["low"] == each["faster"]["high"]) == (each["threads"] == 1)
    assert "times faster than with 1 thread" in done.output
    assert "cores to use" in done.output or "core to use" in done.output
    assert (tmp_path / "bench.md").read_text().count("| threads |") == 2
    again = bench(model, "--rounds", 2, "--json", tmp_path / "again.json", "--baseline", out)
    assert "times the baseline" in again.output
    assert "not in the baseline" not in again.output


@pytest.mark.parametrize("text", ["0", "many", "1000", "1,1", "2,", "-1", "1.5", "9" * 5000])
def test_what_is_no_list_of_threads_is_one_line(tmp_path: Path, text: str) -> None:
    model = tmp_path / "model.bnn"
    save_program(every_op(), model)
    done = bench(model, "--threads", text)
    assert done.exit_code == 2
    assert "--threads" in done.output
    assert "as in 1,2" in " ".join(done.output.split())
    assert not (tmp_path / "bench.json").exists()


def measured() -> tuple[Row, ...]:
    """An engine that halves its time with two threads, a peer that does not, in 9 rounds."""
    return (
        row("engine:xnor", [1.0] * 9),
        row("ort-fp32", [3.0] * 9),
        row("engine:xnor", [0.5] * 9, threads=2),
        row("ort-fp32", [3.0] * 9, threads=2),
        row("c", [9.0] * 9),
    )


def test_scaling_is_over_the_first_number_of_threads() -> None:
    found = {(each.name, each.threads): each for each in scaling(measured())}
    assert len(found) == 4
    assert found["engine:xnor", 2].faster.value == pytest.approx(2)
    assert found["ort-fp32", 2].faster.value == pytest.approx(1)
    assert found["ort-fp32", 1].faster == timing.Ratio(1, 1, 1)


def test_the_tables_name_threads_only_where_they_differ() -> None:
    tables, _ = bench_table(benchmark(*measured()), [])
    assert [column.header for column in tables[0].columns][:2] == ["runtime", "threads"]
    assert [len(table.rows) for table in tables] == [5, 4]
    assert len(bench_table(benchmark(*measured()[:2]), [])[0]) == 1
    assert "threads" not in bench_markdown(benchmark(*measured()[:2])).splitlines()[0]


def test_the_cores_that_there_really_were_are_said() -> None:
    facts = {"cores": 64, "affinity": [3, 4], "cpu_quota": None, "available_cores": 2}
    assert conditions.cores_line(facts).startswith("2 cores to use of the machine's 64: CPUs 3, 4")
    facts |= {"cpu_quota": 1.5, "available_cores": 1}
    assert "1 core to use" in conditions.cores_line(facts)
    assert "a quota of 1.5" in conditions.cores_line(facts)


@pytest.mark.parametrize("path", sorted((ROOT / "pipeline/records").glob("*-bench-*@*.json")))
def test_files_without_threads_in_their_rows_still_load(path: Path) -> None:
    found = bench_file.read(path)
    assert {each["threads"] for each in found["runtimes"]} == {1}
    assert found["scaling"] == []
    assert "threads" not in json.loads(path.read_text())["runtimes"][0]


def test_a_baseline_knows_its_threads() -> None:
    before = json.loads(benchmark(*measured()).to_json())
    now = benchmark(*measured()[2:], row("ort-fp32", [3.0] * 9, threads=4))
    verdicts, _ = baseline.compare(now, before, 5)
    assert [each.word for each in verdicts] == ["within noise"] * 3 + ["new"]
    assert str(verdicts[3]) == "toy ort-fp32, 4 threads: not in the baseline"
    assert np.isclose(verdicts[0].ratio.value if verdicts[0].ratio else 0, 1)
