"""Grids of short training runs with seeds: ``pipeline experiment NAME``.

A grid is a TOML file in ``pipeline/experiments``: a recipe, and lists of values for its fields,
every combination of which is a run. Runs go over processes of one thread each (so the result of a
run does not depend on how many there are), each leaves a JSON file when it ends, and a grid that
was stopped goes on where it was. At the end the record and a picture are drawn from those files.

What is measured: the trained network with BatchNorm re-estimated, as in the papers; it is not
settled. Settings are chosen on the validation split.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import time
import tomllib
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib import resources
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, track
from rich.progress import Progress as RichProgress
from rich.table import Table

from frostbit.pipeline import json_file
from frostbit.pipeline.errors import UserError, unknown
from frostbit.pipeline.json_file import Count, JsonError, Percent
from frostbit.pipeline.run import recipe as recipes
from frostbit.pipeline.run.folder import write_bytes, writing
from frostbit.pipeline.run.recipe import Recipe
from frostbit.pipeline.training.reproducibility import THREADS_VARIABLE

if TYPE_CHECKING:
    from frostbit.pipeline.data.datasets import Dataset

Fields = dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """A grid of runs.

    Attributes:
        name: of the experiment.
        title: one sentence on what it asks.
        recipe: name of the recipe that all runs start from.
        runs: fields that differ from it, one dictionary per run.
    """

    name: str
    title: str
    recipe: str
    runs: tuple[Fields, ...]

    def settings(self, run: Fields) -> Recipe:
        """The recipe of one run."""
        return recipes.load(self.recipe, run)


def names() -> tuple[str, ...]:
    """The experiments that ship with the package."""
    files = resources.files("frostbit.pipeline").joinpath("experiments").iterdir()
    return tuple(sorted(f.name[: -len(".toml")] for f in files if f.name.endswith(".toml")))


def load(name: str) -> Experiment:
    """An experiment by name, or from a ``.toml`` file.

    Raises:
        UserError: unknown name, unreadable file, unknown field or bad value.
    """
    if name.endswith(".toml"):
        text = recipes.read_text(Path(name), "experiment")
    elif name in names():
        text = (
            resources.files("frostbit.pipeline").joinpath("experiments", f"{name}.toml").read_text()
        )
    else:
        raise unknown("experiment", name, names())
    try:
        content = tomllib.loads(text)
        grids = [{k: _listed(v) for k, v in grid.items()} for grid in content["runs"]]
        title, recipe = str(content["title"]), str(content["recipe"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"experiment '{name}' is not valid ({error}); it needs title, recipe and [[runs]]"
        ) from error
    runs = tuple(run for grid in grids for run in _combinations(grid))
    experiment = Experiment(Path(name).stem, title, recipe, runs)
    for run in runs:
        settings = experiment.settings(run)
        if name.endswith(".toml"):
            recipes.require_trust(settings, Path(name))
    return experiment


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _combinations(grid: dict[str, list[Any]]) -> Iterator[Fields]:
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def slug(run: Fields) -> str:
    """File name of a run: its fields and values."""
    text = ",".join(f"{key}={value}" for key, value in run.items())
    return "".join(c if c.isalnum() or c in "=,.-_" else "_" for c in text)


def _dataset(recipe: Recipe, data_dir: Path | str | None, skip_corrupt: bool) -> Dataset:
    from frostbit.pipeline.data import datasets
    from frostbit.pipeline.training.train import photographs

    chosen = photographs(recipe, skip_corrupt)
    return datasets.load(recipe.dataset, data_dir, photographs=chosen)


def measure(recipe: Recipe, data_dir: str | None, skip_corrupt: bool = False) -> Fields:
    """Train one recipe on the CPU; returns its accuracies (percent) and seconds."""
    import torch

    from frostbit.pipeline.lowering.settle import reestimate_batchnorm
    from frostbit.pipeline.training.loop import Setting, Trainer
    from frostbit.pipeline.training.reproducibility import reproducible
    from frostbit.pipeline.training.train import accuracy, settling_pixels

    cpu = torch.device("cpu")
    dataset = _dataset(recipe, data_dir, skip_corrupt)
    with reproducible(recipe.seed):
        trainer = Trainer(recipe, dataset, Setting(cpu))
        start = time.perf_counter()
        trainer.run()
        seconds = time.perf_counter() - start
        reestimate_batchnorm(trainer.model, settling_pixels(dataset))
        return {
            "model": recipe.model,
            "method": recipe.method,
            "binarize": recipe.binarize,
            "recipe": recipe.name,
            "classes": len(dataset.classes),
            "seed": recipe.seed,
            "validation_accuracy": round(accuracy(trainer.model, dataset.validation, cpu), 4),
            "test_accuracy": round(accuracy(trainer.model, dataset.test, cpu), 4),
            "last_training_accuracy": trainer.history[-1].accuracy,
            "seconds": round(seconds, 3),
        }


def _one_thread() -> None:
    os.environ[THREADS_VARIABLE] = "1"


def run(
    experiment: Experiment,
    out: Path,
    jobs: int,
    data_dir: Path | None,
    console: Console | None,
    skip_corrupt: bool = False,
    force: bool = False,
) -> dict[str, Any]:
    """Do what is missing of ``experiment``, then write record and picture into ``out``.

    Args:
        experiment: the grid.
        out: folder; ``runs/`` in it holds one JSON per finished run.
        jobs: runs at a time, each on one thread.
        data_dir: folder of the data set's files.
        console: where the progress bar goes; None for silence.
        skip_corrupt: leave out pictures that cannot be decoded.
        force: make finished runs again.

    Returns:
        The record, as written to ``NAME.json``.

    Raises:
        UserError: a network is refused before training, a run diverged, or the folder cannot be
            written.
    """
    folder = out / "runs"
    paths = {folder / f"{slug(each)}.json": each for each in experiment.runs}
    todo = {path: each for path, each in paths.items() if force or not path.exists()}
    _check([experiment.settings(each) for each in todo.values()], data_dir, skip_corrupt, console)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=console is None,
    ) as bar:
        task = bar.add_task(experiment.name, total=len(paths), completed=len(paths) - len(todo))
        place = None if data_dir is None else str(data_dir)
        with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=_one_thread) as pool:
            waiting = {
                pool.submit(measure, experiment.settings(each), place, skip_corrupt): (path, each)
                for path, each in todo.items()
            }
            for future in _as_they_end(waiting, pool):
                path, each = waiting[future]
                content = {**each, **_result(future)}
                write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())
                bar.advance(task)
    return _write(experiment, out, [_read(path) for path in paths])


class _Measured(Struct):
    seed: Count
    validation_accuracy: Percent
    test_accuracy: Percent


def _read(path: Path) -> Fields:
    """A run of this grid that ended earlier."""
    try:
        return json_file.document(json_file.read_bytes(path), _Measured)
    except (OSError, JsonError) as error:
        raise UserError(f"'{path}' is damaged ({error}); remove it to run it again") from error


NETWORK_FIELDS = (
    "dataset", "image_size", "train_images", "model", "width", "stem_stride", "final_sign",
    "cifar_stem", "keep", "binarize", "batch", "accumulate",
)  # fmt: skip
"""Runs that agree in these train the same network, which is checked once."""


def _check(
    runs: list[Recipe], data_dir: Path | None, skip_corrupt: bool, console: Console | None
) -> None:
    """Refuse a network that could not be packed, before the first run."""
    from frostbit.pipeline.training.before import require_packable

    chosen = {
        (each.method == "float", *(getattr(each, name) for name in NETWORK_FIELDS)): each
        for each in runs
    }
    label = "checking the networks"
    for recipe in track(chosen.values(), label, console=console, disable=console is None):
        require_packable(recipe, _dataset(recipe, data_dir, skip_corrupt))


def _result(future: Future[Fields]) -> Fields:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise UserError(
            "the process of a run was killed (too little memory?); finished runs are kept: go on "
            "with fewer at a time, e.g. --jobs 1"
        ) from error


def _as_they_end(
    waiting: dict[Future[Fields], Any], pool: ProcessPoolExecutor
) -> Iterator[Future[Fields]]:
    left = set(waiting)
    try:
        while left:
            done, left = wait(left, return_when=FIRST_COMPLETED)
            yield from done
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _write(experiment: Experiment, out: Path, runs: list[Fields]) -> dict[str, Any]:
    import torch

    from frostbit.pipeline.experiments import plot as grid_plot
    from frostbit.pipeline.training.reproducibility import conditions

    rows = means(runs)
    record = {
        "title": experiment.title,
        "command": f"pipeline experiment {experiment.name}",
        "conditions": {**conditions(torch.device("cpu")), "threads": 1},
        "unit": "percent",
        "means": rows,
        "runs": runs,
    }
    write_bytes(out / f"{experiment.name}.json", (json.dumps(record, indent=1) + "\n").encode())
    classes = {each["classes"] for each in runs if "classes" in each}
    picture = grid_plot.draw(rows, experiment.title, classes.pop() if len(classes) == 1 else None)
    write_bytes(out / f"{experiment.name}.png", picture)
    return record


def means(runs: list[Fields]) -> list[Fields]:
    """Runs that differ in their seed alone, as one row: mean, standard deviation, count."""
    varying = (
        "seed",
        "classes",
        "validation_accuracy",
        "test_accuracy",
        "last_training_accuracy",
        "seconds",
    )
    groups: dict[str, list[Fields]] = {}
    for each in runs:
        key = json.dumps({k: v for k, v in each.items() if k not in varying}, sort_keys=True)
        groups.setdefault(key, []).append(each)
    rows = []
    for key, members in groups.items():
        row = {**json.loads(key), "runs": len(members)}
        for which in ("validation_accuracy", "test_accuracy"):
            values = [float(m[which]) for m in members]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            row[which] = {"mean": round(statistics.fmean(values), 3), "std": round(spread, 3)}
        rows.append(row)
    return rows


def table(record: dict[str, Any]) -> Table:
    """Mean and standard deviation of every group of runs of an experiment's record."""
    shown = Table(title=record["title"])
    for column in ("model", "method", "binarize"):
        shown.add_column(column)
    for column in ("runs", "validation %", "test %"):
        shown.add_column(column, justify="right")
    for row in record["means"]:
        figures = [row["validation_accuracy"], row["test_accuracy"]]
        cells = [f"{f['mean']:.2f} ± {f['std']:.2f}" for f in figures]
        names = [str(row[key]) for key in ("model", "method", "binarize", "runs")]
        shown.add_row(*names, *cells)
    return shown
