"""``pipeline pack``: a finished run becomes ``model.bnn``."""

from __future__ import annotations

from pathlib import Path

import click

from frostbit.pipeline.cli.options import (
    EXISTING_FOLDER,
    FILE,
    data_options,
    out_options,
    trust_option,
)
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.errors import UserError


def pack_run(
    run: Path, out: Path | None, force: bool, data_dir: Path | None, skip_corrupt: bool
) -> Path:
    """Pack ``run``, compare it, print the table; returns the path of the model."""
    from frostbit.pipeline.run.folder import refuse_existing

    path = out or run / "model.bnn"
    refuse_existing(path, force)
    try:
        from frostbit.pipeline.lowering.pack import pack
    except ImportError as error:
        raise UserError(f"pack needs {error.name}: pip install 'frostbit[train]'") from error
    from frostbit.kernels.ir.file import dumps
    from frostbit.pipeline.data.inputs import Place
    from frostbit.pipeline.report.summary import pack_table
    from frostbit.pipeline.run.folder import write_bytes

    compared: list[str] = []
    program = pack(run, Place(data_dir, skip_corrupt, run), progress(), compared.append)
    data = dumps(program)
    write_bytes(path, data)
    table, lines = pack_table(program, len(data))
    console = terminal()
    console.print(table)
    console.print(*lines, *compared, sep="\n")
    console.print(f"wrote {path}")
    return path


@click.command(name="pack")
@click.argument("run", type=EXISTING_FOLDER)
@out_options(FILE, "Model file [default: RUN/model.bnn].")
@data_options
@trust_option
def pack_command(
    run: Path, out: Path | None, force: bool, data_dir: Path | None, skip_corrupt: bool
) -> None:
    """Pack a finished run into model.bnn, one bit per binary weight.

    The packed network and the trained one run on the same test images; a difference is refused.

    Example: pipeline pack runs/digits
    """
    pack_run(run, out, force, data_dir, skip_corrupt)
