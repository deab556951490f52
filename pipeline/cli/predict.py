"""``pipeline predict``: what is in a picture."""

from __future__ import annotations

from pathlib import Path

import click

from frostbit.pipeline.cli.options import EXISTING_FILE, FILE
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.errors import UserError


@click.command(name="predict")
@click.argument("model", type=EXISTING_FILE)
@click.argument("images", type=EXISTING_FILE, nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes shown.")
@click.option("--json", "json_file", type=FILE, help="Also write the result here.")
def predict_command(
    model: Path, images: tuple[Path, ...], top: int, json_file: Path | None
) -> None:
    """Name the likeliest classes of pictures (JPEG, PNG, ...), run by the engine.

    Pictures are brought to the model's size as in training. Models of digits and Fashion-MNIST
    were trained on white on black.

    Example: pipeline predict runs/digits/model.bnn seven.png
    """
    from frostbit.kernels import load
    from frostbit.pipeline.run import folder as run_folder

    try:
        from frostbit.pipeline.device import predict
    except ImportError as error:
        raise UserError(f"predict needs {error.name}: pip install pillow") from error
    found = predict.predict(load(model), images, top, progress()("predicting"))
    terminal().print(predict.prediction_table(found))
    if json_file is not None:
        run_folder.write_bytes(json_file, predict.to_json(found).encode())
