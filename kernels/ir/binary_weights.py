"""Binary weights on real inputs (binary-weight networks), said as a full-precision convolution."""

from __future__ import annotations

import numpy as np

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import Affine, BinaryConv, Conv, FormatError


def as_conv(op: BinaryConv) -> Conv:
    """``op`` on an f32 input as a ``Conv`` with weights ``+-mul``; its epilogue is Affine.

    The multiplier moves into the weights: ``mul * sum(w * x) + add = sum(mul * w * x) + add``.
    Where :mod:`frostbit.kernels.ir.exact` proves ``op`` exact nothing rounds here either, as its
    bound on ``|mul| * sum(|x|)`` covers these products and all their partial sums.

    ``pad_value`` of the result is that of ``op`` for every channel, so it may be 1, which a
    Program does not allow of a ``Conv`` on f32: the result is for lowering, not for a Program.

    Raises:
        FormatError: if its epilogue is a threshold, which ``verify`` refuses on an f32 input.
    """
    if not isinstance(op.epilogue, Affine):
        raise FormatError(f"op '{op.name}': a threshold on an f32 input")
    signs = bits.unpack(op.words, op.channels_in)
    weights = (op.epilogue.mul[:, None, None, None] * signs).astype(np.float32)
    pad = np.full(op.channels_in * op.groups, op.pad_value, np.uint8)
    return Conv(op.name, op.inputs, op.window, weights, op.epilogue.add, pad, op.groups)
