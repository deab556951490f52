"""Networks that pages are made of: grey and colour, not square, exact and imported."""

from __future__ import annotations

import shutil
from dataclasses import replace

from frostbit.export.web.compiler import COMPILERS
from frostbit.kernels.ir.program import INPUT, Preprocessing, Program, Window
from tests import needs
from tests.kernels.programs import Builder

SAME = Window((3, 3), pads=(1, 1, 1, 1))


def require_clang() -> None:
    """Go on only with a compiler."""
    if not any(shutil.which(name) for name in COMPILERS):
        needs.skip("clang and lld")


def grey() -> Program:
    """Exact, uint8 13x9x1, all kinds of padding."""
    b = Builder((13, 9, 1))
    x = b.conv(INPUT, 40, SAME)
    y = b.binary_conv(b.sign(x), 40, SAME, pad_value=0)
    return b.finish(b.binary_conv(b.sign(b.add(x, y)), 33, Window((3, 3), (2, 2))))


def colour() -> Program:
    """Exact, uint8 11x17x3."""
    b = Builder((11, 17, 3), seed=1)
    x = b.max_pool(b.conv(INPUT, 35, SAME), Window((2, 2), (2, 2)))
    return b.finish(b.binary_conv(b.sign(x), 64, SAME))


def imported() -> Program:
    """Not exact, float32 10x12x3 -> probabilities: with exponentials, and fractions of pixels."""
    b = Builder((10, 12, 3), seed=2, kind="f32")
    x = b.prelu(b.conv(INPUT, 16, SAME))
    y = b.mul(b.binary_conv(b.sign(x), 16, SAME), b.sigmoid(x))
    b.softmax(b.dense(b.global_sum(y), 6))
    known = Preprocessing((0.0172, 0.0175, 0.0174), (-2.1179, -2.0357, -1.8044))
    return replace(b.program(), preprocessing=known)


def real() -> Program:
    """Binary weights on real inputs, no sign anywhere, uint8 8x8x1."""
    b = Builder((8, 8, 1), seed=3)
    return b.finish(b.binary_conv(b.clip(b.conv(INPUT, 12, SAME)), 12, SAME, pad_value=0))


NETS = {"grey": grey, "colour": colour, "imported": imported, "real": real}
