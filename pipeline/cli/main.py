"""The command ``pipeline``: parse, call, print. Heavy imports happen inside the commands."""

from __future__ import annotations

from typing import Any

import click

from frostbit.pipeline.cli.bench import bench
from frostbit.pipeline.cli.bundle import bundle_command
from frostbit.pipeline.cli.compare import compare_command
from frostbit.pipeline.cli.doctor import doctor
from frostbit.pipeline.cli.experiment import experiment_command
from frostbit.pipeline.cli.export import export_command
from frostbit.pipeline.cli.pack import pack_command
from frostbit.pipeline.cli.predict import predict_command
from frostbit.pipeline.cli.report import report_command
from frostbit.pipeline.cli.run import run_command
from frostbit.pipeline.cli.summary import summary_command
from frostbit.pipeline.cli.train import train_command
from frostbit.pipeline.cli.verify import verify_command
from frostbit.pipeline.console import log_to_terminal

COMMANDS = (
    train_command,
    pack_command,
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
            raise _Failure(str(error)) from error
        except (ValueError, RuntimeError) as error:
            if _is_ours(error):
                raise _Failure(str(error)) from error
            raise


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
