"""``pipeline experiment``: a grid of recipes with seeds."""

from __future__ import annotations

from pathlib import Path

import click

from frostbit.pipeline.cli.options import FOLDER, data_options, out_options, trust_option
from frostbit.pipeline.console import terminal
from frostbit.pipeline.errors import UserError


@click.command(name="experiment")
@click.argument("name")
@out_options(FOLDER, "[default: runs/experiments/NAME]")
@click.option("--jobs", type=click.IntRange(1), help="Runs at a time [default: one a core].")
@data_options
@trust_option
def experiment_command(
    name: str,
    out: Path | None,
    force: bool,
    jobs: int | None,
    data_dir: Path | None,
    skip_corrupt: bool,
) -> None:
    """Train a grid of recipes with seeds; write a record (JSON) and a picture.

    A grid that was stopped goes on where it was; with --force its runs are made again.

    Example: pipeline experiment smoke
    """
    try:
        from frostbit.pipeline.experiments import grid as grids
        from frostbit.pipeline.training.reproducibility import thread_count
    except ImportError as error:
        raise UserError(
            f"experiments need {error.name}: install it with pip install 'frostbit[train]'"
        ) from error
    grid = grids.load(name)
    folder = out or Path("runs") / "experiments" / grid.name
    console = terminal()
    record = grids.run(grid, folder, jobs or thread_count(), data_dir, console, skip_corrupt, force)
    console.print(grids.table(record))
    console.print(f"wrote {folder / grid.name}.json and .png")
