"""Run on ARM (here: emulated): the products of bytes of this CPU's form against NumPy.

``python products.py INSTRUCTION`` with the repository's root and the base install on
``PYTHONPATH``; INSTRUCTION is the form that must be chosen, ``sdot`` or ``smull``.
"""

from __future__ import annotations

import sys

import numba
import numpy as np

from frostbit.kernels.micro import integers
from frostbit.kernels.micro.operands import Taps, Tile
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.micro.xnor import TILE


@numba.njit
def _products(source, pixels, offsets, words, weights, counts):  # type: ignore[no-untyped-def]
    integers.int8_tile(Tile(source, pixels), Taps(offsets, words, weights), counts)


def check(words: int, seed: int) -> None:
    """Compare ``words`` taps of four bytes.

    Raises:
        AssertionError: if a sum differs.
    """
    rng = np.random.default_rng(seed)
    source = rng.integers(-128, 128, 4 * words + 64).astype(np.int8)
    source[rng.random(source.size) < 0.3] = -128
    weights = rng.integers(-127, 128, (words, LANES, 4)).astype(np.int8)
    weights[:, ::3] = rng.choice([-127, 127])
    pixels, offsets = np.zeros((TILE, 4), np.int32), 4 * np.arange(words, dtype=np.int32)
    pixels[:, 0] = rng.integers(0, 60, TILE)
    taken = source[pixels[:, :1, None] + offsets[:, None] + np.arange(4)].astype(np.int64)
    counts = np.full((TILE, LANES), -1, np.int32)
    at = [array.ctypes.data for array in (source, pixels, offsets, weights, counts)]
    _products(at[0], at[1], at[2], words, at[3], at[4])
    np.testing.assert_array_equal(counts, np.einsum("ptk,tlk->pl", taken, weights.astype(np.int64)))


if __name__ == "__main__":
    found = integers.BYTE_FORM.instruction
    if found != sys.argv[1]:
        raise SystemExit(f"the form for this CPU is {found}, not {sys.argv[1]}")
    for count in (1, 2, 63, 64, 300):
        check(count, count)
    print(f"{found}: products of bytes equal NumPy's")
