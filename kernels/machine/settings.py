"""Environment variables with which the engine cannot run: one line that says what to change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_NUMBA = "NUMBA_"
_SHOWN = 200
"""Characters of Numba's own message, which can hold a whole traceback."""


class SettingError(ValueError):
    """A setting of the environment, or of Numba, keeps the engine from running here."""


@contextlib.contextmanager
def blaming_numba_settings(what: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn one of ``errors`` into a SettingError that says ``what`` and names Numba's variables.

    If none is set, nothing of the user's is to blame, and the error is seen as it is.
    """
    try:
        yield
    except errors as error:
        given = sorted(f"{k}={v!a:.40}" for k, v in os.environ.items() if k.startswith(_NUMBA))
        if not given:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:_SHOWN]
        raise SettingError(f"{what} ({reason}): unset or correct {', '.join(given)}") from error
