"""Single convolutions against their peers: ``python -m tests.figures.layers``.

Every shape is measured as ``pipeline bench`` measures models: all candidates in one process, in
turns, in random order. The engine's layer is checked against the NumPy reference, bit for bit.
MAC per cycle takes the clock from a chain of dependent instructions beside the measurement.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from frostbit.export.errors import RuntimeMissing
from frostbit.export.runtimes import Timed
from frostbit.kernels.machine import cpu
from frostbit.pipeline.bench import conditions, timing
from frostbit.pipeline.bench.profiling import cycles_per_second
from frostbit.pipeline.bench.timing import Latency
from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.data.inputs import random_images
from frostbit.pipeline.run.folder import write_bytes
from tests.figures import bare_loop, layer_peers
from tests.figures.layer_peers import Shape

PEERS = ("ort-fp32", "ort-int8", "bnn-lab")


@dataclass(frozen=True)
class Result:
    """One shape.

    Attributes:
        shape: the convolution, in words.
        macs: multiply-accumulates.
        bits_differing: of every engine from the reference.
        latency_ms: of every candidate.
        macs_per_cycle: of every candidate, from its fastest run; empty without a clock.
        over_engine: a peer's time over that of the CPU's best engine: of minima and of medians.
            ``ort-int8`` is the faster of both layouts, ``bnn-lab`` of all its code paths.
    """

    shape: str
    macs: int
    bits_differing: dict[str, int]
    latency_ms: dict[str, Latency]
    macs_per_cycle: dict[str, float]
    over_engine: dict[str, dict[str, float]]


def candidates(shape: Shape) -> tuple[list[layer_peers.EngineLayer], list[Timed]]:
    """Engines (but the portable one, which is scalar) and peers."""
    program = layer_peers.layer_program(shape)
    kernels = [name for name in cpu.available() if name != "portable"]
    engines = [layer_peers.EngineLayer(program, kernel) for kernel in kernels]
    peers: list[Timed] = [layer_peers.ort_float32(shape)]
    peers += [layer_peers.ort_int8(shape, last) for last in (False, True)]
    for kernel in ("avx512", "avx2", "neon"):
        with contextlib.suppress(RuntimeMissing):
            peers.append(layer_peers.BnnLab(shape, kernel))
    return engines, peers


def _ratios(times: dict[str, Latency]) -> dict[str, dict[str, float]]:
    """Peers over the best engine (the first), and AVX2's bnn-lab over the engine for AVX2."""
    engines = {name: latency for name, latency in times.items() if name.startswith("engine")}
    rivals = {peer: (peer, next(iter(engines))) for peer in PEERS}
    rivals["bnn-lab:avx2 / engine:lookup"] = ("bnn-lab:avx2", "engine:lookup")
    found = {}
    for title, (peer, engine) in rivals.items():
        named = [ms for name, ms in times.items() if f"{name}:".startswith(f"{peer}:")]
        if named and engine in engines:
            best = min(named, key=lambda latency: latency.min)
            found[title] = {
                "minima": round(best.min / engines[engine].min, 2),
                "medians": round(best.median / engines[engine].median, 2),
            }
    return found


def measure(shape: Shape, rounds: int, bar: timing.Progress) -> Result:
    """Check and time every candidate for ``shape``."""
    engines, peers = candidates(shape)
    images = random_images(engines[0].program, 0, 2)
    differing = {engine.name: engine.check(images) for engine in engines}
    everyone = [*engines, *peers]
    latencies = timing.measure([(each, images) for each in everyone], rounds, 0, progress=bar)
    clock = cycles_per_second()
    for each in everyone:
        each.close()
    times = {each.name: latency for each, latency in zip(everyone, latencies, strict=True)}
    rates = {}
    if clock:
        rates = {name: round(1e3 * shape.macs / ms.min / clock, 1) for name, ms in times.items()}
    return Result(str(shape), shape.macs, differing, times, rates, _ratios(times))


def measure_stream(size: int, channels: int, rounds: int, bar: timing.Progress) -> dict[str, Any]:
    """A 1x1 layer with its residual stream in 16 and in 32 bits, checked against the reference."""
    program, kernel = layer_peers.stream_program(size, channels), cpu.available()[0]
    narrow, wide = (layer_peers.EngineLayer(program, kernel, each) for each in (True, False))
    images = random_images(program, 0, 2)
    timed = timing.measure([(narrow, images), (wide, images)], rounds, 0, progress=bar)
    return {
        "stream": f"1x1, {channels} to {channels}, {size}x{size}, added to a stream",
        "bits_differing": narrow.check(images),
        "milliseconds_16_bits": timed[0].min,
        "milliseconds_32_bits": timed[1].min,
        "ratio_of_minima": round(timed[1].min / timed[0].min, 2),
        "ratio_of_medians": str(timing.paired_ratio(timed[1], timed[0])),
    }


