"""The first layer of a network, in full precision: it takes pixels and normalises them itself."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Pair = tuple[int, int]


class _Stem(nn.Module):
    """First layer: takes pixels 0..255, normalises them, stays in full precision.

    Attributes:
        mean, std: buffers float32 ``[C]``, of pixels / 255.
        zero_point: buffer uint8 ``[C]``, round(255 * mean): what a padded pixel holds.
    """

    mean: Tensor
    std: Tensor
    zero_point: Tensor

    def __init__(
        self, shape: tuple[int, ...], bias: bool, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(shape))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None
        nn.init.kaiming_normal_(self.weight)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))
        zero_point = torch.round(self.mean * 255).clamp(0, 255).to(torch.uint8)
        self.register_buffer("zero_point", zero_point)

    def normalise(self, x: Tensor) -> Tensor:
        """``(x / 255 - mean) / std`` per channel of pixels ``[N, C, H, W]``."""
        mean, std = self.mean.view(1, -1, 1, 1), self.std.view(1, -1, 1, 1)
        return (x - 255 * mean) / (255 * std)


class StemConv2d(_Stem):
    """Full-precision convolution of pixels ``[N, C, H, W]`` (float, 0..255).

    Pads with ``zero_point`` in pixel space, then normalises: what a device does that pads its
    uint8 input. ``stride`` and ``padding`` are pairs (vertical, horizontal).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: Pair = (3, 3),
        stride: Pair = (1, 1),
        padding: Pair = (1, 1),
        *,
        mean: Sequence[float],
        std: Sequence[float],
        bias: bool = False,
    ) -> None:
        super().__init__((out_channels, in_channels, *kernel), bias, mean, std)
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        vertical, horizontal = self.padding
        if vertical or horizontal:
            zero_point = self.zero_point.to(x.dtype).view(1, -1, 1, 1)
            x = F.pad(x - zero_point, (horizontal, horizontal, vertical, vertical)) + zero_point
        return F.conv2d(self.normalise(x), self.weight, self.bias, self.stride)


class StemLinear(_Stem):
    """Full-precision dense layer on flattened pixels ``[N, C, H, W]`` (float, 0..255).

    Columns of ``weight`` ``[O, C * H * W]`` are in C, H, W order.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        bias: bool = False,
    ) -> None:
        super().__init__((out_features, in_features), bias, mean, std)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.flatten(self.normalise(x), 1), self.weight, self.bias)
