"""A model that takes floats as one that takes pixels: its stated preprocessing becomes an op."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frostbit.kernels.ir.program import INPUT, FormatError, Program, Scale
from frostbit.kernels.ir.verify import verify

NAME = "pixels"


def taking_pixels(program: Program) -> Program:
    """``program`` for uint8 ``[N, H, W, C]``, pixels 0..255.

    A ``Scale`` comes first, not other weights in the first convolution: its padding holds the
    float 0, which is no pixel (127.5 in -1..1).

    Raises:
        FormatError: it takes pixels already, or nothing says what they become.
    """
    known = program.preprocessing
    if program.input_kind == "u8":
        raise FormatError("the model takes pixels already")
    if known is None:
        raise FormatError("nothing says what pixels become: state it, as with --range -1..1")
    names = {op.name for op in program.ops}
    name = next(n for n in (NAME, *(f"{NAME}_{i}" for i in range(len(names)))) if n not in names)
    scale = Scale(
        name, (INPUT,), np.asarray(known.mul, np.float32), np.asarray(known.add, np.float32)
    )
    ops = [
        replace(op, inputs=tuple(name if each == INPUT else each for each in op.inputs))
        for op in program.ops
    ]
    made = replace(program, ops=(scale, *ops), input_kind="u8", preprocessing=None)
    verify(made)
    return made
