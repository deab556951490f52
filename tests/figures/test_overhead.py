"""The benchmark examined: its commands on small cases, and what their records and pages say."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from frostbit.kernels.ir.file import save_program
from frostbit.pipeline.bench import timing
from tests import ROOT
from tests.figures import overhead
from tests.nets import every_op

RECORDS = ROOT / "pipeline" / "records"
DAY = "2026-11-25"


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDS / f"{DAY}-{name}.json").read_text())
    return found


def test_trials_are_added_to_a_record(tmp_path: Path) -> None:
    model, out = tmp_path / "model.bnn", tmp_path / "same.json"
    save_program(every_op(), model)
    words = ["same", str(model), "--runtime", "engine", "--trials", "1", "-o", str(out)]
    done = CliRunner().invoke(overhead.main, [*words, "--rounds", "2"])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    (name,) = found["trials"][0]["ratios"]
    assert name.startswith("engine:")
    assert found["held"][name] == found["trials"][0]["ratios"][name]["holds_1"]
    refused = CliRunner().invoke(overhead.main, [*words, "--rounds", "3"])
    assert refused.exit_code == 1
    assert "of other trials" in refused.output


def test_intervals_that_hold_are_counted() -> None:
    def trial(*held: bool) -> dict[str, Any]:
        ratios = {name: {"holds_1": each} for name, each in zip("ab", held, strict=True)}
        return {"ratios": ratios}

    trials = [trial(True, False), trial(True, True), trial(False, False)]
    assert overhead.held(trials) == {"a": 2, "b": 1}


def test_overhead_is_that_of_the_bare_loop(tmp_path: Path) -> None:
    out = tmp_path / "overhead.json"
    done = CliRunner().invoke(overhead.main, ["overhead", "--rounds", "2", "-o", str(out)])
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert 0 < found["empty_call_ms"] < found["model_ms"]
    assert found["timed_over_bare_loop"]["value"] > 0


def test_the_record_of_20_trials() -> None:
    found = record("same-binary")
    assert len(found["trials"]) >= 20
    assert found["held"] == overhead.held(found["trials"])
    for name, count in found["held"].items():
        assert count >= 0.95 * len(found["trials"]), name
        for each in (t["ratios"][name] for t in found["trials"]):
            assert each["holds_1"] == (each["low"] <= 1 <= each["high"])
            # no interval is narrower than the allowance for placement
            least = timing.COVERAGE * 2**0.5 * timing.PLACEMENT
            assert each["high"] / each["low"] >= 1 + 2 * least * 0.99
    page = (ROOT / "docs" / "bench.md").read_text()
    for count in found["held"].values():
        assert f"{count} of {len(found['trials'])} for" in page


def test_the_allowance_for_placement_is_what_was_measured() -> None:
    """Trials of their own; those that show that the intervals hold came later."""
    trials = record("placement")["trials"]
    assert len(trials) == 21
    logs = [math.log(each["ratios"]["engine:xnor"]["value"]) for each in trials]
    assert round(statistics.stdev(logs) / math.sqrt(2), 2) == timing.PLACEMENT


def test_the_record_of_overhead() -> None:
    found = record("bench-overhead")
    assert 0.5 <= found["model_ms"] <= 2
    assert found["empty_call_percent"] < 2
    assert found["percent_over_bare_loop"] < 2
    page = (ROOT / "docs" / "bench.md").read_text()
    assert f"{found['percent_over_bare_loop']:+.1f} %" in page
