"""Mutation check: do the tests notice a changed constant or comparison? ``make mutations``.

Each mutation is made in a copy of the packages, and the tests that own the file run on the copy.
One that they let pass is a hole in them, and the exit status is 1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests import ROOT

PACKAGES = ("kernels", "export", "pipeline")


@dataclass(frozen=True)
class Area:
    """A file, and the tests that must notice a mutation of it."""

    file: str
    tests: tuple[str, ...]


SETTLE = Area(
    "pipeline/lowering/settle.py",
    ("tests/pipeline/lowering/test_grid_search.py", "tests/pipeline/lowering/test_settle.py"),
)
FREEZER = Area("pipeline/method/freezer.py", ("tests/pipeline/method/test_freezer.py",))
PICTURE = Area("pipeline/training/freeze_plot.py", ("tests/pipeline/training/test_freeze_plot.py",))
AREAS = (SETTLE, FREEZER, PICTURE)
MUTATIONS: tuple[tuple[Area, str, str], ...] = (
    (SETTLE, "\nFINEST = 20", "\nFINEST = 18"),
    (SETTLE, "\nCOARSEST = 4", "\nCOARSEST = 12"),
    (SETTLE, "HEAD_FINEST = 20", "HEAD_FINEST = 8"),
    (SETTLE, "HEAD_COARSEST = 6", "HEAD_COARSEST = 5"),
    (SETTLE, "range(HEAD_FINEST, HEAD_COARSEST - 1, -1)", "range(HEAD_FINEST, HEAD_COARSEST, -1)"),
    (SETTLE, "math.floor(verdict.bits_left)", "math.floor(verdict.bits_left) - 1"),
    (SETTLE, "if exponent < COARSEST", "if exponent <= COARSEST"),
    (SETTLE, "norm.momentum = None", "norm.momentum = 0.1"),
    (SETTLE, "- len(images) % batch or", "or"),
    (FREEZER, "torch.lt(numbers", "torch.gt(numbers"),
    (FREEZER, "_foreach_clamp_min_(moved, -1.0)", "_foreach_clamp_min_(moved, -2.0)"),
    (FREEZER, "latent.lerp_(before, mask)", "latent.lerp_(before, 1 - mask)"),
    (FREEZER, "module.ste = method.ste", "module.ste = not method.ste"),
    (FREEZER, "not isinstance(m, BinaryActivation)", "isinstance(m, BinaryActivation)"),
    (FREEZER, "key=lambda m: m.layer", "key=lambda m: -m.layer"),
    (FREEZER, "refresh_period(refresh)", "refresh_period(refresh / 2)"),
    (FREEZER, "slot.start - origin", "slot.start - origin + 1"),
    (PICTURE, "    _freezing(freezing, history)\n", ""),
    (PICTURE, "    _flipping(flipping, history)\n", ""),
    (PICTURE, "share == 1", "share >= 0.5"),
    (PICTURE, "after > before", "after >= before"),
    (PICTURE, "SMOOTHED = 7", "SMOOTHED = 5"),
    (PICTURE, "Normalize(0, 1)", "Normalize(0, 0.5)"),
    (PICTURE, ".T / steps", ".T"),
    (PICTURE, "np.maximum(flips, 1e-6)", "np.maximum(flips, 1e-3)"),
)


def copied(folder: Path) -> None:
    """The packages under their installed name, and the tests, into ``folder``."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "frostbit", folder / "frostbit", ignore=ignore)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, folder / "frostbit" / name, ignore=ignore)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)


def passes(folder: Path, tests: Sequence[str]) -> bool:
    """Whether all of ``tests`` pass on the copy in ``folder``."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    return done.returncode == 0


def noticed(folder: Path, area: Area, old: str, new: str) -> bool:
    """Whether the tests of ``area`` fail once ``old`` has become ``new`` in the copy."""
    file = folder / "frostbit" / area.file
    whole = file.read_text()
    if whole.count(old) != 1:
        raise SystemExit(f"{area.file} has {whole.count(old)} times {old!r}; name another mutation")
    file.write_text(whole.replace(old, new))
    try:
        return not passes(folder, area.tests)
    finally:
        file.write_text(whole)


def main() -> int:
    """Try every mutation and print which ones the tests noticed; 1 if one was not."""
    bars = Console(stderr=True)
    table = Table("file", "was", "became", "noticed", title="mutations")
    missed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        copied(folder)
        for area in AREAS:
            if not passes(folder, area.tests):
                raise SystemExit(f"the tests of {area.file} fail without a mutation: {area.tests}")
        for area, old, new in track(MUTATIONS, "mutating", console=bars, transient=True):
            seen = noticed(folder, area, old, new)
            missed += not seen
            table.add_row(area.file, old.strip(), new.strip() or "(gone)", "yes" if seen else "NO")
    console = Console(width=None if sys.stdout.isatty() else 160, markup=False, highlight=False)
    console.print(table)
    console.print(f"{len(MUTATIONS) - missed} of {len(MUTATIONS)} mutations were noticed")
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
