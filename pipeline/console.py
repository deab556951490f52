"""What a person sees while a command runs: the console, log lines, progress bars."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, TypeAlias

import click

if TYPE_CHECKING:
    from rich.console import Console

Progress: TypeAlias = Callable[[Iterable[int]], Iterable[int]]
"""Wraps the iterable of a loop's steps, to show how far it is."""
Bars: TypeAlias = Callable[[str], Progress]
"""Progress bars by label."""


def silent(label: str) -> Progress:
    """No progress bar."""
    return iter


def terminal() -> Console:
    """Console on standard output, 120 columns where that is not a terminal.

    It prints text as it is: names from files, and remedies like ``frostbit[train]``, are no markup.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() else 120
    return Console(width=width, markup=False, emoji=False, highlight=False)


class _Echo(logging.Handler):
    """Log lines on the terminal, as every other line of a command."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(record.getMessage(), err=True)


def log_to_terminal() -> None:
    """Show what the libraries of this package log, e.g. that the engine is being compiled."""
    log = logging.getLogger("frostbit")
    if not log.handlers:
        log.addHandler(_Echo())
        log.setLevel(logging.INFO)


def progress() -> Bars:
    """Progress bars by label, on standard error, gone when done."""
    from rich.console import Console
    from rich.progress import track

    bars = Console(stderr=True)

    def labelled(label: str) -> Progress:
        return lambda steps: track(steps, description=label, console=bars, transient=True)

    return labelled
