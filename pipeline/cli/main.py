"""The command ``pipeline``: parse, call, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from frostbit.pipeline.bench import command as bench_stage
from frostbit.pipeline.cli import commands
from frostbit.pipeline.cli.options import (
    EXISTING_FILE,
    EXISTING_FOLDER,
    FILE,
    FOLDER,
    Failure,
    bench_options,
    data_option,
    force_option,
    log_to_terminal,
    remote_options,
    split_training,
    training_options,
)
from frostbit.pipeline.cli.tools import COMMANDS

INTERRUPTED = 130


class _Commands(click.Group):
    """A group that turns our errors into one line each, and Ctrl-C into status 130."""

    def invoke(self, ctx: click.Context) -> Any:
        from frostbit.pipeline.errors import Interrupted, UserError

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted: nothing half-written is left", err=True)
            ctx.exit(INTERRUPTED)
        except Interrupted as error:
            click.echo(str(error), err=True)
            ctx.exit(128 + error.number)
        except UserError as error:
            raise Failure(str(error)) from error
        except (ValueError, RuntimeError) as error:
            if _is_ours(error):
                raise Failure(str(error)) from error
            raise


def _is_ours(error: Exception) -> bool:
    """Whether ``error`` is a library error with a clear text (a bug keeps its traceback)."""
    from frostbit.export.errors import ExportError, LceError, ParityError
    from frostbit.kernels.ir.program import FormatError

    return isinstance(error, (ExportError, LceError, ParityError, FormatError))


@click.group(cls=_Commands)
@click.version_option(package_name="frostbit")
def main() -> None:
    """Train a binary neural network, pack it, export it, and prove what the device runs.

    Example: pipeline run --recipe digits
    """
    log_to_terminal()


@main.command()
@training_options
def train(**options: Any) -> None:
    """Train with StoMPP until the network is exactly binary, then settle it.

    Writes a run folder: recipe, figures, weights, metrics and a picture of the training.

    Example: pipeline train --recipe digits --method stompp --out runs/mine
    """
    commands.train_run(**split_training(options))


@main.command(name="pack")
@click.argument("run", type=EXISTING_FOLDER)
@click.option("-o", "--out", type=FILE, help="Model file [default: RUN/model.bnn].")
@force_option
def pack_command(run: Path, out: Path | None, force: bool) -> None:
    """Pack a finished run into model.bnn, one bit per binary weight.

    Example: pipeline pack runs/digits
    """
    commands.pack_run(run, out, force)


@main.command(name="export")
@click.argument("model", type=EXISTING_FILE, required=False)
@click.option(
    "--format",
    "--formats",
    "formats",
    multiple=True,
    help="onnx, lce, onnx-int8, onnx-float, qonnx, c or all; commas or repeated "
    "[default: onnx,lce].",
)
@click.option("-o", "--out", type=FOLDER, help="Folder to write to [default: the model's].")
@click.option("--synthetic", help="Instead of MODEL: random weights, e.g. resnet18@224.")
@click.option("--float-input", is_flag=True, help="ONNX input float32 NCHW, not uint8 NHWC.")
@click.option("--licence", default="", help="Licence of the weights, for ONNX metadata.")
@click.option("--no-check", is_flag=True, help="Do not run the files in their runtimes.")
@force_option
def export_command(
    model: Path | None, synthetic: str | None, out: Path | None, **options: Any
) -> None:
    """Export a packed model to other runtimes, and run each file there to check it.

    Example: pipeline export runs/digits/model.bnn --format onnx
    """
    if (model is None) == (synthetic is None):
        raise Failure("name either a model file or --synthetic NETWORK, as in --help")
    if model is not None:
        commands.export_model(model, out=out, **options)
        return
    commands.export_synthetic(str(synthetic), out=out or Path(str(synthetic)), **options)


@main.command(name="bench")
@click.argument("models", type=EXISTING_FILE, nargs=-1)
@click.option("--synthetic", help="Instead of MODELS: random weights, e.g. resnet18@224.")
@click.option("--runtime", "names", multiple=True, help="Only these (repeat the option).")
@click.option("--peers", is_flag=True, help="Add ort-fp32, ort-int8, torch-fp32, lce:indirect.")
@click.option("--run", type=FOLDER, help="Run folder of the model [default: the model's].")
@bench_options
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--pin", type=click.IntRange(0), metavar="CPU", help="Stay on this CPU.")
@data_option
@click.option("--json", "json_file", type=FILE, help="[default: bench.json beside the model]")
@click.option("--markdown", type=FILE, help="Also write the table as Markdown.")
@click.option("--baseline", type=FILE, help="Compare with this earlier bench.json.")
@click.option(
    "--allowed",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Percent slower than the baseline before the exit status is 1.",
)
@click.option("--profile", is_flag=True, help="Also show where the engine's time goes.")
@remote_options
@click.option("--warm-cache", is_flag=True, help="Only compile the engine, e.g. in an image build.")
def bench_command(
    models: tuple[Path, ...],
    synthetic: str | None,
    peers: bool,
    warm_cache: bool,
    remote: str | None,
    remote_python: str,
    ssh_config: Path | None,
    **options: Any,
) -> None:
    """Compare latency, size, accuracy and sign bits of every runtime; exit 1 if a bit differs.

    Example: pipeline bench runs/digits/model.bnn --runtime engine --runtime ort
    """
    if warm_cache:
        commands.warm_cache()
        return
    if bool(models) == (synthetic is not None):
        raise Failure("name either model files or --synthetic NETWORK, as in --help")
    if peers:
        from frostbit.pipeline.parity.runtimes import PEERS

        options["names"] = (*(options["names"] or ("engine",)), *PEERS)
    wishes = bench_stage.Wishes(**options, estimates=options["profile"])
    if remote is not None:
        if len(models) != 1:
            raise Failure("--remote takes one model file")
        well = bench_stage.bench_remote(models[0], remote, remote_python, ssh_config, wishes)
    elif models:
        _, well = bench_stage.bench_models(models, wishes)
    else:
        _, well = bench_stage.bench_synthetic(str(synthetic), wishes)
    if not well:
        sys.exit(1)


@main.command(name="run")
@training_options
@bench_options
def run_command(rounds: int, threads: int, **options: Any) -> None:
    """Train, pack, export and bench, then say in five lines what came out.

    Example: pipeline run --recipe digits
    """
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.cli.tables import summary

    wishes = bench_stage.Wishes(
        rounds=rounds, threads=threads, seed=options["seed"] or 0, data_dir=options["data_dir"],
        profile=True,
    )  # fmt: skip
    folder = commands.train_run(**split_training(options))
    model = commands.pack_run(folder, None, force=True)
    commands.export_model(model, force=True)
    found, well = bench_stage.bench_models([model], wishes)
    click.echo("")
    click.echo("\n".join(summary(found, model, load_program(model))))
    if not well:
        sys.exit(1)


@main.command(name="verify")
@click.argument("model", type=EXISTING_FILE, required=False)
@click.option("--synthetic", help="Instead of MODEL: random weights, e.g. resnet18@32.")
@click.option(
    "--formats",
    "--format",
    "formats",
    multiple=True,
    help="bnn, onnx, onnx-int8, onnx-float, qonnx, lce, c, torch; commas or repeated "
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
@data_option
@click.option("--images", type=click.IntRange(2), help="How many [default: all; 64 random ones].")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of random images.")
@click.option("--json", "json_file", type=FILE, help="Also write the figures here.")
def verify_command(model: Path | None, synthetic: str | None, **options: Any) -> None:
    """Compare every sign bit and logit of every runtime and setting; exit 1 on a difference.

    Exports beside the model are what is run; formats without a file are converted in memory.

    Example: pipeline verify runs/digits/model.bnn --formats onnx,lce
    """
    if (model is None) == (synthetic is None):
        raise Failure("name either a model file or --synthetic NETWORK, as in --help")
    if not commands.verify_model(model, synthetic, **options):
        sys.exit(1)


@main.command()
@click.argument("name")
@click.option("-o", "--out", type=FOLDER, help="[default: runs/experiments/NAME]")
@click.option("--jobs", type=click.IntRange(1), help="Runs at a time [default: one a core].")
@data_option
def experiment(name: str, out: Path | None, jobs: int | None, data_dir: Path | None) -> None:
    """Train a grid of recipes with seeds; write a record (JSON) and a picture.

    A grid that was stopped goes on where it was.

    Example: pipeline experiment smoke
    """
    commands.run_experiment(name, out, jobs, data_dir)


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
