"""``pipeline verify``: every sign bit and logit of every runtime and setting."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frostbit.pipeline.cli.options import (
    EXISTING_FILE,
    FILE,
    FOLDER,
    data_options,
    threads_option,
    trust_option,
)
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.kernels.machine.threads import Threads


def _verify(
    model: Path | None,
    synthetic: str | None,
    formats: tuple[str, ...],
    run: Path | None,
    where: str | None,
    data_dir: Path | None,
    skip_corrupt: bool,
    images: int | None,
    seed: int,
    threads: Threads,
    json_file: Path | None,
) -> bool:
    """Compare everything that runs the model, print the table; returns whether all agrees.

    Args:
        model, synthetic: one of both: a packed model, or the name of a standard network.
        formats, run, where, data_dir, skip_corrupt, images, seed, threads, json_file: as given on
            the command line.
    """
    from frostbit.export.synthetic.networks import synthetic as network
    from frostbit.kernels.ir.file import load_program
    from frostbit.kernels.machine.threads import chosen_threads
    from frostbit.pipeline.data.inputs import Place
    from frostbit.pipeline.parity import runtimes
    from frostbit.pipeline.parity import verify as verifying
    from frostbit.pipeline.run import folder as run_folder

    names = verifying.check_formats(formats)
    if json_file is not None:
        run_folder.require_writable(json_file)
    program = network(str(synthetic)) if model is None else load_program(model)
    folder = None if model is None else model.parent
    place = Place(data_dir, skip_corrupt, run or folder)
    inputs = verifying.choose_inputs(program, where, place, images, seed, progress())
    for note in inputs.notes:
        terminal().print(note)
    source = runtimes.Source(program, folder, run or folder, chosen_threads(threads))
    asked = bool(formats) or run is not None
    found = verifying.verify(source, names, inputs, progress()("parity"), asked=asked)
    table, lines = verifying.verify_table(found)
    terminal().print(table, *lines, sep="\n")
    if json_file is not None:
        run_folder.write_bytes(json_file, found.to_json().encode())
        terminal().print(f"wrote {json_file}")
    return found.passed


@click.command(name="verify")
@click.argument("model", type=EXISTING_FILE, required=False)
@click.option("--synthetic", help="Instead of MODEL: random weights, e.g. resnet18@32.")
@click.option(
    "--formats",
    "--format",
    "formats",
    multiple=True,
    help="bnn, onnx, onnx-int8, onnx-float, qonnx, lce, c, torch, web; commas or repeated "
    "[default: all].",
)
@click.option("--run", type=FOLDER, help="Run folder of the model [default: the model's].")
@click.option(
    "--data",
    "where",
    metavar="WHERE",
    help="random, a data set's name, or a folder of the model's data set "
    "[default: its data set, else random].",
)
@data_options
@trust_option
@click.option("--images", type=click.IntRange(2), help="How many [default: all; 64 random ones].")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of random images.")
@threads_option
@click.option("--json", "json_file", type=FILE, help="Also write the figures here.")
def verify_command(model: Path | None, synthetic: str | None, **options: Any) -> None:
    """Compare every sign bit and logit of every runtime and setting; exit 1 on a difference.

    Exports beside the model are what is run; formats without a file are converted in memory.

    Example: pipeline verify runs/digits/model.bnn --formats onnx,lce
    """
    if (model is None) == (synthetic is None):
        raise UserError("name either a model file or --synthetic NETWORK, as in --help")
    if not _verify(model, synthetic, **options):
        sys.exit(1)
