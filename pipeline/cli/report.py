"""``pipeline report`` and ``compare``: one page on a run, or on several side by side."""

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
from frostbit.pipeline.console import terminal
from frostbit.pipeline.errors import UserError


@click.command(name="report")
@click.argument("run", type=EXISTING_FOLDER)
@out_options(FILE, "A .html or .md file [default: RUN/report.html].")
@data_options
@trust_option
def report_command(
    run: Path, out: Path | None, force: bool, data_dir: Path | None, skip_corrupt: bool
) -> None:
    """Write one page on a packed run: figures, training, runtimes, layers, mistakes.

    The .html file needs no network and can be sent around; .md is for pasting into an issue.

    Example: pipeline report runs/digits -o report.html
    """
    path = out or run / "report.html"
    kind = path.suffix.lower()
    if kind not in (".html", ".md"):
        raise UserError(f"a report ends in .html or .md, not '{path.name}'")
    try:
        from frostbit.pipeline.data.inputs import Place
        from frostbit.pipeline.report import page as report
        from frostbit.pipeline.run import folder as run_folder
    except ImportError as error:
        raise UserError(f"report needs {error.name}: pip install 'frostbit[train]'") from error
    run_folder.refuse_existing(path, force)
    with terminal().status("writing the report"):
        page = report.gather(run, Place(data_dir, skip_corrupt, run), tried=kind == ".html")
        data = report.render(f"report{kind}", page=page).encode()
        run_folder.write_bytes(path, data)
    terminal().print(f"wrote {path} ({len(data):,} bytes)")
    for line in (*page.notes, *(f"not in it: {each}" for each in page.missing)):
        terminal().print(line)


@click.command(name="compare")
@click.argument("runs", type=EXISTING_FOLDER, nargs=-1, required=True)
@out_options(FILE, "Also write a page with the picture (.html).")
def compare_command(runs: tuple[Path, ...], out: Path | None, force: bool) -> None:
    """Put runs side by side: accuracy, size, latency, and which ones nothing beats.

    Example: pipeline compare runs/digits runs/mine -o compare.html
    """
    try:
        from frostbit.pipeline.report import compare
        from frostbit.pipeline.run import folder as run_folder

        if out is not None:
            run_folder.refuse_existing(out, force)
        entries = compare.read(runs)
        terminal().print(compare.compare_table(entries))
        for entry in entries:
            if entry.damaged:
                terminal().print(entry.damaged)
        if out is not None:
            run_folder.write_bytes(out, compare.page(entries).encode())
            terminal().print(f"wrote {out}")
    except ImportError as error:
        raise UserError(f"compare needs {error.name}: pip install 'frostbit[train]'") from error
