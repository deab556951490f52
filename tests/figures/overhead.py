"""How good the benchmark itself is: ``python -m tests.figures.overhead overhead`` and ``... same``.

``overhead``: what measuring adds to a measured time. A runtime that does nothing goes through the
benchmark: what is reported for it is added to every figure. And a model of about a millisecond is
run by the benchmark and, in turn with it, in a bare loop between two readings of the clock; the
ratio of both is the overhead as a user would meet it.

``same``: whether the intervals hold. A trial is two benchmarks of the same model, each by
``pipeline bench`` in a process of its own, the second with ``--baseline``; the true ratio of both
is 1, and the printed interval should hold it in 19 of 20 trials. The record keeps every trial; a
record that is there is added to, so that the trials can be run in pieces.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from frostbit.export.runtimes import EngineRuntime, Images, Milliseconds, time_calls
from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.engine import Engine
from frostbit.pipeline.bench import conditions, timing
from frostbit.pipeline.bench import file as bench_file
from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import terminal
from frostbit.pipeline.data.inputs import random_images
from frostbit.pipeline.run.folder import write_bytes

MODEL = "resnet50@32"
"""About a millisecond."""
TRIED = "resnet18@32"


class Nothing:
    """A runtime that does nothing."""

    name = "nothing"

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        """Times of ``repeats`` empty calls."""
        return time_calls(lambda: None, repeats)

    def close(self) -> None:
        """Nothing to release."""


class BareLoop:
    """The engine between two readings of the clock; every run gets the mean."""

    name = "bare loop"

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        """The mean of ``repeats`` runs, ``repeats`` times."""
        run = self._engine.run
        start = time.perf_counter_ns()
        for _ in range(repeats):
            run(image)
        return np.full(repeats, (time.perf_counter_ns() - start) / 1e6 / repeats)

    def close(self) -> None:
        """Nothing to release."""


class Means(EngineRuntime):
    """The engine as the benchmark times it; a slot's runs get their mean, as the bare loop's do."""

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        """Times of ``repeats`` runs, averaged."""
        return np.full(repeats, super().latency(image, repeats).mean())


def overhead(rounds: int) -> dict[str, Any]:
    """What the benchmark adds to a model of about a millisecond."""
    program = synthetic(MODEL)
    images = random_images(program, 0, 1)
    runtimes = (Means(program), BareLoop(Engine(program)), Nothing())
    start = time.perf_counter()
    timed, bare, nothing = timing.measure([(each, images) for each in runtimes], rounds, 0)
    seconds = time.perf_counter() - start
    return {
        "model": MODEL,
        "rounds": rounds,
        "model_ms": bare.median,
        "empty_call_ms": nothing.median,
        "empty_call_percent": 100 * nothing.median / bare.median,
        "timed_over_bare_loop": {**vars(timing.paired_ratio(timed, bare))},
        "percent_over_bare_loop": 100 * (timing.paired_ratio(timed, bare).value - 1),
        "seconds": round(seconds, 2),
        "conditions": conditions.conditions(),
    }


def trial(model: list[str], names: list[str], rounds: int) -> dict[str, Any]:
    """Two benchmarks of the same model, and the second one's verdict on each runtime."""
    words = [word for name in names for word in ("--runtime", name)]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}.json" for i in range(2)]
        command = [sys.executable, "-m", "frostbit", "bench", *model, *words]
        command += ["--rounds", str(rounds)]
        for file in files:
            more = ["--json", str(file)]
            if file != files[0]:
                more += ["--baseline", str(files[0]), "--allowed", "1000"]
            done = subprocess.run([*command, *more], capture_output=True, text=True)
            if done.returncode:
                raise click.ClickException(done.stderr.strip() or done.stdout.strip()[-300:])
        first, second = (bench_file.read(file) for file in files)
    pairs = zip(second["runtimes"], first["runtimes"], strict=True)
    found = {}
    for now, before in pairs:
        rounds_of = [each["latency_ms"]["rounds"] for each in (now, before)]
        ratio = timing.ratio_of_runs(*rounds_of)
        found[now["name"]] = {**vars(ratio), "holds_1": ratio.low <= 1 <= ratio.high}
    noise = [round(each["conditions"]["noise"], 4) for each in (first, second)]
    return {"noise": noise, "ratios": found}


@click.group()
def main() -> None:
    """Examine the benchmark itself.

    Example: python -m tests.figures.overhead overhead
    """


@main.command(name="overhead")
@click.option("--rounds", type=click.IntRange(2), default=200, show_default=True)
@click.option("-o", "--out", type=FILE, help="Also write the figures here (JSON).")
def overhead_command(rounds: int, out: Path | None) -> None:
    """Say what measuring adds to a model of about a millisecond.

    Example: python -m tests.figures.overhead overhead -o overhead.json
    """
    found = overhead(rounds)
    ratio = timing.Ratio(**found["timed_over_bare_loop"])
    terminal().print(
        f"{MODEL}: {found['model_ms']:.3f} ms in a bare loop; timed run by run "
        f"{100 * (ratio.value - 1):+.2f} % ({rounds} pairs of slots)",
        f"an empty call takes {1e6 * found['empty_call_ms']:.0f} ns, "
        f"{found['empty_call_percent']:.3f} % of it",
        sep="\n",
    )
    if out is not None:
        write_bytes(out, (json.dumps(found, indent=2) + "\n").encode())


@main.command(name="same")
@click.argument("model", default="")
@click.option(
    "--runtime", "names", multiple=True, default=("engine", "ort-fp32"), show_default=True
)
@click.option("--trials", type=click.IntRange(1), default=20, show_default=True)
@click.option("--rounds", type=click.IntRange(1), default=50, show_default=True)
@click.option("-o", "--out", type=FILE, required=True, help="Record (JSON); added to if there.")
def same_command(model: str, names: tuple[str, ...], trials: int, rounds: int, out: Path) -> None:
    """Benchmark the same model twice, again and again; count the intervals that hold 1.

    Example: python -m tests.figures.overhead same --trials 5 -o same.json
    """
    what = [model] if model else ["--synthetic", TRIED]
    head = {"model": " ".join(what), "runtimes": list(names), "rounds": rounds}
    record: dict[str, Any] = {**head, "trials": [], "conditions": conditions.conditions()}
    if out.exists():
        record = json.loads(out.read_text())
        if {key: record.get(key) for key in head} != head:
            raise click.ClickException(f"'{out}' is of other trials; name another file")
    for _ in range(trials):
        record["trials"].append(trial(what, list(names), rounds))
        record["held"] = held(record["trials"])
        write_bytes(out, (json.dumps(record, indent=2) + "\n").encode())
    for name, count in record["held"].items():
        terminal().print(f"{name}: {count} of {len(record['trials'])} intervals hold 1")


def held(trials: list[dict[str, Any]]) -> dict[str, int]:
    """How many trials' intervals hold 1, by runtime."""
    names = trials[0]["ratios"]
    return {name: sum(bool(t["ratios"][name]["holds_1"]) for t in trials) for name in names}


if __name__ == "__main__":
    main()
