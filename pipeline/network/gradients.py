"""What a masked entry computes and which gradient it passes: the four autograd functions.

Masks are float 0/1 tensors: ``lerp(clip, sign, mask)`` is exact at 0 and at 1, and one pass; so is
the product of a gradient and ``1 - mask``. Under autocast masks take the dtype of what they mix.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


def sign(x: Tensor) -> Tensor:
    """+1.0 where x >= 0, else -1.0, in the dtype of ``x`` (so sign(0) = sign(-0.0) = +1)."""
    return torch.ge(x, 0, out=torch.empty_like(x)).mul_(2).sub_(1)


def _inside(grad: Tensor, x: Tensor) -> Tensor:
    """``grad`` where x lies inside (-1, 1), else 0: the gradient of clip(x, -1, 1)."""
    passed: Tensor = torch.ops.aten.hardtanh_backward(grad, x, -1.0, 1.0)
    return passed


class Context(Protocol):
    """What torch gives an autograd function to remember."""

    ste: bool
    saved_tensors: tuple[Tensor, ...]

    def save_for_backward(self, *tensors: Tensor) -> None:
        """Keep ``tensors`` for the backward pass."""


class MixedWeight(torch.autograd.Function):
    """Frozen entries give their sign, the others their latent; gradient for all or the others."""

    @staticmethod
    def forward(ctx: Context, weight: Tensor, mask: Tensor, ste: bool) -> Tensor:
        ctx.ste = ste
        mask = mask.to(weight.dtype)
        if not ste:
            ctx.save_for_backward(1 - mask)
        return torch.lerp(weight, sign(weight), mask)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad if ctx.ste else grad * ctx.saved_tensors[0], None, None


class MixedActivation(torch.autograd.Function):
    """Frozen entries give their sign, the others clip(x); gradient inside [-1, 1] only."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, mask: Tensor, ste: bool) -> Tensor:
        ctx.ste = ste
        mask = mask.to(x.dtype)
        ctx.save_for_backward(x, *(() if ste else (1 - mask,)))
        return torch.lerp(x.clamp(-1, 1), sign(x), mask)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> tuple[Tensor, None, None]:
        grad = _inside(grad, ctx.saved_tensors[0])
        return grad if ctx.ste else grad.mul_(ctx.saved_tensors[1]), None, None


class StraightThroughWeight(torch.autograd.Function):
    """sign forward, identity backward (the latent stays inside [-1, 1])."""

    @staticmethod
    def forward(ctx: Context, weight: Tensor) -> Tensor:
        return sign(weight)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        return grad


class StraightThroughActivation(torch.autograd.Function):
    """sign forward, gradient of clip(x, -1, 1) backward."""

    @staticmethod
    def forward(ctx: Context, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return sign(x)

    @staticmethod
    def backward(ctx: Context, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _inside(grad, x)
