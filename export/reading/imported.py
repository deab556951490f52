"""What reading a file gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.program import Program


@dataclass(frozen=True)
class Restored:
    """A layer whose weights the file holds as ``+-c`` numbers, and the Program as bits.

    Attributes:
        layer: operator and name in the file.
        weights: how many.
        bytes_before, bytes_after: of the weights, in the file and in the Program.
    """

    layer: str
    weights: int
    bytes_before: int
    bytes_after: int


@dataclass(frozen=True, eq=False)
class Imported:
    """A network that was read from another format.

    Attributes:
        program: verified; takes and gives what the file's network does.
        source_kind: what was read, in words.
        notes: what a person should know, a line each.
        restored: layers that became one bit.
        names: of values that the source has too: our op's name -> the source's name.
        orders: of rows that stand in another order there: where each number is, by our op's name.
    """

    program: Program
    source_kind: str
    notes: tuple[str, ...]
    restored: tuple[Restored, ...]
    names: Mapping[str, str]
    orders: Mapping[str, NDArray[np.intp]] = field(default_factory=dict)
