"""``python -m tests.supply.licences``: the licence of every dependency, by pip-licenses.

Nothing of the GPL kind (GPL, AGPL, LGPL and the like) may be in what a user installs: the base,
export and train extras. CUDA builds of torch bring NVIDIA's own libraries, which are proprietary
but free to use and to ship; they are named. The dev extra is never shipped and only listed.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import dataclass

import click

from tests.supply import LOCKS, names

SHIPPED = ("base", "export", "train")
_GPL = re.compile(r"GPL|GNU|EUPL|SSPL|CC-BY-(SA|NC)|Copyleft", re.IGNORECASE)
_NVIDIA = re.compile(r"^(nvidia-|cuda-)")
_KNOWN = {"axe-playwright-python": "MIT (says its repository)"}
"""Packages whose metadata name no licence."""


@dataclass(frozen=True)
class Licence:
    """A dependency as its metadata describe it."""

    name: str
    version: str
    licence: str

    @property
    def forbidden(self) -> bool:
        """Whether it may not be shipped: of the GPL kind without another choice, or unknown."""
        if _NVIDIA.match(self.name):
            return False
        choices = re.split(r"\bOR\b", self.licence)
        copyleft = all(_GPL.search(choice) for choice in choices)
        return copyleft or self.licence in ("UNKNOWN", "")


def of_lock(name: str) -> list[Licence]:
    """Every package of a lock that is installed here (others are for other machines)."""
    words = ["--from=mixed", "--format=json", "--with-system", "--packages", *names(LOCKS[name])]
    done = subprocess.run(
        [sys.executable, "-m", "piplicenses", *words], capture_output=True, text=True, check=True
    )
    found = []
    for row in json.loads(done.stdout):
        key = re.sub(r"[-_.]+", "-", row["Name"]).lower()
        licence = _KNOWN.get(key, row["License"])
        found.append(Licence(key, row["Version"], licence))
    return sorted(found, key=lambda each: each.name)


@click.command()
def main() -> None:
    """List all, exit 1 if something that is shipped may not be.

    Example: python -m tests.supply.licences
    """
    listed: set[str] = set()
    bad = []
    for extra in (*SHIPPED, "dev"):
        for each in of_lock(extra):
            if each.name in listed:
                continue
            listed.add(each.name)
            click.echo(f"{extra:7} {each.name:32} {each.version:16} {each.licence}")
            if extra in SHIPPED and each.forbidden:
                bad.append(each)
    for each in bad:
        click.echo(f"NOT ALLOWED: {each.name} {each.version}: {each.licence}", err=True)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
