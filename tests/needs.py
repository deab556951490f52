"""What tests need of the machine besides Python: absent, they are skipped by name; in CI they fail.

Every such skip begins with :data:`ABSENT`; the closing line of a run counts them and says how to
get what is missing (``tests/conftest.py``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from typing import NoReturn

import pytest

from frostbit.pipeline.data.fashion import DEBIAN_FOLDER

ABSENT = "absent: "
SYSTEM = "make system (as root)"


def told(skipped: Sequence[pytest.TestReport]) -> list[str]:
    """A line for each remedy: how many of these skips it would make run, and what is missing."""
    found: dict[str, list[str]] = {}
    for report in skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        if ABSENT in reason:
            what, remedy = reason.partition(ABSENT)[2].split("; run: ")
            found.setdefault(remedy, []).append(what)
    return [
        f"{len(missing)} tests did not run for want of {', '.join(sorted(set(missing)))}; to get "
        f"them: {remedy}"
        for remedy, missing in found.items()
    ]


def skip(what: str, remedy: str = SYSTEM) -> NoReturn:
    """Skip the running test, or fail it where CI=true."""
    message = f"{ABSENT}{what}; run: {remedy}"
    if os.environ.get("CI") == "true":
        pytest.fail(message)
    pytest.skip(message)


def need(*tools: str) -> None:
    """Go on only if all these commands are there."""
    absent = [name for name in tools if shutil.which(name) is None]
    if absent:
        skip(", ".join(absent))


def need_any(tools: Sequence[str]) -> str:
    """Go on only if one of these commands is there; returns its path."""
    found = next((place for name in tools if (place := shutil.which(name))), None)
    return found or skip(tools[0])


def need_fashion() -> None:
    """Go on only with Debian's copy of Fashion-MNIST."""
    if not DEBIAN_FOLDER.is_dir():
        skip("dataset-fashion-mnist")
