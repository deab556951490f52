"""How many threads an engine may use."""

from __future__ import annotations

import os
from typing import Literal

from frostbit.kernels.machine.cpu import available_cores
from frostbit.kernels.machine.settings import SettingError

VARIABLE = "FROSTBIT_ENGINE_THREADS"
AUTO = "auto"
MOST = 256
Threads = int | Literal["auto"] | None
"""A number, "auto" for the cores that are there, None for what the environment says, or 1."""


def chosen_threads(given: Threads = None) -> int:
    """The number that ``given`` means.

    Raises:
        ValueError: if it is none of :data:`Threads`, or not 1 to ``MOST``.
        SettingError: (a ValueError) if the environment's is not.
    """
    wanted = f"must be 1 to {MOST} or '{AUTO}'"
    if given is None:
        text = os.environ.get(VARIABLE) or "1"
        given = parsed(text)
        if given is None:
            raise SettingError(f"{VARIABLE} {wanted}, not {text!a:.40}")
    if given == AUTO:
        return min(available_cores(), MOST)
    if isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= MOST:
        raise ValueError(f"threads {wanted}, not {given!a:.40}")
    return given


def parsed(text: str) -> Threads:
    """What a word of a command or of the environment asks for; None if it asks for nothing."""
    if text == AUTO:
        return "auto"
    return int(text) if text.isdecimal() and 1 <= int(text[:9]) <= MOST else None
