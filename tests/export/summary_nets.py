"""Small networks for the tests of summaries, with figures that can be worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np

from frostbit.kernels.ir.program import INPUT, Conv, Program, Window
from tests.kernels.programs import Builder

SAME = Window((3, 3), pads=(1, 1, 1, 1))
HALVE = Window((2, 2), (2, 2))


def _with_zero_point(program: Program, *zero_point: int) -> Program:
    """``program`` with this value per channel of the pixels that its stem pads with."""
    stem = program.ops[0]
    assert isinstance(stem, Conv)
    changed = dataclasses.replace(stem, pad_value=np.array(zero_point, np.uint8))
    return dataclasses.replace(program, ops=(changed, *program.ops[1:]))


def mixed_net() -> Program:
    """Zero padding before a threshold, odd channel counts, a residual: 6x7x2 -> 5 classes."""
    b = Builder((6, 7, 2))
    x = b.sign(b.conv(INPUT, 9, SAME))
    x = b.binary_conv(x, 33, SAME, pad_value=0, affine=False)
    x = b.binary_conv(x, 9, SAME, affine=False)
    x = b.add(b.binary_conv(x, 9, SAME), b.to_float(x))
    x = b.max_pool(b.sign(b.repeat(b.avg_pool(x, HALVE), 2)), Window((2, 2), pads=(1, 0, 0, 1)))
    return _with_zero_point(b.finish(b.binary_conv(x, 18, SAME, pad_value=0), 5), 17, 200)


def residual_net() -> Program:
    """A small ResNet padded with zeros: stem and pool, two plain blocks, one that halves."""
    b = Builder((16, 16, 3))
    x = b.max_pool(b.conv(INPUT, 16, Window((7, 7), (2, 2), (3, 3, 3, 3))), HALVE)
    for _ in range(2):
        x = b.add(b.binary_conv(b.sign(x), 16, SAME, pad_value=0), x)
    y = b.binary_conv(b.sign(x), 40, Window((3, 3), (2, 2), (1, 1, 1, 1)), pad_value=0)
    x = b.add(y, b.conv(b.avg_pool(x, HALVE), 40, Window((1, 1))))
    return b.finish(x, 10)


def chain_net() -> Program:
    """Nothing that a format rewrites: padding with +1, thresholds, one zero point."""
    b = Builder((8, 8, 2), seed=3)
    x = b.sign(b.conv(INPUT, 64, SAME))
    x = b.max_pool(b.binary_conv(x, 64, SAME, affine=False), HALVE)
    x = b.binary_conv(x, 33, SAME, affine=False)
    return _with_zero_point(b.finish(b.binary_conv(x, 7, Window((1, 1))), 4), 7, 7)


def grouped_net() -> Program:
    """Grouped binary convolutions."""
    b = Builder((6, 5, 1), seed=4)
    x = b.sign(b.conv(INPUT, 12, Window((2, 2))))
    x = b.binary_conv(x, 6, Window((3, 2), pads=(1, 0, 1, 1)), groups=3, pad_value=0, affine=False)
    return b.finish(b.binary_conv(x, 4, Window((2, 2)), groups=2), 3)
