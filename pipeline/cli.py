"""The command ``pipeline``: parse, call, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from pipeline.bench import Bench

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)
INTERRUPTED = 130


class _Failure(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


class _Commands(click.Group):
    """A group that turns our errors into one line each, and Ctrl-C into status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        from pipeline.errors import UserError

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted: nothing half-written is left", err=True)
            ctx.exit(INTERRUPTED)
        except UserError as error:
            raise _Failure(str(error)) from error
        except (ValueError, RuntimeError) as error:
            if _is_ours(error):
                raise _Failure(str(error)) from error
            raise


def _is_ours(error: Exception) -> bool:
    """Whether ``error`` is a library error with a clear text (a bug keeps its traceback)."""
    from export.errors import ExportError, LceError, ParityError
    from kernels.program import FormatError

    return isinstance(error, (ExportError, LceError, ParityError, FormatError))


def _console() -> Console:
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else 120)


def _progress(console: Console) -> Callable[[str], Callable[[Iterable[int]], Iterable[int]]]:
    """Progress bars by label, on standard error, gone when done."""
    from rich.console import Console
    from rich.progress import track

    bars = Console(stderr=True)

    def labelled(label: str) -> Callable[[Iterable[int]], Iterable[int]]:
        return lambda steps: track(steps, description=label, console=bars, transient=True)

    return labelled


def _options(*options: Callable[..., Any]) -> Callable[..., Any]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


force_option = click.option("--force", is_flag=True, help="Overwrite what is there.")
data_option = click.option(
    "--data-dir", type=FOLDER, help="Folder of the data set's files (see README, Data)."
)
seed_option = click.option("--seed", type=click.IntRange(0), help="Seed of everything random.")
training_options = _options(
    click.option("--recipe", required=True, help="Recipe name: digits or fashion-small."),
    click.option("--method", help="stompp, stompp-ste or ste (default: the recipe's)."),
    click.option("--epochs", type=click.IntRange(1), help="Passes over the training images."),
    seed_option,
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where to train.",
    ),
    click.option("-o", "--out", type=FOLDER, help="Run folder [default: runs/RECIPE]."),
    force_option,
    data_option,
)
bench_options = _options(
    click.option("--rounds", type=click.IntRange(1), default=50, show_default=True),
    click.option("--threads", type=click.IntRange(1), default=1, show_default=True),
)


@click.group(cls=_Commands)
@click.version_option(package_name="frostbit")
def main() -> None:
    """Train a binary neural network, pack it, export it, and prove what the device runs.

    Example: pipeline run --recipe digits
    """


def _train(
    recipe: str, out: Path | None, data_dir: Path | None, force: bool, device: str, **changes: Any
) -> Path:
    """Train and print where the run is; returns the run folder."""
    from pipeline.recipe import load

    overrides = {name: value for name, value in changes.items() if value is not None}
    chosen = load(recipe, overrides)
    try:
        from pipeline.train import train
    except ImportError as error:
        raise _Failure(
            f"training needs {error.name}: install it with pip install 'frostbit[train]'"
        ) from error
    folder = out or Path("runs") / recipe
    console = _console()
    from pipeline.tables import training_lines

    result = train(chosen, folder, device=device, force=force, data_dir=data_dir, console=console)
    console.print(*training_lines(result), sep="\n", highlight=False)
    return folder


@main.command()
@training_options
def train(**options: Any) -> None:
    """Train with StoMPP until the network is exactly binary, then settle it.

    Writes a run folder: recipe, figures, weights, metrics and a picture of the training.

    Example: pipeline train --recipe digits --method stompp --out runs/mine
    """
    _train(**options)


def _pack(run: Path, out: Path | None, force: bool) -> Path:
    """Pack ``run``, print the table; returns the path of the model."""
    from pipeline.exporting import refuse_existing

    path = out or run / "model.bnn"
    refuse_existing(path, force)
    try:
        from pipeline.pack import pack
    except ImportError as error:
        raise _Failure(f"pack needs {error.name}: pip install 'frostbit[train]'") from error
    from kernels.container import dumps
    from pipeline.run_folder import write_bytes
    from pipeline.tables import pack_table

    program = pack(run)
    data = dumps(program)
    write_bytes(path, data)
    table, lines = pack_table(program, len(data))
    console = _console()
    console.print(table)
    console.print(*lines, sep="\n", highlight=False)
    console.print(f"wrote {path}", highlight=False)
    return path


@main.command(name="pack")
@click.argument("run", type=EXISTING_FOLDER)
@click.option("-o", "--out", type=FILE, help="Model file [default: RUN/model.bnn].")
@force_option
def pack_command(run: Path, out: Path | None, force: bool) -> None:
    """Pack a finished run into model.bnn, one bit per binary weight.

    Example: pipeline pack runs/digits
    """
    _pack(run, out, force)


