"""Options and helpers that several commands share."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frostbit.pipeline.bench.command import thread_counts
from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.kernels.machine.threads import Threads

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _RunFolder(click.Path):
    """A folder that exists; what a file in its place needs is said."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | bytes | os.PathLike[str]:  # fmt: skip
        if Path(value).is_file():
            self.fail(
                f"'{value}' is a file, and the folder of a run is needed: what 'pipeline train' "
                "wrote, e.g. runs/digits",
                param,
                ctx,
            )
        return super().convert(value, param, ctx)


EXISTING_FOLDER = _RunFolder(exists=True, file_okay=False, path_type=Path)


def options(*chosen: Callable[..., Any]) -> Callable[..., Any]:
    """One decorator that adds several options, in this order."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(chosen):
            command = option(command)
        return command

    return decorate


def out_options(kind: click.Path, where: str) -> Callable[..., Any]:
    """``-o`` and ``--force``, the same in every command: what is there stays unless forced."""
    return options(
        click.option("-o", "--out", type=kind, help=where),
        click.option("--force", is_flag=True, help="Overwrite what is there."),
    )


def _limits(
    context: click.Context, option: click.Parameter, text: str | None
) -> tuple[float, float] | None:
    """``LOW..HIGH`` as two numbers."""
    if text is None:
        return None
    try:
        low, high = map(float, text.split(".."))
    except ValueError:
        low = high = math.nan
    if not (-math.inf < low < high < math.inf):
        raise click.BadParameter(f"'{text}' is no range; write two numbers as in -1..1")
    return low, high


range_option = click.option(
    "--range",
    "limits",
    metavar="LOW..HIGH",
    callback=_limits,
    help="What pixels 0 and 255 become for an imported model that takes floats, e.g. -1..1.",
)
data_option = click.option(
    "--data-dir", type=FOLDER, help="Folder of the data set's files (see README, Data)."
)
skip_option = click.option(
    "--skip-corrupt", is_flag=True, help="Leave out pictures that cannot be decoded."
)
data_options = options(data_option, skip_option)


def _trust(context: click.Context, option: click.Parameter, given: bool) -> None:
    if given:
        from frostbit.pipeline.run.recipe import trusting

        context.with_resource(trusting())


trust_option = click.option(
    "--trust",
    is_flag=True,
    expose_value=False,
    callback=_trust,
    help="Run the code (module:factory) that the run folder or recipe names.",
)
seed_option = click.option("--seed", type=click.IntRange(0), help="Seed of everything random.")
training_options = options(
    click.option("--recipe", help="Name (digits, fashion-small, paper, ...) or a .toml file."),
    click.option("--resume", type=FOLDER, help="Go on with this run after its last checkpoint."),
    click.option("--method", help="stompp, stompp-ste, ste, ... (default: the recipe's)."),
    click.option("--binarize", help="weights (real activations) or both (default)."),
    click.option("--model", help="e.g. bireal-8, resnet18 or my_package.nets:factory."),
    click.option("--dataset", help="e.g. fashion-mnist, cifar10 or folder (with --data-dir)."),
    click.option("--epochs", type=click.IntRange(1), help="Passes over the training images."),
    seed_option,
    click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="KEY=VALUE",
        help="Any other field of the recipe, e.g. --set width=48.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "mps"]),
        default="auto",
        show_default=True,
        help="Where to train.",
    ),
    click.option("--teacher", type=EXISTING_FOLDER, help="Run folder of a net to distil from."),
    click.option("--compile", "compiled", is_flag=True, help="Use torch.compile."),
    click.option("--workers", type=click.IntRange(0), default=0, help="Image decoding processes."),
    click.option("--cache", is_flag=True, help="Keep decoded pictures in the cache folder."),
    click.option(
        "--checkpoint-every",
        type=click.IntRange(0),
        default=0,
        help="Steps between checkpoints [default: 20 a run, and every 10 minutes].",
    ),
    click.option(
        "--checkpoint-minutes",
        type=click.FloatRange(0),
        default=0.0,
        help="Minutes between checkpoints, instead or as well.",
    ),
    click.option("--detect-anomaly", is_flag=True, help="Name where a NaN appears first; slow."),
    out_options(FOLDER, "Run folder [default: runs/RECIPE]."),
    data_options,
    trust_option,
)
_RECIPE_FIELDS = ("method", "binarize", "model", "dataset", "epochs", "seed")
_HOW = (
    "device",
    "force",
    "data_dir",
    "teacher",
    "workers",
    "checkpoint_every",
    "checkpoint_minutes",
    "skip_corrupt",
    "cache",
    "detect_anomaly",
)


def split_training(options: dict[str, Any]) -> dict[str, Any]:
    """What :data:`training_options` gave, as arguments of ``train_run``."""
    rest = {k: v for k, v in options.items() if k not in (*_RECIPE_FIELDS, *_HOW)}
    chosen = {name: options[name] for name in _RECIPE_FIELDS}
    return {**rest, "chosen": chosen, "how": {name: options[name] for name in _HOW}}


bench_options = options(
    click.option("--rounds", type=click.IntRange(1), default=50, show_default=True),
    click.option(
        "--threads",
        metavar="N[,N...]",
        default="1",
        show_default=True,
        callback=lambda _, __, text: thread_counts(text),
        help="Of every runtime that has them; several are measured in turns.",
    ),
)


def _engine_threads(_: click.Context, __: click.Parameter, text: str | None) -> Threads:
    if text is None:
        return None
    from frostbit.kernels.machine.threads import MOST, parsed

    found = parsed(text)
    if found is None:
        raise UserError(f"--threads '{text[:40]}': write a number from 1 to {MOST}, or auto")
    return found


threads_option = click.option(
    "--threads",
    metavar="N|auto",
    callback=_engine_threads,
    help="Most threads to use; auto: a core each [default: $FROSTBIT_ENGINE_THREADS, else 1].",
)
remote_options = options(
    click.option("--remote", metavar="USER@HOST", help="Measure on this machine, over ssh."),
    click.option("--remote-python", default="python3", show_default=True, help="Python there."),
    click.option("--ssh-config", type=EXISTING_FILE, help="Configuration file for ssh and scp."),
)
