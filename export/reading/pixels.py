"""A model of float images as one of pixels."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frostbit.kernels.ir.program import INPUT, FormatError, Preprocessing, Program, Scale


def with_pixels(program: Program, preprocessing: Preprocessing) -> Program:
    """``program`` with the step from pixels 0..255 to its float input inside it.

    Padding stays that of the float network, zeros after the step: no pixel stands for it where
    ``-add / mul`` is no whole number.

    Args:
        program: takes float32 images.
        preprocessing: a factor and an addend per input channel.

    Raises:
        FormatError: it takes pixels already.
    """
    if program.input_kind != "f32":
        raise FormatError("the model takes pixels already")
    taken, name = {op.name for op in program.ops}, "pixels"
    while name in taken:
        name += "_"
    mul, add = (np.asarray(each, np.float32) for each in (preprocessing.mul, preprocessing.add))
    ops = [
        replace(op, inputs=tuple(name if each == INPUT else each for each in op.inputs))
        for op in program.ops
    ]
    scale = Scale(name, (INPUT,), mul, add)
    return replace(program, ops=(scale, *ops), input_kind="u8", preprocessing=None)
