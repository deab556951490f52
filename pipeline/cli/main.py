"""The command ``pipeline``: parse, call, print. Heavy imports happen inside the commands."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from frostbit.pipeline.cli.bench import bench
from frostbit.pipeline.cli.bundle import bundle_command
from frostbit.pipeline.cli.doctor import doctor
from frostbit.pipeline.cli.experiment import experiment_command
from frostbit.pipeline.cli.export import export_command
from frostbit.pipeline.cli.import_ import import_command
from frostbit.pipeline.cli.pack import pack_command
from frostbit.pipeline.cli.predict import predict_command
from frostbit.pipeline.cli.report import compare_command, report_command
from frostbit.pipeline.cli.run import run_command
from frostbit.pipeline.cli.summary import summary_command
from frostbit.pipeline.cli.train import train_command
from frostbit.pipeline.cli.verify import verify_command
from frostbit.pipeline.console import log_to_terminal, shown

COMMANDS = (
    train_command,
    pack_command,
    import_command,
    export_command,
    bench,
    run_command,
    verify_command,
    experiment_command,
    summary_command,
    doctor,
    predict_command,
    bundle_command,
    report_command,
    compare_command,
)
INTERRUPTED = 130


class _Failure(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2


class _Commands(click.Group):
    """A group that turns our errors into one line each, and Ctrl-C into status 130."""

    def main(self, *args: Any, **how: Any) -> Any:
        if sys.stdout is None:
            _end("standard output is closed; send it to a file or to /dev/null")
        try:
            try:
                return super().main(*args, **how)
            finally:
                sys.stdout.flush()
        except OSError as error:
            if not _stdout_fails():
                raise
            _end(f"cannot write to standard output: {error.strerror}")

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        refuse_empty(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        from frostbit.pipeline.errors import Interrupted, UserError

        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("interrupted: nothing half-written is left", err=True)
            ctx.exit(INTERRUPTED)
        except Interrupted as error:
            click.echo(shown(str(error)), err=True)
            ctx.exit(128 + error.number)
        except click.UsageError as error:
            raise click.UsageError(shown(error.format_message()), error.ctx) from error
        except UserError as error:
            raise _Failure(shown(str(error))) from error
        except (ValueError, RuntimeError) as error:
            if _is_ours(error):
                raise _Failure(shown(str(error))) from error
            raise


def refuse_empty(args: Sequence[str]) -> None:
    """Refuse an empty value, by its option: a script's variable was not set.

    Raises:
        click.ClickException: naming the option, or the argument before it.
    """
    for before, text in zip(("the command", *args), args, strict=False):
        name = text.removesuffix("=") if text.startswith("--") and text.endswith("=") else before
        if not text.strip() or name != before:
            raise _Failure(
                f"{shown(name)} is followed by an empty value; give one, or leave it out"
            )


def _stdout_fails() -> bool:
    """Whether not even a line's end can be written; Python's buffers forget what they could not."""
    try:
        os.write(sys.stdout.fileno(), b"\n")
    except io.UnsupportedOperation:  # a stream in memory
        return False
    except OSError:
        return True
    return False


def _end(message: str) -> NoReturn:
    """One line on standard error, exit status 2, and nothing more on standard output."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    if sys.stdout is not None:  # or Python complains when it flushes at its end
        os.dup2(nothing, sys.stdout.fileno())
    click.echo(f"Error: {message}", err=True)
    sys.exit(_Failure.exit_code)


def _is_ours(error: Exception) -> bool:
    """Whether ``error`` is a library error with a clear text (a bug keeps its traceback)."""
    from frostbit.export.errors import ExportError, LceError, ParityError, UnknownNetwork
    from frostbit.kernels.ir.program import FormatError
    from frostbit.kernels.machine.settings import SettingError

    ours = (ExportError, LceError, ParityError, UnknownNetwork, FormatError, SettingError)
    return isinstance(error, ours)


@click.group(cls=_Commands)
@click.version_option(package_name="frostbit")
def main() -> None:
    """Train a binary neural network, pack it, export it, and prove what the device runs.

    Example: pipeline run --recipe digits
    """
    log_to_terminal()


for command in COMMANDS:
    main.add_command(command)
