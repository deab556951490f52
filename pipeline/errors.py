"""The exceptions that a person may cause."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake in what was asked for: one line that ends with the remedy (exit status 2)."""


class Diverged(UserError):
    """The loss is NaN, infinite or absurdly large."""


class Interrupted(Exception):
    """Training was stopped by a signal; its state is in a checkpoint.

    Attributes:
        number: of the signal; the command exits with 128 + ``number``.
    """

    def __init__(self, step: int, number: int, folder: Path) -> None:
        self.number = number
        super().__init__(
            f"stopped after step {step}, nothing is lost; go on with "
            f"pipeline train --resume '{folder}'"
        )


def unknown(what: str, name: str, known: Iterable[str]) -> UserError:
    """That there is no ``what`` of that name, with the one that looks like it, or else with all."""
    names = list(known)
    shown = repr(name[:80]) if name.isprintable() else ascii(name[:80])
    near = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(names)}"
    return UserError(f"unknown {what} {shown}; {hint}")


class BadExport(UserError):
    """An exported file beside a model that is damaged, or one of another network."""
