"""Supply chain: locks, known vulnerabilities, licences, bill of materials."""

from __future__ import annotations

import re
from pathlib import Path

from tests import ROOT

EXTRAS = ("base", "export", "train", "dev")
LOCKS = {
    **{name: ROOT / "requirements" / f"{name}.txt" for name in EXTRAS},
    "lce": ROOT / "export" / "lce" / "requirements.txt",
}
_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)")


def entries(lock: Path) -> list[str]:
    """Requirements of a lock file, one string each, continuation lines joined."""
    text = lock.read_text("utf-8").replace("\\\n", " ")
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


def names(lock: Path) -> list[str]:
    """Normalised names of the packages in a lock file, each once."""
    found = (_LINE.match(entry) for entry in entries(lock))
    return sorted({re.sub(r"[-_.]+", "-", match[1]).lower() for match in found if match})
