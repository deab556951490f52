"""With which instruction, and how many of it, a step multiplies integers: for the profile."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from frostbit.kernels import op_table as t
from frostbit.kernels.micro.integers import BYTE_FORM, INT16_WIDTH
from frostbit.kernels.micro.vector import BLOCK
from frostbit.kernels.micro.xnor import TILE


@dataclass(frozen=True)
class Products:
    """Multiplying instructions of one step.

    Attributes:
        instruction: its name.
        width: bytes of its vectors.
        count: how many for one image, those with padded lanes and taps included.
        bits: of the values that it multiplies.
    """

    instruction: str
    width: int
    count: int
    bits: int


def products_of(row: Sequence[int]) -> Products | None:
    """Those of a row of the op table; None if it multiplies no integers."""
    if row[t.CODE] != t.CONVOLVE:
        return None
    taps = math.ceil(row[t.PIXELS] / TILE) * row[t.BLOCKS] * row[t.TAPS]
    tile_bytes = TILE * BLOCK
    if row[t.MICRO] == t.INT16:
        return Products("vpmaddwd", INT16_WIDTH, taps * tile_bytes // INT16_WIDTH, 16)
    if row[t.MICRO] == t.QUADS:
        return Products("vpmaddwd", INT16_WIDTH, taps * BLOCK // INT16_WIDTH, 16)
    if row[t.MICRO] == t.INT8:
        name, width = BYTE_FORM.instruction, BYTE_FORM.width
        return Products(name, width, taps * tile_bytes // width, 8)
    if row[t.MICRO] == t.LANES16:
        return Products(
            "16-bit multiplication", INT16_WIDTH, taps * tile_bytes // 2 // INT16_WIDTH, 16
        )
    return None
