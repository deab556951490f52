"""``pipeline train``: a recipe, or a run to go on with, becomes a run folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frostbit.pipeline.cli.options import split_training, training_options
from frostbit.pipeline.console import terminal
from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.pipeline.run.recipe import Recipe
    from frostbit.pipeline.training.train import RunResult


def train_run(
    recipe: str | None,
    out: Path | None,
    resume: Path | None,
    settings: tuple[str, ...],
    compiled: bool,
    chosen: dict[str, Any],
    how: dict[str, Any],
) -> Path:
    """Train and print where the run is; returns the run folder.

    Args:
        recipe, out, resume, settings, compiled: as given on the command line.
        chosen: other fields of the recipe, None where not given.
        how: other fields of :class:`frostbit.pipeline.training.train.Options`.
    """
    named = {name: value for name, value in chosen.items() if value is not None}
    decided = _recipe(recipe, resume, {**_settings(settings), **named})
    try:
        from frostbit.pipeline.training.train import Options, train
    except ImportError as error:
        raise UserError(
            f"training needs {error.name}: install it with pip install 'frostbit[train]'"
        ) from error
    folder = out or resume or Path("runs") / _file_name(decided.name)
    if resume is not None and folder.resolve() != resume.resolve():
        raise UserError(f"--resume goes on in '{resume}' itself; leave out --out")
    console = terminal()
    backend = "inductor" if compiled else None
    options = Options(resume=resume is not None, compile_backend=backend, **how)
    result = train(decided, folder, options, console)
    if result is not None:
        console.print(*_training_lines(result, decided.method), sep="\n")
    return folder


def _recipe(name: str | None, resume: Path | None, changes: dict[str, Any]) -> Recipe:
    """The recipe that is asked for; a resumed run keeps its own."""
    from frostbit.pipeline.run.recipe import differences, from_file, load, trust

    trust(changes.get("model", ""))
    asked = None
    if name is not None:
        asked = from_file(Path(name), changes) if name.endswith(".toml") else load(name, changes)
    saved = None if resume is None else resume / "recipe.toml"
    if saved is None or not saved.exists():
        if asked is None and resume is not None:
            raise UserError(f"'{resume}' holds no run yet: name its --recipe to start it there")
        if asked is None:
            raise UserError("name a recipe, e.g. --recipe digits, or a run with --resume RUN")
        return asked
    kept = from_file(saved, {})
    if asked is None and changes:
        asked = from_file(saved, changes)
    changed = differences(kept, asked or kept)
    if changed:
        raise UserError(f"a resumed run keeps its recipe, and {changed[0]} differs; leave it out")
    return kept


def _file_name(name: str) -> str:
    """A recipe's name as the name of its run folder: a file must not choose where to write."""
    if not name.isprintable() or name in ("", ".", "..") or set(name) & set("/\\:"):
        raise UserError(
            f"the recipe's name {name[:80]!a} is no name of a folder; give one with --out"
        )
    return name


def _settings(texts: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dictionary; the recipe checks names and values."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UserError(f"--set takes KEY=VALUE, not '{text}'; e.g. --set width=48")
        found[key] = value
    return found


def _training_lines(result: RunResult, method: str) -> list[str]:
    """What ``pipeline train`` says at the end."""
    where = f"wrote {result.folder.path} after {result.seconds:.0f} s of training"
    if result.unfrozen and method == "float":
        return [
            f"method {method}: a network of real numbers, to compare with or to distil from",
            f"validation {result.validation_accuracy:.2f} %, test {result.test_before:.2f} %",
            where,
        ]
    if result.unfrozen:
        left = sum(result.unfrozen.values())
        return [
            f"not exactly binary: {left:,} entries in {len(result.unfrozen)} layers are not "
            "frozen; pack will refuse this run",
            f"validation {result.validation_accuracy:.2f} %, test {result.test_before:.2f} %",
            where,
        ]
    return [
        f"exactly binary; validation {result.validation_accuracy:.2f} %, test "
        f"{result.test_after:.2f} % ({result.test_before:.2f} % before folding and rounding)",
        where,
    ]


@click.command(name="train")
@training_options
def train_command(**options: Any) -> None:
    """Train with StoMPP until the network is exactly binary, then settle it.

    Writes a run folder: recipe, figures, weights, metrics and a picture of the training.

    Example: pipeline train --recipe digits --method stompp --out runs/mine
    """
    train_run(**split_training(options))
