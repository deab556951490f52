"""What a person sees while a command runs: the console, log lines, progress bars."""

from __future__ import annotations

import functools
import logging
import sys
import unicodedata
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias

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


_UNSEEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is not seen but acts: controls, marks of direction and the like,
halves of characters, ends of lines."""
_SPELLING = {"\u200c", "\u200d"}
"""The two joiners are letters' business in Persian, in Hindi and in emoji."""


def shown(text: str, keep: str = "") -> str:
    """``text`` as it may stand before a person: what acts without being seen is escaped.

    Names in files are chosen by strangers; a control character in one moves the cursor, a mark of
    direction turns the rest of the line around. Everything that is printed, and every page that is
    written, passes through here. ``keep``: characters that stay.
    """
    if text.isprintable():
        return text
    return "".join(each if each in keep or not _acts(each) else _escaped(each) for each in text)


def _acts(character: str) -> bool:
    return unicodedata.category(character) in _UNSEEN and character not in _SPELLING


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


@functools.cache
def _console() -> type[Console]:
    """Rich's console, through :func:`shown`; a function because rich is imported late."""
    from rich.console import Console
    from rich.text import Text

    class Shown(Console):
        """Every text that is printed, cells and titles of tables too, is made here."""

        def render_str(self, text: str, **how: Any) -> Text:
            return super().render_str(shown(text), **how)

    return Shown


def terminal() -> Console:
    """Console on standard output, 120 columns where that is not a terminal.

    Texts are no markup (names from files, remedies like ``frostbit[train]``), and a text is one
    line: :func:`shown` escapes line ends too.
    """
    width = None if sys.stdout.isatty() else 120
    return _console()(width=width, markup=False, emoji=False, highlight=False)


class _Echo(logging.Handler):
    """Log lines on the terminal, as every other line of a command."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(shown(record.getMessage()), err=True)


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