def bare_loops(rounds: int) -> dict[str, float]:
    """MAC per cycle of the inner loops in the first-level cache; empty without a clock."""
    clock = cycles_per_second()
    if not clock:
        return {}
    kernels = [name for name in cpu.available() if name != "portable"]
    return {each: round(bare_loop.macs_per_second(each, rounds) / clock, 1) for each in kernels}


def _stream_line(found: dict[str, Any]) -> str:
    return (
        f"{found['stream']}: {found['milliseconds_16_bits']:.4f} ms with sums of 16 bits, "
        f"{found['milliseconds_32_bits']:.4f} of 32: {found['ratio_of_medians']} times"
    )


def markdown(
    results: list[Result], loops: dict[str, float], streams: list[dict[str, Any]], where: str
) -> str:
    """The same as :func:`table`, for a document."""
    head = [name for name in results[0].latency_ms if name.startswith("engine")]
    lines = [
        f"Single convolutions, one thread, {where}. Times of the fastest run, in ms; MAC/cycle in",
        "brackets; peers as their time over the best engine's, of minima / of medians.",
        "",
        "| layer | " + " | ".join([*head, *results[0].over_engine]) + " |",
        "|---" * (1 + len(head) + len(results[0].over_engine)) + "|",
    ]
    for result in results:
        cells = [
            f"{result.latency_ms[name].min:.4f} ({result.macs_per_cycle.get(name, 0):.0f})"
            for name in head
        ]
        cells += _peer_cells(result)
        lines.append(f"| {result.shape} | " + " | ".join(cells) + " |")
    if loops:
        said = ", ".join(f"{name} {rate:.0f}" for name, rate in loops.items())
        lines += ["", f"Inner loop alone, data in the first-level cache, MAC/cycle: {said}."]
    lines += ["", *(f"- {_stream_line(each)}" for each in streams)]
    return "\n".join(lines) + "\n"


def _peer_cells(result: Result) -> list[str]:
    return [
        f"{ratio['minima']:.1f} / {ratio['medians']:.1f}" for ratio in result.over_engine.values()
    ]


def table(results: list[Result]) -> Table:
    """For the terminal."""
    shown = Table(title="single convolutions, one thread: ms of the fastest run (MAC/cycle)")
    head = [name for name in results[0].latency_ms if name.startswith("engine")]
    for column in ("layer", *head, *results[0].over_engine):
        shown.add_column(column, justify="left" if column == "layer" else "right")
    for result in results:
        mine = [
            f"{result.latency_ms[name].min:.4f} ({result.macs_per_cycle.get(name, 0):.0f})"
            for name in head
        ]
        shown.add_row(result.shape, *mine, *_peer_cells(result))
    return shown


def record(
    results: list[Result], loops: dict[str, float], rounds: int, first: dict[str, Any]
) -> dict[str, Any]:
    """What the JSON file holds; a latency's single rounds are left out."""
    documents = [asdict(result) for result in results]
    for document in documents:
        for latency in document["latency_ms"].values():
            del latency["rounds"]
    return {
        "command": f"python -m tests.figures.layers --rounds {rounds}",
        "conditions": first,
        "bare_loop_macs_per_cycle": loops,
        "layers": documents,
    }


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=21, show_default=True)
@click.option("--json", "json_file", type=FILE, help="Also write the figures here.")
@click.option("--markdown", "text_file", type=FILE, help="Also write the table here.")
def main(rounds: int, json_file: Path | None, text_file: Path | None) -> None:
    """Single convolutions in the engine, ONNX Runtime (float32, int8) and bnn-lab.

    Example: python -m tests.figures.layers --rounds 21 --json layers.json
    """
    bar = progress()
    facts = {**conditions.conditions(), "threads": 1, "rounds": rounds}
    loops = bare_loops(rounds)
    results = [measure(shape, rounds, bar(str(shape))) for shape in layer_peers.SHAPES]
    streams = [measure_stream(*sizes, rounds, bar("16-bit sums")) for sizes in layer_peers.STREAMS]
    terminal().print(table(results))
    for each in streams:
        terminal().print(_stream_line(each), highlight=False)
    document = {**record(results, loops, rounds, facts), "streams": streams}
    if json_file is not None:
        write_bytes(json_file, (json.dumps(document, indent=1) + "\n").encode())
    if text_file is not None:
        write_bytes(text_file, markdown(results, loops, streams, str(facts["cpu"])).encode())
    wrong = sum(count for result in results for count in result.bits_differing.values())
    wrong += sum(each["bits_differing"] for each in streams)
    if wrong or not np.isfinite(list(loops.values())).all():
        raise SystemExit(f"{wrong} bits differ from the reference")


if __name__ == "__main__":
    main()
