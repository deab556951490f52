"""``pipeline bundle``: a zip for a board."""

from __future__ import annotations

from pathlib import Path

import click

from frostbit.pipeline.cli.options import EXISTING_FILE, FILE, FOLDER, data_options, out_options
from frostbit.pipeline.console import progress, terminal


@click.command(name="bundle")
@click.argument("model", type=EXISTING_FILE)
@out_options(FILE, "Zip file [default: MODEL with the ending .zip].")
@click.option("--run", type=FOLDER, help="Run folder of the model [default: the model's].")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the images without data set.")
@data_options
def bundle_command(
    model: Path,
    out: Path | None,
    seed: int,
    run: Path | None,
    data_dir: Path | None,
    skip_corrupt: bool,
    force: bool,
) -> None:
    """Write a zip with which a board proves that it computes the same, and measures itself.

    Example: pipeline bundle runs/digits/model.bnn -o bundle.zip
    """
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.bench.file import labels
    from frostbit.pipeline.data.inputs import Place, inputs_for
    from frostbit.pipeline.device import bundle
    from frostbit.pipeline.run import folder as run_folder

    path = out or model.with_suffix(".zip")
    run_folder.refuse_existing(path, force)
    program = load_program(model)
    place = Place(data_dir, skip_corrupt, run or model.parent)
    inputs = inputs_for(program, place, seed, bundle.IMAGES, progress())
    data = bundle.build(program, labels([model])[0], inputs, progress()("expected logits"))
    run_folder.write_bytes(path, data)
    console = terminal()
    for line in inputs.told():
        console.print(line)
    console.print(f"wrote {path} ({len(data):,} bytes); its README.md says what to type")
