"""Grids of runs: what a record holds, going on after a stop, and the picture."""

import io
import json
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.experiments import grid as experiments_grid
from frostbit.pipeline.experiments import plot as grid_plot
from tests import ROOT
from tests.figures import step_times

GRID = """
title = "a grid"
recipe = "digits"

[[runs]]
model = ["plain-2", "plain-4"]
method = "ste"
width = 8
epochs = 1
batch = 400
seed = [0, 1]
"""


@pytest.fixture
def grid(tmp_path: Path) -> experiments_grid.Experiment:
    (tmp_path / "tiny.toml").write_text(GRID)
    return experiments_grid.load(str(tmp_path / "tiny.toml"))


def test_a_grid_is_every_combination(grid: experiments_grid.Experiment) -> None:
    assert grid.name == "tiny"
    assert len(grid.runs) == 4
    assert grid.settings(grid.runs[3]).model == "plain-4"
    assert grid.settings(grid.runs[3]).seed == 1
    assert len({experiments_grid.slug(run) for run in grid.runs}) == 4


@pytest.mark.parametrize("name", experiments_grid.names())
def test_the_experiments_that_ship_are_valid(name: str) -> None:
    found = experiments_grid.load(name)
    slugs = [experiments_grid.slug(run) for run in found.runs]
    assert len(slugs) == len(set(slugs)) > 1


def test_a_stopped_grid_goes_on(grid: experiments_grid.Experiment, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "runs").mkdir(parents=True)
    kept = out / "runs" / f"{experiments_grid.slug(grid.runs[0])}.json"
    made_up = {
        "model": "plain-2", "method": "ste", "binarize": "both", "recipe": "digits",
        "width": 8, "epochs": 1, "batch": 400, "seed": 0,
        "validation_accuracy": 1.5, "test_accuracy": 2.5, "last_training_accuracy": 3,
        "seconds": 0.1,
    }  # fmt: skip
    kept.write_text(json.dumps(made_up))
    record = experiments_grid.run(grid, out, 2, None, None)
    assert json.loads((out / "tiny.json").read_text()) == record
    assert len(record["runs"]) == 4
    assert record["runs"][0]["test_accuracy"] == 2.5, "a finished run is not done again"
    for run in record["runs"][1:]:
        assert run["recipe"] == "digits"
        assert 0 <= run["validation_accuracy"] <= 100
        assert run["seconds"] > 0
    assert [(row["model"], row["runs"]) for row in record["means"]] == [
        ("plain-2", 2), ("plain-4", 2),
    ]  # fmt: skip
    assert record["conditions"]["threads"] == 1
    again = experiments_grid.run(grid, out, 1, None, None)
    assert again["runs"] == record["runs"]
    picture = imread(io.BytesIO((out / "tiny.png").read_bytes()), format="png")
    assert picture.shape == (660, 1080, 4)
    assert picture.std() > 0.05


def test_the_same_run_has_the_same_result_in_any_process(
    grid: experiments_grid.Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTBIT_THREADS", "1")
    first, second = (experiments_grid.measure(grid.settings(grid.runs[1]), None) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


def test_a_run_whose_process_was_killed_is_one_line() -> None:
    killed: Future[dict[str, object]] = Future()
    killed.set_exception(BrokenProcessPool("terminated abruptly"))
    with pytest.raises(UserError, match=r"finished runs are kept.*--jobs 1"):
        experiments_grid._result(killed)


def test_means_and_spread() -> None:
    runs = [
        {"model": "plain-2", "method": "ste", "binarize": "both", "recipe": "paper", "seed": seed,
         "validation_accuracy": 50.0 + seed, "test_accuracy": 60.0 + 2 * seed, "seconds": seed}
        for seed in (0, 1, 2)
    ]  # fmt: skip
    (row,) = experiments_grid.means(runs)
    assert row["runs"] == 3
    assert row["test_accuracy"] == {"mean": 62.0, "std": 2.0}
    assert row["validation_accuracy"] == {"mean": 51.0, "std": 1.0}


def test_labels_and_depths() -> None:
    assert grid_plot.depth("plain-24") == 24
    assert grid_plot.depth("mine") == 0
    assert grid_plot.label({"method": "ste", "binarize": "weights"}).startswith("ste (")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("title = 3", "it needs title, recipe"),
        ("title", "not valid"),
        ('title = "x"\nrecipe = "digits"\n[[runs]]\nwidht = 3', "did you mean 'width'"),
        ('title = "x"\nrecipe = "digit"\n[[runs]]\nwidth = 3', "did you mean 'digits'"),
    ],
)
def test_a_bad_grid_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "bad.toml").write_text(text)
    with pytest.raises(UserError, match=words):
        experiments_grid.load(str(tmp_path / "bad.toml"))


def test_unknown_experiments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="did you mean 'paper-depth'"):
        experiments_grid.load("paper-deep")
    with pytest.raises(UserError, match="check the path"):
        experiments_grid.load(str(tmp_path / "none.toml"))


def test_step_times_are_measured_at_every_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(step_times, "NETS", {"conv": {"model": "plain-2", "width": 8}})
    monkeypatch.setattr(step_times, "MOMENTS", (0.1, 0.9))
    ratios = {r.method: r for r in step_times.measure("conv", 3, lambda steps: steps)}
    assert set(ratios) == set(step_times.METHODS)
    assert ratios["ste"].schedule == ratios["ste"].half == 1
    assert all(len(r.milliseconds) == 3 and min(r.milliseconds) > 0 for r in ratios.values())
    made = step_times.trainers("conv")["stompp"]
    middle = made.schedule.layers // 2
    assert made.schedule.share(middle, step_times.moments(made)[-1]) == pytest.approx(0.5, abs=0.01)


def test_no_marker_of_the_depth_picture_hides_another() -> None:
    """The record's own rows: few entries in the legend, chance, and free markers."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    record = json.loads((ROOT / "pipeline/records/2026-11-23-paper-depth.json").read_text())
    rows = record["means"]
    figure = grid_plot.figure(rows, record["title"], 10)
    FigureCanvasAgg(figure).draw()
    (axes,) = figure.axes
    legend = axes.get_legend()
    assert legend is not None
    texts = [each.get_text() for each in legend.get_texts()]
    assert len(texts) == len({row["method"] for row in rows}) + 2
    assert {"chance (10 %)", "open: binary weights only"} < set(texts)
    lines = [each.lines[0] for each in axes.containers]
    places = np.concatenate([axes.transData.transform(line.get_xydata()) for line in lines])
    assert len(places) == len(rows)
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    pixels = lines[0].get_markersize() * figure.dpi / 72
    assert apart[~np.eye(len(rows), dtype=bool)].min() > pixels
