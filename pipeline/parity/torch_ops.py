"""PyTorch's operators for the ops that only imported networks have; maps are ``[N, C, H, W]``."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from frostbit.kernels.ir.program import (
    Flatten,
    Mul,
    Op,
    Pad,
    PRelu,
    Quantize,
    Scale,
    Sigmoid,
    Slice,
    Softmax,
)


def per_channel(values: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
    """A number per channel, to be broadcast to a map."""
    return torch.from_numpy(values).to(dtype).view(1, -1, 1, 1)


def imported(op: Op, *x: Tensor) -> Tensor:
    """What ``op`` makes of ``x``, in its precision; TypeError if PyTorch has no such op here."""
    dtype = x[0].dtype
    match op:
        case Mul():
            return x[0] * x[1]
        case Scale():
            return x[0] * per_channel(op.mul, dtype) + per_channel(op.add, dtype)
        case PRelu():
            return torch.where(x[0] >= 0, x[0], x[0] * per_channel(op.slope, dtype))
        case Quantize():
            step = float(np.float32(op.step))
            return (x[0] / step).round().clamp(op.low, op.high) * step
        case Sigmoid():
            return torch.sigmoid(x[0])
        case Softmax():
            return torch.softmax(x[0], dim=1)
        case Slice():
            return x[0][:, op.start : op.stop]
        case Pad():
            top, left, bottom, right = op.pads
            return F.pad(x[0], (left, right, top, bottom, *op.channels))
        case Flatten():
            return x[0].permute(0, 2, 3, 1).flatten(1)[:, :, None, None]
    raise TypeError(f"op '{op.name}': PyTorch has no {type(op).__name__}")
