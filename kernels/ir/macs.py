"""Multiply-accumulates of an op: the one place that counts them."""

from __future__ import annotations

from collections.abc import Mapping

from frostbit.kernels.ir.program import BinaryConv, Conv, Dense, Op, ValueType


def macs(op: Op, types: Mapping[str, ValueType]) -> tuple[int, int]:
    """``(1-bit, 32-bit)`` multiply-accumulates of ``op`` for one image.

    Padded taps count. Binary weights on real inputs multiply in 32 bits.

    Args:
        op: one op of a verified Program.
        types: as from :func:`frostbit.kernels.ir.verify.infer_types`.
    """
    height, width, _ = types[op.name].shape
    if isinstance(op, BinaryConv):
        count = height * width * op.channels_out * op.taps
        return (count, 0) if types[op.inputs[0]].kind == "bits" else (0, count)
    return 0, height * width * op.weights.size if isinstance(op, (Conv, Dense)) else 0
