"""``pipeline compare``: runs side by side."""

from __future__ import annotations

from pathlib import Path

import click

from frostbit.pipeline.cli.options import EXISTING_FOLDER, FILE
from frostbit.pipeline.console import terminal
from frostbit.pipeline.errors import UserError


@click.command(name="compare")
@click.argument("runs", type=EXISTING_FOLDER, nargs=-1, required=True)
@click.option("-o", "--out", type=FILE, help="Also write a page with the picture (.html).")
def compare_command(runs: tuple[Path, ...], out: Path | None) -> None:
    """Put runs side by side: accuracy, size, latency, and which ones nothing beats.

    Example: pipeline compare runs/digits runs/mine -o compare.html
    """
    try:
        from frostbit.pipeline.report import compare
        from frostbit.pipeline.run import folder as run_folder

        entries = compare.read(runs)
        terminal().print(compare.compare_table(entries))
        if out is not None:
            run_folder.write_bytes(out, compare.page(entries).encode())
            terminal().print(f"wrote {out}")
    except ImportError as error:
        raise UserError(f"compare needs {error.name}: pip install 'frostbit[train]'") from error
