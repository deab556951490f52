"""Full-precision weights rounded to few bits, a scale per output channel.

``w = whole * k * 2**-s`` with ``|whole| <= 2**(bits - 1) - 1``: k, a whole number, is chosen for
each channel so that the squared error is least, which often clips the largest weights. The result
lies on the grid ``2**-s`` of the network, so the proof of :mod:`frostbit.kernels.ir.exact` holds
for it as for any other.
"""

from __future__ import annotations

import torch
from torch import Tensor

SHARES = [share / 40 for share in range(16, 47)]
"""Of the scale at which no weight is clipped: what is tried."""
MANTISSA_BITS = 24


def rounded(weights: Tensor, bits: int, exponent: int | None) -> Tensor:
    """Float64 ``weights`` ``[O, ...]`` with ``bits`` bits each, as float32.

    Args:
        weights: any finite numbers.
        bits: 2..16.
        exponent: s of the grid that the result lies on; None for scales as fine as float32 allows.
    """
    rows = weights.reshape(len(weights), -1)
    most = 2 ** (bits - 1) - 1
    widest = rows.abs().amax(dim=1) / most
    step = _finest(widest, bits) if exponent is None else torch.full_like(widest, 2.0**-exponent)
    best, least = torch.zeros_like(rows), torch.full_like(widest, torch.inf)
    for share in SHARES:
        scale = (torch.ceil(widest * share / step).clamp(min=1) * step)[:, None]
        tried = torch.round(rows / scale).clamp(-most, most) * scale
        loss = ((tried - rows) ** 2).sum(dim=1)
        best = torch.where((loss < least)[:, None], tried, best)
        least = torch.minimum(loss, least)
    return best.reshape(weights.shape).to(torch.float32)


def _finest(widest: Tensor, bits: int) -> Tensor:
    """Steps of which ``widest`` takes so many that ``whole * k`` still fits float32."""
    _, exponent = torch.frexp(widest.clamp(min=2.0**-100))
    return torch.ldexp(torch.ones_like(widest), exponent - (MANTISSA_BITS - bits))
