"""Modules that StoMPP makes binary: convolution, dense layer and activation.

A *maskable* module (:class:`BinaryConv2d`, :class:`BinaryLinear`, :class:`BinaryActivation`) is
continuous when new, and :meth:`Maskable.freeze` moves it towards exactly binary
(:mod:`frostbit.pipeline.method.stompp` says when). It is exactly binary once its ``progress``
buffer is 1.

Latent weights live in [-1, 1] (the trainer clips them after each step), so that a continuous
weight needs no clipping here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frostbit.pipeline.network.gradients import (
    MixedActivation,
    MixedWeight,
    StraightThroughActivation,
    StraightThroughWeight,
    sign,
)

Pair = tuple[int, int]
PHASES = ("continuous", "mixed", "binary")


def _phase(share: float) -> str:
    return PHASES[0] if share <= 0 else PHASES[2] if share >= 1 else PHASES[1]


class Maskable(nn.Module):
    """State shared by everything that freezes.

    Attributes:
        layer: position in execution order (set by :func:`number_layers`), -1 before.
        ste: whether frozen entries get the straight-through gradient.
        share: frozen share p, a Python float (reading a buffer would stall a GPU).
        phase: what ``forward`` does, one of :data:`PHASES` (it changes seldom, ``share`` each
            step: torch.compile specialises on what it reads).
        progress: buffer, float32 scalar: ``share``, kept with the weights.
        mask: float 0/1 in the shape of one entry set, only while 0 < share < 1.
    """

    progress: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = -1
        self.ste = False
        self.share = 0.0
        self.phase = PHASES[0]
        self.mask: Tensor | None = None
        self.register_buffer("progress", torch.zeros(()))

    @property
    def entry_shape(self) -> tuple[int, ...]:
        """Shape of the mask, as the tensor it applies to; () when not known yet."""
        raise NotImplementedError

    @property
    def entries(self) -> int:
        """Number of mask entries."""
        return int(torch.Size(self.entry_shape).numel())

    def freeze(self, share: float, mask: Tensor | None = None) -> None:
        """Set the frozen share in [0, 1]; ``mask`` is needed strictly between."""
        if 0 < share < 1 and mask is None:
            raise ValueError("a partly frozen module needs a mask")
        if share != self.share:
            self.progress.fill_(share)
        self.share, self.phase = share, _phase(share)
        self.mask = mask if 0 < share < 1 else None

    def unfrozen(self) -> int:
        """Number of entries not frozen yet.

        Exact while training; for a partly frozen module that was loaded from a file the masks
        are gone and the expected number is given, at least 1.
        """
        if self.share >= 1:
            return 0
        if self.mask is not None:
            return self.entries - int(self.mask.sum())
        return max(1, round((1 - self.share) * self.entries))

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self.share, self.mask = float(self.progress), None
        self.phase = _phase(self.share)


class _BinaryWeight(Maskable):
    """A maskable module with a latent ``weight`` and an optional real ``bias``."""

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(self, shape: tuple[int, ...], bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        nn.init.kaiming_normal_(self.weight)
        with torch.no_grad():
            self.weight.clamp_(-1, 1)

    @property
    def entry_shape(self) -> tuple[int, ...]:
        return tuple(self.weight.shape)

    def effective_weight(self) -> Tensor:
        """What the forward pass multiplies with: latent, mixed, or exactly +-1."""
        if self.phase == "continuous":
            return self.weight
        if self.phase == "binary":
            if not self.ste:
                return sign(self.weight.detach())
            weight: Tensor = StraightThroughWeight.apply(self.weight)
        else:
            weight = MixedWeight.apply(self.weight, self.mask, self.ste)
        return weight


class BinaryConv2d(_BinaryWeight):
    """Convolution of a (becoming) binary map ``[N, I, H, W]`` with (becoming) binary weights.

    Attributes:
        weight: latent, float32 ``[O, I / groups, kh, kw]`` in [-1, 1].
        stride, padding, dilation: pairs (vertical, horizontal).
        pad_value: 0 (padded taps contribute nothing) or 1 (they are +1).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Pair = (3, 3),
        stride: Pair = (1, 1),
        padding: Pair = (1, 1),
        *,
        dilation: Pair = (1, 1),
        groups: int = 1,
        pad_value: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__((out_channels, in_channels // groups, *kernel), bias)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.groups, self.pad_value = groups, pad_value

    def forward(self, x: Tensor) -> Tensor:
        padding = self.padding
        if self.pad_value and any(padding):
            x = F.pad(x, (padding[1], padding[1], padding[0], padding[0]), value=1.0)
            padding = (0, 0)
        weight = self.effective_weight()
        return F.conv2d(x, weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def extra_repr(self) -> str:
        """Shape and geometry, for ``print(model)``."""
        return f"{tuple(self.weight.shape)}, stride={self.stride}, padding={self.padding}"


class BinaryLinear(_BinaryWeight):
    """Dense layer of a (becoming) binary vector ``[N, I]`` with weights ``[O, I]``."""

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__((out_features, in_features), bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.effective_weight(), self.bias)

    def extra_repr(self) -> str:
        """Shape, for ``print(model)``."""
        return f"{tuple(self.weight.shape)}"


class BinaryActivation(Maskable):
    """clip(x, -1, 1) that becomes sign(x); the mask has the shape of one sample's map."""

    def __init__(self) -> None:
        super().__init__()
        self._shape: tuple[int, ...] = ()

    @property
    def entry_shape(self) -> tuple[int, ...]:
        return self._shape

    def set_entry_shape(self, shape: tuple[int, ...]) -> None:
        """Shape of one sample, ``(C, H, W)`` or ``(F,)``."""
        self._shape = shape

    def forward(self, x: Tensor) -> Tensor:
        if self.phase == "continuous":
            return F.hardtanh(x)
        if self.phase == "binary" and not self.ste:
            return sign(x.detach())
        if self.phase == "binary":
            y: Tensor = StraightThroughActivation.apply(x)
        else:
            y = MixedActivation.apply(x, self.mask, self.ste)
        return y


def maskable(model: nn.Module) -> Iterator[tuple[str, Maskable]]:
    """Named maskable modules of ``model``, in definition order."""
    return ((name, m) for name, m in model.named_modules() if isinstance(m, Maskable))


def unfrozen_layers(model: nn.Module, activations: bool = True) -> dict[str, int]:
    """Entries not frozen yet by module name; empty when ``model`` is exactly binary."""
    counts = {
        name: module.unfrozen()
        for name, module in maskable(model)
        if activations or not isinstance(module, BinaryActivation)
    }
    return {name: count for name, count in counts.items() if count}


@contextmanager
def in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """Every module in one mode, whatever their ``train`` methods do; afterwards as before."""
    before = [(module, module.training) for module in model.modules()]
    for module, _ in before:
        module.training = training
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


@torch.no_grad()
def number_layers(model: nn.Module, pixels: Tensor) -> int:
    """Give every maskable module its layer, and activations their shape, by running once.

    A layer is a binary convolution or dense layer with the activations executed before the next
    one; activations before the first form a layer of their own.

    Args:
        model: module with maskable parts.
        pixels: any batch ``[N, C, H, W]``.

    Returns:
        The number of layers.
    """
    layer = -1

    def note(module: Maskable, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal layer
        if isinstance(module, _BinaryWeight) or layer < 0:
            layer += 1
        module.layer = layer
        if isinstance(module, BinaryActivation):
            module.set_entry_shape(tuple(output.shape[1:]))

    hooks = [module.register_forward_hook(note) for _, module in maskable(model)]
    try:
        with in_mode(model, training=False):
            model(pixels)
    finally:
        for hook in hooks:
            hook.remove()
    return layer + 1
