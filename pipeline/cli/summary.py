"""``pipeline summary``: what a model file holds and costs."""

from __future__ import annotations

from pathlib import Path

import click

from frostbit.pipeline.cli.options import trust_option
from frostbit.pipeline.console import terminal


@click.command(name="summary")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
@trust_option
def summary_command(file: Path) -> None:
    """Show layers, parameters, memory and MACs of a .bnn, .onnx, .tflite or run folder.

    Example: pipeline summary runs/digits/model.onnx
    """
    from frostbit.pipeline.report.summary import summary_of

    table, lines = summary_of(file)
    terminal().print(table, *lines, sep="\n")
