"""What more threads bring: ``python -m tests.figures.threads scaling`` and ``... load``.

``scaling``: a network by ``pipeline bench --threads 1,N`` beside ONNX Runtime, and the yardstick,
what the machine itself allows: N processes with an engine of one thread each, at once. Cores may
share caches, memory, power, or belong to other guests too; so the yardstick may be less than N, and
a network cannot be expected to gain more. Each round times one process alone and all together.

``load``: how late the latest calls are. Engine and ONNX Runtime are called again and again, in
turns, with one thread and with all cores: first with the machine idle, then beside one busy process
for each core. What counts is the 99th percentile over the median.

A record that is there is added to, network by network.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, cast

import click
import numpy as np

from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.program import Program
from frostbit.kernels.machine.cpu import available_cores
from frostbit.pipeline.bench import conditions, timing
from frostbit.pipeline.bench import file as bench_file
from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.data.inputs import random_images
from frostbit.pipeline.parity import runtimes
from frostbit.pipeline.run.folder import write_bytes

NETWORKS = ("resnet18@224", "resnet18@32", "resnet50@224")
RUNTIMES = ("engine", "ort-fp32", "ort-int8")
SLOT_S = 0.5
"""Of a process in a round of the yardstick."""
BUSY = "while True: pass"
Record = dict[str, object]


def work(program: Program, requests: IO[str], replies: IO[str]) -> None:
    """Run an engine of one thread for as many seconds as each line says; reply runs a second."""
    engine, image = Engine(program), random_images(program, 0, 1)
    engine.run(image)
    print("ready", file=replies, flush=True)
    for line in requests:
        count, start = 0, time.perf_counter()
        while time.perf_counter() - start < float(line):
            engine.run(image)
            count += 1
        print(count / (time.perf_counter() - start), file=replies, flush=True)


@contextmanager
def _processes(command: Sequence[str], count: int) -> Iterator[list[subprocess.Popen[str]]]:
    """``count`` processes, ended at the end."""
    found = []
    try:
        for _ in range(count):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            found.append(subprocess.Popen(command, text=True, **pipes))
        yield found
    finally:
        for each in found:
            each.kill()
            each.communicate()


def _rates(workers: Sequence[subprocess.Popen[str]], seconds: float) -> float:
    """Runs a second of all ``workers`` together."""
    for each in workers:
        print(seconds, file=cast(IO[str], each.stdin), flush=True)
    return sum(float(cast(IO[str], each.stdout).readline()) for each in workers)


def yardstick(network: str, processes: int, rounds: int, seconds: float = SLOT_S) -> Record:
    """How many times the runs of one process ``processes`` of them do together."""
    command = [sys.executable, "-m", "tests.figures.threads", "worker", network]
    with _processes(command, processes) as workers:
        for each in workers:
            if cast(IO[str], each.stdout).readline().strip() != "ready":
                raise click.ClickException(f"a process that runs {network} ended early")
        turns = [(_rates(workers[:1], seconds), _rates(workers, seconds)) for _ in range(rounds)]
    alone, together = (
        timing.summarise([np.array([1000 / rate]) for rate in rates])
        for rates in zip(*turns, strict=True)
    )
    return {
        "processes": processes,
        "rounds": rounds,
        "alone_per_s": 1000 / alone.median,
        "together_per_s": 1000 / together.median,
        "times_one": asdict(timing.paired_ratio(alone, together)),
    }


def scaling(network: str, threads: int, rounds: int) -> Record:
    """``pipeline bench --threads 1,N`` of ``network``, in a process of its own."""
    names = [word for name in RUNTIMES for word in ("--runtime", name)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench.json"
        command = [sys.executable, "-m", "frostbit", "bench", "--synthetic", network, *names]
        command += ["--threads", f"1,{threads}", "--rounds", str(rounds), "--json", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise click.ClickException(done.stderr.strip() or done.stdout.strip()[-300:])
        found = bench_file.read(out)
    return {"scaling": found["scaling"], "noise": found["conditions"]["noise"], "rounds": rounds}


def load(network: str, threads: int, rounds: int, seconds: float) -> Record:
    """Median and 99th percentile of every runtime, with the machine idle and busy."""
    program = synthetic(network)
    images = random_images(program, 0, 1)
    entrants = []
    for count in sorted({1, threads}):
        made, missing = runtimes.make(RUNTIMES, runtimes.Source(program, None, None, count))
        if missing:
            raise click.ClickException(f"{missing[0].name}: {missing[0].remedy}")
        entrants += [(each, count) for each in made]
    found: Record = {}
    for name, busy in (("idle", 0), ("busy", available_cores())):
        with _processes([sys.executable, "-c", BUSY], busy):
            pairs = [(each, images) for each, _ in entrants]
            bar = progress()(name)
            times = timing.measure(pairs, rounds, 0, progress=bar, span_s=seconds)
        found[name] = [
            {
                "name": each.name, "threads": count, "median_ms": ms.median, "p99_ms": ms.p99,
                "p99_over_median": ms.p99 / ms.median, "runs": ms.n,
            }
            for (each, count), ms in zip(entrants, times, strict=True)
        ]  # fmt: skip
    for each, _ in entrants:
        each.close()
    return found


def add(out: Path, kind: str, network: str, found: Record) -> None:
    """Put what was ``found`` of ``network`` into the record ``out``."""
    record: dict[str, Record] = json.loads(out.read_text()) if out.exists() else {}
    record.setdefault(kind, {})[network] = {**found, "conditions": conditions.conditions()}
    write_bytes(out, (json.dumps(record, indent=2) + "\n").encode())


networks_option = click.option("--network", "networks", multiple=True, default=NETWORKS)
threads_option = click.option(
    "--threads", type=click.IntRange(2), default=max(2, available_cores()), show_default=True
)
out_option = click.option("-o", "--out", type=FILE, required=True, help="Record (JSON); added to.")


@click.group()
def main() -> None:
    """Measure what threads bring.

    Example: python -m tests.figures.threads scaling -o threads.json
    """


@main.command(name="scaling")
@networks_option
@threads_option
@click.option("--rounds", type=click.IntRange(2), default=20, show_default=True)
@out_option
def scaling_command(networks: tuple[str, ...], threads: int, rounds: int, out: Path) -> None:
    """Threads of one network beside as many processes at once.

    Example: python -m tests.figures.threads scaling --network resnet18@224 -o threads.json
    """
    for network in networks:
        yard = yardstick(network, threads, rounds)
        found = {**scaling(network, threads, rounds), "yardstick": yard}
        add(out, "scaling", network, found)
        ratio = timing.Ratio(**cast(dict[str, float], yard["times_one"]))
        terminal().print(f"{network}: {threads} processes at once do {ratio} times the runs of one")
        for each in cast(list[dict[str, object]], found["scaling"]):
            faster = timing.Ratio(**cast(dict[str, float], each["faster"]))
            terminal().print(f"  {each['name']}, {each['threads']} threads: {faster} times faster")


@main.command(name="load")
@networks_option
@threads_option
@click.option("--rounds", type=click.IntRange(2), default=100, show_default=True)
@click.option("--seconds", type=click.FloatRange(0), default=20.0, show_default=True)
@out_option
def load_command(
    networks: tuple[str, ...], threads: int, rounds: int, seconds: float, out: Path
) -> None:
    """99th percentile over the median, with the machine idle and with every core busy.

    Example: python -m tests.figures.threads load --network resnet18@32 -o threads.json
    """
    for network in networks:
        found = load(network, threads, rounds, seconds)
        add(out, "load", network, found)
        for state, rows in found.items():
            for each in cast(list[dict[str, object]], rows):
                terminal().print(
                    f"{network} {state}: {each['name']}, {each['threads']} threads, median "
                    f"{each['median_ms']:.3f} ms, p99 {each['p99_over_median']:.2f} times that"
                )


@main.command(name="worker", hidden=True)
@click.argument("network")
def worker_command(network: str) -> None:
    """One process of the yardstick."""
    work(synthetic(network), sys.stdin, sys.stdout)


if __name__ == "__main__":
    main()
