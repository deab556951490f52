"""``pipeline predict``: what is in a picture."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from frostbit.pipeline.cli.options import EXISTING_FILE, FILE, range_option, threads_option
from frostbit.pipeline.console import progress, shown, terminal
from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.kernels.machine.threads import Threads


@click.command(name="predict")
@click.argument("model", type=EXISTING_FILE)
@click.argument("images", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes shown.")
@range_option
@threads_option
@click.option("--json", "json_file", type=FILE, help="Also write the result here.")
@click.option("--skip-corrupt", is_flag=True, help="Exit status 0 though some cannot be read.")
def predict_command(
    model: Path,
    images: tuple[Path, ...],
    top: int,
    limits: tuple[float, float] | None,
    threads: Threads,
    json_file: Path | None,
    skip_corrupt: bool,
) -> None:
    """Name the likeliest classes of pictures (JPEG, PNG, ...), run by the engine.

    Pictures are brought to the model's size as in training. Models of digits and Fashion-MNIST
    were trained on white on black. For an imported model that takes floats, pixels 0 to 255 become
    --range LOW..HIGH, unless its file says what they become. A picture that cannot be read is
    named, the others are answered and the exit status is 1; if none can be read it is 2.

    Example: pipeline predict runs/digits/model.bnn seven.png
    """
    from frostbit.kernels import load
    from frostbit.pipeline.run import folder as run_folder

    try:
        from frostbit.pipeline.device import predict
    except ImportError as error:
        raise UserError(f"predict needs {error.name}: pip install pillow") from error
    engine = load(model, threads=threads)
    mapping = predict.mapping_of(engine.program, limits)
    found = predict.predict(engine, images, top, progress()("predicting"), mapping)
    terminal().print(predict.prediction_table(found))
    if json_file is not None:
        run_folder.write_bytes(json_file, predict.to_json(found).encode())
    errors = [each.error for each in found if each.error]
    for line in errors:
        click.echo(shown(f"Error: {line}"), err=True)
    if len(errors) == len(found):
        sys.exit(2)
    if errors and not skip_corrupt:
        sys.exit(1)
