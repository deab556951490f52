"""Figures of the exports: ``python -m tests.figures.exports`` (nothing is trained).

* Sizes of every format for standard networks with random weights, bits a binary weight, and where
  the bytes of ``model.bnn`` are. They are the same on every machine.
* Seconds to write each format, conversion and file together, files on a temporary folder.
* The int8 ONNX form over the packed float32 form in ONNX Runtime, one thread, batch 1, interleaved
  (:mod:`frostbit.pipeline.bench.timing`): on chains of four 3x3 convolutions before thresholds, and
  on VGG-11.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.table import Table

from frostbit.export.onnx.float_twin import onnx_twin
from frostbit.export.onnx.runtime import OrtRuntime
from frostbit.export.sizes import bits_per_weight
from frostbit.export.summary import summarise_program
from frostbit.export.synthetic.builder import Net, window
from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.ir.file import dumps
from frostbit.kernels.ir.program import BinaryConv, Conv, Dense, Program
from frostbit.pipeline.bench import conditions, timing
from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.data.inputs import random_images
from frostbit.pipeline.parity.export import FORMATS, Choices
from frostbit.pipeline.run.folder import write_bytes

NETWORKS = (
    "resnet18@224", "resnet18@32", "resnet34@32", "resnet50@32", "mobilenet_v2@32", "vgg11_bn@32",
)  # fmt: skip
TIMED = "resnet18@224"
CHAINS = ((56, 64), (28, 128), (14, 256), (7, 512))
DEPTH = 4


@dataclass(frozen=True)
class File:
    """One written file: its size, and what a binary weight takes in it."""

    network: str
    file: str
    bytes: int
    bits_per_binary_weight: float


@dataclass(frozen=True)
class Written:
    """Seconds of ``runs`` times that a file was converted and written."""

    file: str
    seconds: tuple[float, ...]


@dataclass(frozen=True)
class Faster:
    """Milliseconds of both forms (medians), and float32 over int8 with its 95 % interval."""

    network: str
    float32_ms: float
    int8_ms: float
    ratio: float
    low: float
    high: float


def _converters() -> dict[str, Callable[[Program], bytes]]:
    def of(name: str) -> Callable[[Program], bytes]:
        return lambda program: FORMATS[name].convert(program, Choices())

    return {"model.bnn": dumps, **{FORMATS[name].file: of(name) for name in FORMATS}}


def sizes(name: str) -> list[File]:
    """Every file of one network, and its float32 twin in ONNX."""
    program, found = synthetic(name), []
    for file, convert in _converters().items():
        data = convert(program)
        spent = bits_per_weight(file, data, program)
        assert spent is not None
        found.append(File(name, file, len(data), round(spent, 4)))
    return [*found, File(name, "float32 twin.onnx", len(onnx_twin(program)), 32.0)]


def parts(name: str) -> dict[str, int]:
    """Where the bytes of ``model.bnn`` are."""
    program = synthetic(name)
    data = dumps(program)
    by_kind = {"binary weights": 0, "thresholds, multipliers, addends": 0}
    by_kind |= {"8-bit convolutions": 0, "8-bit dense layer": 0}
    layers = summarise_program(program, len(data)).layers
    for op, layer in zip(program.ops, layers, strict=True):
        if isinstance(op, BinaryConv):
            numbers = 4 * layer.parameters[32]
            by_kind["binary weights"] += layer.bytes - numbers
            by_kind["thresholds, multipliers, addends"] += numbers
        elif isinstance(op, Conv):
            by_kind["8-bit convolutions"] += layer.bytes
        elif isinstance(op, Dense):
            by_kind["8-bit dense layer"] += layer.bytes
    return {**by_kind, "names, shapes, header": len(data) - sum(by_kind.values())}


def writing(name: str, runs: int) -> list[Written]:
    """Times of every format; a first run that loads packages is not counted."""
    program, found = synthetic(name), []
    with tempfile.TemporaryDirectory() as folder:
        for file, convert in _converters().items():
            seconds = []
            for _ in range(runs + 1):
                start = time.perf_counter()
                write_bytes(Path(folder) / file, convert(program))
                seconds.append(round(time.perf_counter() - start, 4))
            found.append(Written(file, tuple(seconds[1:])))
    return found


def chain(size: int, channels: int) -> Program:
    """``DEPTH`` binary 3x3 convolutions before thresholds behind a 1x1 stem."""
    net = Net(np.random.PCG64(0))
    x = net.stem(1, 1, channels, 0.0)
    for index in range(DEPTH):
        x = net.binary(f"conv{index + 2}", x, window(3, 1), (channels, channels), last=False)
    net.head(x, channels, 10)
    labels = tuple(f"class {index}" for index in range(10))
    return Program((size, size, 3), tuple(net.ops), "", labels)


def faster(rounds: int) -> list[Faster]:
    """Both forms of every chain and of VGG-11, in turn."""
    programs = {f"{DEPTH} convolutions {s}x{s}x{c}": chain(s, c) for s, c in CHAINS}
    programs["vgg11_bn@32"] = synthetic("vgg11_bn@32")
    pairs = [
        (OrtRuntime(program, form=form), random_images(program, 0, 4))
        for program in programs.values()
        for form in ("packed", "int8")
    ]
    measured = timing.measure(pairs, rounds, 0, progress=progress()("timing"))
    found = []
    for name, slow, fast in zip(programs, measured[::2], measured[1::2], strict=True):
        ratio = timing.paired_ratio(slow, fast)
        numbers = (slow.median, fast.median, ratio.value, ratio.low, ratio.high)
        found.append(Faster(name, *(round(number, 4) for number in numbers)))
    return found


def tables(document: dict[str, Any]) -> list[Table]:
    """The figures as a person reads them."""
    size = Table(title="bytes of every file", title_justify="left")
    for title in ("network", "file", "bytes", "bits a binary weight"):
        size.add_column(title, justify="left" if title in ("network", "file") else "right")
    for each in document["sizes"]:
        spent = f"{each['bits_per_binary_weight']:.3f}"
        size.add_row(each["network"], each["file"], f"{each['bytes']:,}", spent)
    where = Table(title="where the bytes of model.bnn are", title_justify="left")
    where.add_column("")
    for name in document["parts"]:
        where.add_column(name, justify="right")
    for kind in next(iter(document["parts"].values())):
        where.add_row(kind, *(f"{each[kind]:,}" for each in document["parts"].values()))
    times = Table(title=f"seconds to write {TIMED}", title_justify="left")
    for title in ("file", "median", "slowest"):
        times.add_column(title, justify="left" if title == "file" else "right")
    for each in document["writing"]:
        median, slowest = statistics.median(each["seconds"]), max(each["seconds"])
        times.add_row(each["file"], f"{median:.2f}", f"{slowest:.2f}")
    speed = Table(title="ONNX Runtime, float32 form over int8 form", title_justify="left")
    for title in ("network", "float32 ms", "int8 ms", "ratio (95 % interval)"):
        speed.add_column(title, justify="left" if title == "network" else "right")
    for each in document["int8"]:
        ratio = f"{each['ratio']:.2f} ({each['low']:.2f} to {each['high']:.2f})"
        row = (f"{each['float32_ms']:.2f}", f"{each['int8_ms']:.2f}", ratio)
        speed.add_row(each["network"], *row)
    return [size, where, times, speed]


@click.command()
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Of writing.")
@click.option("--rounds", type=click.IntRange(6), default=30, show_default=True, help="Of timing.")
@click.option("--json", "json_file", type=FILE, help="Also write the figures here.")
def main(runs: int, rounds: int, json_file: Path | None) -> None:
    """Sizes, writing times and int8 speed of the exports.

    Example: python -m tests.figures.exports --runs 5 --rounds 30
    """
    bar = progress()
    document = {
        "command": f"python -m tests.figures.exports --runs {runs} --rounds {rounds}",
        "conditions": conditions.conditions(),
        "writing": [asdict(each) for each in writing(TIMED, runs)],
        "int8": [asdict(each) for each in faster(rounds)],
        "sizes": [
            asdict(each) for i in bar("sizes")(range(len(NETWORKS))) for each in sizes(NETWORKS[i])
        ],
        "parts": {name: parts(name) for name in NETWORKS},
    }
    terminal().print(*tables(document), sep="\n")
    if json_file is not None:
        write_bytes(json_file, (json.dumps(document, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