def _export(
    model: Path, formats: tuple[str, ...], out: Path | None, force: bool, no_check: bool
) -> None:
    from kernels.container import load_program
    from pipeline.exporting import export, format_names

    names = format_names(formats)
    program = load_program(model)
    console = _console()
    with console.status("exporting"):
        written = export(program, names, out or model.parent, force=force, checked=not no_check)
    for each in written:
        console.print(f"wrote {each.path} ({each.bytes:,} bytes); {each.check}", highlight=False)


@main.command(name="export")
@click.argument("model", type=EXISTING_FILE)
@click.option("--format", "formats", multiple=True, help="onnx, lce or all [default: all].")
@click.option("-o", "--out", type=FOLDER, help="Folder to write to [default: the model's].")
@click.option("--no-check", is_flag=True, help="Do not run the files in their runtimes.")
@force_option
def export_command(
    model: Path, formats: tuple[str, ...], out: Path | None, no_check: bool, force: bool
) -> None:
    """Export a packed model to ONNX and Larq Compute Engine, and run both to check them.

    Example: pipeline export runs/digits/model.bnn --format onnx
    """
    _export(model, formats, out, force=force, no_check=no_check)


def _bench(
    model: Path,
    *,
    names: tuple[str, ...],
    run: Path | None,
    rounds: int,
    threads: int,
    seed: int | None,
    data_dir: Path | None,
    json_file: Path | None,
) -> Bench:
    """Measure, print the table, write the JSON."""
    from kernels.container import load_program
    from pipeline import bench, run_folder, runtimes
    from pipeline.tables import bench_table

    chosen = runtimes.check_names(names)
    program = load_program(model)
    console = _console()
    inputs = bench.inputs_for(program, data_dir, seed or 0)
    if inputs.labels is None:
        console.print(f"accuracy: not measured, random images; {inputs.remedy}", highlight=False)
    source = runtimes.Source(program, model.parent, run or model.parent, threads)
    ready, missing = runtimes.make(chosen, source)
    try:
        found = bench.run(
            program,
            model,
            ready,
            inputs,
            rounds=rounds,
            threads=threads,
            seed=seed or 0,
            progress=_progress(console),
        )
    finally:
        for runtime in ready:
            runtime.close()
    table, lines = bench_table(found, missing)
    console.print(table)
    console.print(*lines, sep="\n", highlight=False)
    path = json_file or model.parent / "bench.json"
    run_folder.write_bytes(path, found.to_json().encode())
    console.print(f"wrote {path}", highlight=False)
    return found


@main.command(name="bench")
@click.argument("model", type=EXISTING_FILE)
@click.option("--runtime", "names", multiple=True, help="Only these (repeat the option).")
@click.option("--run", type=FOLDER, help="Run folder of the model [default: the model's].")
@bench_options
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@data_option
@click.option("--json", "json_file", type=FILE, help="[default: bench.json beside the model]")
def bench_command(model: Path, **options: Any) -> None:
    """Compare latency, size, accuracy and sign bits of every runtime; exit 1 if a bit differs.

    Example: pipeline bench runs/digits/model.bnn --runtime engine --runtime ort
    """
    found = _bench(model, **options)
    if found.parity is not None and not found.parity.passed:
        sys.exit(1)


@main.command(name="run")
@training_options
@bench_options
def run_command(rounds: int, threads: int, **options: Any) -> None:
    """Train, pack, export and bench, then say in five lines what came out.

    Example: pipeline run --recipe digits
    """
    from kernels.container import load_program
    from pipeline.tables import summary

    folder = _train(**options)
    model = _pack(folder, None, force=True)
    _export(model, (), None, force=True, no_check=False)
    found = _bench(
        model,
        names=(),
        run=None,
        rounds=rounds,
        threads=threads,
        seed=options["seed"],
        data_dir=options["data_dir"],
        json_file=None,
    )
    click.echo("")
    click.echo("\n".join(summary(found, model, load_program(model))))
    if found.parity is not None and not found.parity.passed:
        sys.exit(1)


@main.command()
@click.option("--install-lce", is_flag=True, help="Make LCE's own small environment.")
def doctor(install_lce: bool) -> None:
    """Say what is installed; make Larq Compute Engine's environment.

    Example: pipeline doctor --install-lce
    """
    from pipeline.doctor import findings, install

    if install_lce:
        install(click.echo)
    for line in findings():
        click.echo(line)


if __name__ == "__main__":
    main()
