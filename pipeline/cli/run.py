"""``pipeline run``: train, pack, export and bench in one go."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frostbit.pipeline.bench import command as bench_command
from frostbit.pipeline.cli.export import export_model
from frostbit.pipeline.cli.options import bench_options, split_training, training_options
from frostbit.pipeline.cli.pack import pack_run
from frostbit.pipeline.cli.train import train_run
from frostbit.pipeline.console import terminal

if TYPE_CHECKING:
    from frostbit.kernels.ir.program import Program
    from frostbit.pipeline.bench.measure import Bench


def _summary(bench: Bench, model: Path, program: Program) -> list[str]:
    """The five lines at the end of ``pipeline run``."""
    from frostbit.export.summary import summarise_program
    from frostbit.pipeline.bench.conditions import threads_text
    from frostbit.pipeline.bench.table import parity_lines

    rows = {row.name: row for row in reversed(bench.rows)}  # the first number of threads
    engine = next((row for row in bench.rows if row.name.startswith("engine")), None)
    size = model.stat().st_size
    before = summarise_program(program, size).float_bytes
    accuracy = None if engine is None else engine.accuracy
    measured = "not measured" if accuracy is None else f"{accuracy:.2f} % of the test images"
    lines = [
        f"accuracy   {measured} classified correctly by the packed model",
        f"size       {size:,} bytes, {before / size:.1f} times smaller than fp32",
    ]
    if engine is not None:
        median = engine.latency_ms.median
        threads = threads_text([engine.threads])
        lines.append(f"latency    {median:.3f} ms median, {threads} ({engine.name})")
        versus = [
            f"{ratio.value:.1f}x {label}"
            for name, label in (
                ("ort-fp32", "ONNX Runtime fp32"),
                ("torch-fp32", "torch fp32"),
                ("lce:indirect", "LCE"),
            )
            if name in rows and (ratio := rows[name].ratio) is not None
        ]
        lines.append(f"faster     {', '.join(versus) or 'no peer was measured'}")
    lines.append(parity_lines(bench)[0].replace("parity ", "parity     ", 1))
    return lines


@click.command(name="run")
@training_options
@bench_options
def run_command(rounds: int, threads: tuple[int, ...], **options: Any) -> None:
    """Train, pack, export and bench, then say in five lines what came out.

    Example: pipeline run --recipe digits
    """
    from frostbit.kernels.ir.file import load_program

    wishes = bench_command.Wishes(
        rounds=rounds, threads=threads, seed=options["seed"] or 0, data_dir=options["data_dir"],
        skip_corrupt=options["skip_corrupt"], profile=True,
    )  # fmt: skip
    folder = train_run(**split_training(options))
    model = pack_run(
        folder, None, force=True, data_dir=options["data_dir"], skip_corrupt=options["skip_corrupt"]
    )
    export_model(model, force=True)
    found, well = bench_command.bench_models([model], wishes)
    terminal().print("", *_summary(found, model, load_program(model)), sep="\n")
    if not well:
        sys.exit(1)
