"""``pipeline import``: a network of another tool chain, compared with its source, as model.bnn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from frostbit.pipeline.cli.options import EXISTING_FILE, FILE, out_options, range_option
from frostbit.pipeline.console import progress, terminal


@click.command(name="import")
@click.argument("file", type=EXISTING_FILE)
@out_options(FILE, "[default: the file's name with .bnn, beside it]")
@click.option("--logits", is_flag=True, help="Leave out a softmax at the end.")
@range_option
@click.option(
    "--input",
    "kind",
    type=click.Choice(["float32", "uint8"]),
    help="What the model takes [default: what FILE does]; uint8 for a FILE of floats: pixels, with "
    "--range (or what FILE states) built in.",
)
@click.option("--classes", type=EXISTING_FILE, help="A text file with the name of a class a line.")
@click.option(
    "--inputs",
    type=click.Path(exists=True, path_type=Path),
    help="Compare on these: arrays in a .npz or .npy, or a folder of pictures [default: random].",
)
@click.option(
    "--images", type=click.IntRange(1), help="How many are compared [default: 2 random, 16 given]."
)
@click.option("--no-compare", is_flag=True, help="Do not run FILE beside what was read from it.")
def import_command(file: Path, out: Path | None, **options: Any) -> None:
    """Read a network for Larq Compute Engine (.tflite) or of QONNX or ONNX (.onnx).

    It is run beside FILE in FILE's own runtime, layer by layer; if a difference is left that
    rounding does not explain, nothing is written. Weights of two values become one bit each.

    Example: pipeline import quicknet.tflite --range -1..1 -o quicknet.bnn
    """
    from frostbit.pipeline.parity import importing

    target = file.with_suffix(".bnn") if out is None else out
    wishes = importing.Wishes(**options)
    importing.require_target(target, wishes.force)
    console = terminal()
    with console.status(f"reading {file.name}"):
        imported = importing.read(file, wishes)
    console.print(*importing.described(file, imported), sep="\n")
    console.print(importing.compared(file, imported, wishes, progress()("comparing")))
    written = importing.write(imported.program, target, wishes)
    console.print(f"wrote {target} ({written:,} bytes; {file.name}: {file.stat().st_size:,})")
