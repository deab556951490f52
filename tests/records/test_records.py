"""What the documents say of a record is what the record says."""

import json
from typing import Any

import pytest

from frostbit.pipeline.experiments import grid as experiments_grid
from frostbit.pipeline.run import recipe
from tests import ROOT

RECORDS = ROOT / "pipeline" / "records"
TRAINING = (ROOT / "docs" / "training.md").read_text()
FIGURES = (ROOT / "docs" / "figures.md").read_text()


def record(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECORDS / f"{name}.json").read_text())
    return found


def accuracies(name: str) -> dict[tuple[str, str, str], dict[str, float]]:
    rows = record(name)["means"]
    return {(r["model"], r["method"], r["binarize"]): r["test_accuracy"] for r in rows}


def shown(value: dict[str, float]) -> str:
    return f"{value['mean']:.1f} ± {value['std']:.1f}"


DEPTH = "2026-11-23-paper-depth"


def test_means_are_those_of_the_runs() -> None:
    found = record(DEPTH)
    assert found["means"] == experiments_grid.means(found["runs"])
    assert {row["runs"] for row in found["means"]} == {3}
    grid = experiments_grid.load("paper-depth")
    assert len(found["runs"]) == len(grid.runs)


def test_best_against_best() -> None:
    found, searched = record("2026-11-23-best"), record("2026-11-23-best-search")
    assert found["means"] == experiments_grid.means(found["runs"])
    assert len(found["runs"]) == len(experiments_grid.load("best").runs) == 9
    assert len(searched["runs"]) == len(experiments_grid.load("best-search").runs)
    constant = [r for r in record(DEPTH)["runs"] if r["model"] == "plain-24" and r["seed"] == 0]
    names = {"ste": "STE", "stompp": "StoMPP", "stompp-ste": "StoMPP+STE"}
    for row in found["means"]:
        tried = [r for r in (*searched["runs"], *constant) if r["method"] == row["method"]]
        tried = [r for r in tried if r["binarize"] == "both"]
        best = max(tried, key=lambda r: r["validation_accuracy"])
        assert (best["optimizer"], best["lr_binary"]) == (row["optimizer"], row["lr_binary"])
        cells = [names[row["method"]], f"Adam, {row['lr_binary']}"]
        cells += [shown(row["validation_accuracy"]), shown(row["test_accuracy"])]
        assert "| " + " | ".join(cells) + " |" in TRAINING


def test_the_table_of_step_times() -> None:
    ratios = record("2026-11-23-step-time")["ratios"]
    titles = {"conv": "plain-24", "mlp": "mlp-30"}
    for net, title in titles.items():
        mine = {r["method"]: r for r in ratios if r["net"] == net}
        for key, what in (("schedule", "whole schedule"), ("half", "middle of a window (p = 0.5)")):
            cells = [f"{mine[m][key]:.2f}" for m in ("ste", "stompp", "stompp-ste", "global")]
            assert f"| {title}, {what} | {' | '.join(cells)} |" in TRAINING
        assert mine["stompp"]["schedule"] <= 0.85
        assert mine["stompp-ste"]["schedule"] <= 1.10
        assert max(mine[m]["half"] for m in ("stompp", "stompp-ste")) <= 1.10


@pytest.mark.parametrize("depth", [6, 12, 18, 24, 36])
def test_the_table_over_depth(depth: int) -> None:
    mine = {
        method: accuracies(DEPTH)[f"plain-{depth}", method, "both"]
        for method in ("ste", "stompp", "stompp-ste")
    }
    gains = [mine[m]["mean"] - mine["ste"]["mean"] for m in ("stompp", "stompp-ste")]
    cells = [str(depth), *(shown(v) for v in mine.values()), *(f"+{gain:.1f}" for gain in gains)]
    assert "| " + " | ".join(cells) + " |" in TRAINING


def test_the_tables_of_orders() -> None:
    found = accuracies(DEPTH)
    orders = [found["plain-24", m, "both"] for m in ("stompp", "global", "reverse", "frozen")]
    assert " | ".join(shown(v) for v in orders) in TRAINING
    weights = [found["plain-24", m, "weights"] for m in ("ste", "stompp", "reverse", "global")]
    assert " | ".join(shown(v) for v in weights) in TRAINING


def test_what_the_papers_found_is_found_here() -> None:
    found = {key: value["mean"] for key, value in accuracies(DEPTH).items()}

    def gain(depth: int, method: str) -> float:
        model = f"plain-{depth}"
        return found[model, method, "both"] - found[model, "ste", "both"]

    forward = found["plain-24", "stompp", "both"]
    assert gain(24, "stompp") >= 6
    assert gain(24, "stompp-ste") >= 10
    assert gain(24, "stompp") - gain(6, "stompp") >= 5
    assert forward - found["plain-24", "reverse", "both"] >= 15
    assert forward >= found["plain-24", "global", "both"]
    assert found["plain-24", "frozen", "both"] <= 20
    weights = [found["plain-24", m, "weights"] for m in ("stompp", "reverse")]
    assert abs(weights[0] - weights[1]) <= 2


def test_fashion_small_is_accurate_within_a_quarter_of_an_hour() -> None:
    (run,) = record("2026-11-24-fashion-small")["runs"]
    assert run["test_accuracy"] >= 89
    assert run["seconds"] <= 15 * 60
    assert f"{run['test_accuracy']:.1f} % (one thread)" in FIGURES
    minutes = round(run["seconds"] / 60)
    assert f"yes: {run['test_accuracy']:.1f} % in {minutes} minutes on one core" in TRAINING


def test_what_was_not_run_is_listed_so() -> None:
    lines = [line for line in FIGURES.splitlines() if line.startswith("| `paper-")]
    names = {line.split("`")[1] for line in lines}
    assert names == {name for name in recipe.recipe_names() if name.startswith("paper-")}
    assert all(line.endswith("| not run here |") for line in lines)
