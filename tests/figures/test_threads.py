"""What threads bring: the program on the smallest network, a few short rounds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.figures import threads

NETWORK = "resnet18@32"
RUNTIMES = ("engine", "ort-fp32")


def measured(rows: list[dict[str, Any]]) -> set[tuple[str, int]]:
    return {(each["name"].split(":")[0], each["threads"]) for each in rows}


@pytest.mark.slow
def test_scaling_and_load_are_added_to_one_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "RUNTIMES", RUNTIMES)
    out, every = tmp_path / "threads.json", {(name, count) for name in RUNTIMES for count in (1, 2)}
    for words in (["scaling", "--rounds", "2"], ["load", "--rounds", "2", "--seconds", "0"]):
        words += ["--threads", "2", "--network", NETWORK, "-o", str(out)]
        done = CliRunner().invoke(threads.main, words)
        assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    scaling = found["scaling"][NETWORK]
    assert measured(scaling["scaling"]) == every
    assert scaling["yardstick"]["alone_per_s"] > 0
    assert scaling["yardstick"]["times_one"]["low"] < scaling["yardstick"]["times_one"]["high"]
    load = found["load"][NETWORK]
    for state in ("idle", "busy"):
        assert measured(load[state]) == every
        assert all(each["p99_over_median"] >= 1 for each in load[state])
    assert load["conditions"]["available_cores"] >= 1
