"""Run on ARM (here: emulated): every case of :mod:`tests.arm.cases` must give x86's bits.

``python check.py FOLDER``, with the repository's root and the base install on ``PYTHONPATH``.
Prints what was compared and no time at all: an emulator's speed says nothing about a board.
"""

from __future__ import annotations

import platform
import sys
from pathlib import Path

import numpy as np

from frostbit.kernels.engine import Engine, load
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.machine import cpu

BATCHES = (1, 2)


def check_case(path: Path, kernel: str) -> tuple[int, int]:
    """Compare one case; returns how many sign bits and how many logits were equal.

    Raises:
        AssertionError: on the first difference.
    """
    with np.load(path.with_suffix(".npz"), allow_pickle=False) as stored:
        case = dict(stored)
    images, logits = case.pop("images"), case.pop("logits")
    program = load(path).program
    for batch in BATCHES:
        engine = Engine(program, kernel=kernel, threads=batch)
        parts = [engine.run(images[i : i + batch]) for i in range(0, len(images), batch)]
        np.testing.assert_array_equal(np.concatenate(parts), logits, f"{path.stem} {kernel}")
    signs = Engine(program, kernel=kernel, keep=True).signs(images)
    assert {f"sign:{name}" for name in signs} == case.keys(), path.stem
    types = infer_types(program)
    compared = 0
    for name, words in signs.items():
        np.testing.assert_array_equal(words, case[f"sign:{name}"], f"{path.stem} {name}")
        compared += len(images) * int(np.prod(types[name].shape))
    return compared, logits.size


def main(folder: Path) -> None:
    """Check every case with every micro-kernel; exit with an error on a difference."""
    machine = platform.machine()
    if machine != "aarch64":
        raise SystemExit(f"this check is for aarch64, and this is {machine}")
    cases = sorted(folder.glob("*.bnn"))
    if not cases:
        raise SystemExit(f"no cases in {folder}: run python -m tests.arm.cases first")
    for kernel in cpu.available():
        counts = np.sum([check_case(path, kernel) for path in cases], axis=0)
        print(
            f"{machine}, {kernel}: {len(cases)} programs, {counts[0]:,} sign bits and "
            f"{counts[1]:,} logits equal to x86's",
            flush=True,
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
