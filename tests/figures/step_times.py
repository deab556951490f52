"""Step times of the methods over that of STE: ``python -m tests.figures.step_times``.

For each net and each of ten moments of a schedule, a step of every method and one of ``ste`` are
timed in turn, in one process, on the same batches. A method's figure is the mean over the moments
of its median time, over that of STE: what a whole training costs. ``global`` half way shows the
dearest moment: every entry of the network is masked with p = 0.5 and refreshed.
"""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from rich.table import Table

from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.data import datasets
from frostbit.pipeline.run import recipe
from frostbit.pipeline.run.folder import write_bytes
from frostbit.pipeline.training.loop import Setting, Trainer
from frostbit.pipeline.training.reproducibility import conditions, reproducible

METHODS = ("ste", "stompp", "stompp-ste", "global")
MOMENTS = tuple((2 * i + 1) / 20 for i in range(10))
HALF = 0.5
NETS: dict[str, dict[str, Any]] = {
    "conv": {"model": "plain-24"},
    "mlp": {"model": "mlp-30", "width": 128},
}


@dataclass(frozen=True)
class Ratio:
    """Step times of one method on one net.

    Attributes:
        net, method: names.
        schedule: mean step time over a whole schedule, over that of STE.
        half: step time where its share is nearest to one half, over that of STE.
        milliseconds: median step time at every moment.
    """

    net: str
    method: str
    schedule: float
    half: float
    milliseconds: tuple[float, ...]


def trainers(net: str) -> dict[str, Trainer]:
    """One trainer per method on the ``paper`` recipe, with a linear ramp so that p = 0.5 is met."""
    base = recipe.load("paper", {**NETS[net], "ramp": "linear"})
    dataset = datasets.load(base.dataset)
    made = {}
    for method in METHODS:
        chosen = recipe.override(base, {"method": method})
        made[method] = Trainer(chosen, dataset, Setting(torch.device("cpu")))
        made[method].network.train()
    return made


def moments(trainer: Trainer) -> list[int]:
    """Steps to time: spread over the schedule, and last the one in the middle of a window."""
    middle = trainer.schedule.layers // 2
    start, end = trainer.schedule.window(middle)
    return [round(m * trainer.steps) for m in MOMENTS] + [round((start + end) / 2)]


def measure(net: str, rounds: int, bar: Any) -> list[Ratio]:
    """Time ``net``: every method in turn, ``rounds`` times at every moment."""
    made = trainers(net)
    places = moments(made["stompp"])
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    for place in bar(places):
        times: dict[str, list[float]] = {method: [] for method in METHODS}
        batches = made["ste"].batches.epoch(0)
        for offset, (images, labels) in zip(range(rounds + 2), batches, strict=False):
            for method, trainer in made.items():
                step = min(place + offset, trainer.steps - 1)
                start = time.perf_counter()
                trainer.freezer.advance(step)
                trainer._step(step, images, labels)
                if offset >= 2:  # the first ones set masks up from scratch
                    times[method].append(1e3 * (time.perf_counter() - start))
        for method, values in times.items():
            found[method].append(statistics.median(values))
    base = found["ste"]
    return [
        Ratio(
            net,
            method,
            round(sum(ms[:-1]) / sum(base[:-1]), 3),
            round(ms[-1] / base[-1], 3),
            tuple(round(m, 3) for m in ms),
        )
        for method, ms in found.items()
    ]


@click.command()
@click.option("--rounds", type=click.IntRange(3), default=15, show_default=True)
@click.option("--json", "json_file", type=FILE, help="Also write the figures here.")
def main(rounds: int, json_file: Path | None) -> None:
    """Step times of the training methods over that of STE, on the CPU.

    Example: python -m tests.figures.step_times --rounds 15
    """
    bar = progress()
    with reproducible(0):
        ratios = [r for net in NETS for r in measure(net, rounds, bar(net))]
    table = Table(title="training step time over that of ste")
    for column in ("net", "method", "whole schedule", "middle of a window (p = 0.5)", "ms"):
        table.add_column(column, justify="left" if column in ("net", "method") else "right")
    for ratio in ratios:
        mean = statistics.fmean(ratio.milliseconds[:-1])
        figures = (f"{ratio.schedule:.2f}", f"{ratio.half:.2f}", f"{mean:.1f}")
        table.add_row(ratio.net, ratio.method, *figures)
    terminal().print(table)
    if json_file is not None:
        record = {
            "command": f"python -m tests.figures.step_times --rounds {rounds}",
            "conditions": conditions(torch.device("cpu")),
            "ratios": [ratio.__dict__ for ratio in ratios],
        }
        write_bytes(json_file, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
