"""The modules of a settled network: what BatchNorm, latents and masks become once training ends.

Each holds buffers only and computes what one op of :mod:`frostbit.kernels.ir.program` defines, in
PyTorch's own layout (NCHW). The folded parameters arrive unrounded, in float64 (attribute ``raw``);
:meth:`round_to` puts them on the dyadic grid ``2**-s``, which makes float32 arithmetic exact
(:mod:`frostbit.kernels.ir.exact`). Nothing here learns and nothing is recomputed later: ``pack``
copies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frostbit.pipeline.lowering.few_bits import rounded

FULL_BITS = 32
"""Bits of a weight that is rounded to the grid alone."""


class GridError(ValueError):
    """A multiplier would round to 0 on the grid although it is not 0."""


class Folded(NamedTuple):
    """``y = mul * acc + add`` per channel, float64 ``[O]`` each."""

    mul: Tensor
    add: Tensor

    def then(self, other: Folded) -> Folded:
        """This, and ``other`` of its result."""
        return Folded(self.mul * other.mul, self.add * other.mul + other.add)


def on_grid(values: Tensor, exponent: int) -> Tensor:
    """Round float64 ``values`` to multiples of ``2**-exponent``, as float32."""
    scale = 2.0**exponent
    return (torch.round(values * scale) / scale).to(torch.float32)


def pad_pixels(x: Tensor, pads: tuple[int, int, int, int], value: Tensor) -> Tensor:
    """Pad ``[N, C, H, W]`` by (top, left, bottom, right) with one value per channel ``[C]``."""
    top, left, bottom, right = pads
    if not any(pads):
        return x
    n, channels, height, width = x.shape
    frame = value.to(x.dtype).view(1, channels, 1, 1)
    out = frame.expand(n, channels, height + top + bottom, width + left + right).clone()
    out[:, :, top : top + height, left : left + width] = x
    return out


def to_sign(x: Tensor) -> Tensor:
    """+1 where x >= 0, else -1, in the dtype of ``x``."""
    return torch.where(x >= 0, 1.0, -1.0).to(x.dtype)


class FullPrecision(nn.Module):
    """A layer with full-precision weights ``[O, ...]`` and an addend ``[O]``.

    Attributes:
        weight, add: float32, as rounded last.
        raw: both unrounded, float64.
        bits: of a weight: 8, 16 or ``FULL_BITS``.
    """

    weight: Tensor
    add: Tensor
    raw: tuple[Tensor, Tensor]
    bits: int

    def __init__(self, weight: Tensor, add: Tensor) -> None:
        super().__init__()
        self.raw, self.bits = (weight.double(), add.double()), FULL_BITS
        self.register_buffer("weight", weight.float())
        self.register_buffer("add", add.float())

    def round_to(self, exponent: int | None) -> None:
        """Round to ``bits`` and to ``2**-exponent``; None: to no grid."""
        weight, add = self.raw
        if self.bits < FULL_BITS:
            self.weight = rounded(weight, self.bits, exponent)
            add = add + self._usual_sum(weight - self.weight.double())
        else:
            self.weight = weight.float() if exponent is None else on_grid(weight, exponent)
        self.add = add.float() if exponent is None else on_grid(add, exponent)

    def _usual_sum(self, weights: Tensor) -> Tensor:
        """What ``weights`` (float64) add to ``[O]`` outputs on average, as far as it is known."""
        return torch.zeros(len(weights), dtype=torch.float64)


class SettledConv(FullPrecision):
    """Full-precision convolution with BatchNorm and normalisation folded in.

    Attributes:
        weight: float32 ``[O, I, kh, kw]``; add: float32 ``[O]``.
        zero_point: uint8 ``[C]``, the padding value (0 unless the input is pixels).
        stride, dilation: pairs; pads: (top, left, bottom, right); groups: channel groups.
    """

    zero_point: Tensor
    pads: tuple[int, int, int, int]

    def __init__(
        self,
        weight: Tensor,
        add: Tensor,
        zero_point: Tensor,
        stride: tuple[int, int],
        pads: tuple[int, int, int, int],
        dilation: tuple[int, int],
        groups: int = 1,
    ) -> None:
        super().__init__(weight, add)
        self.stride, self.pads, self.dilation, self.groups = stride, pads, dilation, groups
        self.register_buffer("zero_point", zero_point.to(torch.uint8))

    def _rows(self, values: Tensor) -> Tensor:
        """Of ``values`` per input channel those that each output channel reads, ``[O, I]``."""
        count, per_group = self.weight.shape[:2]
        return values.view(self.groups, per_group)[torch.arange(count) // (count // self.groups)]

    def _usual_sum(self, weights: Tensor) -> Tensor:
        """Pixels lie around their zero point."""
        return (weights.sum(dim=(2, 3)) * self._rows(self.zero_point.double())).sum(dim=1)

    def takes(self, scale: Folded) -> bool:
        """Whether a scale of what it reads can go into its weights (padding has no addend)."""
        return not any(self.pads) or not bool(scale.add.any())

    def scaled(self, scale: Folded) -> SettledConv:
        """The same of ``scale(x)``."""
        weight, add = self.raw
        mul, plus = (self._rows(values) for values in scale)
        made = SettledConv(
            weight * mul[:, :, None, None],
            add + (weight.sum(dim=(2, 3)) * plus).sum(dim=1),
            self.zero_point,
            self.stride,
            self.pads,
            self.dilation,
            self.groups,
        )
        return made

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_pixels(x, self.pads, self.zero_point)
        return F.conv2d(padded, self.weight, self.add, self.stride, 0, self.dilation, self.groups)


class SettledDense(FullPrecision):
    """Full-precision dense layer on ``[N, I]`` or a map that it flattens in C, H, W order.

    Attributes:
        weight: float32 ``[O, I]``; add: float32 ``[O]``.
    """

    def takes(self, scale: Folded) -> bool:
        """Whether a scale of what it reads can go into its weights: always."""
        return True

    def scaled(self, scale: Folded) -> SettledDense:
        """The same of ``scale(x)``, one factor for all values of a flattened channel."""
        weight, add = self.raw
        mul, plus = (v.repeat_interleave(weight.shape[1] // len(v)) for v in scale)
        return SettledDense(weight * mul, add + weight @ plus)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.flatten(x, 1), self.weight, self.add)


class _Binary(nn.Module):
    """Weights int8 of +1/-1 and an epilogue: integer thresholds, or mul and add.

    ``weight`` is ``[O, I, kh, kw]`` or ``[O, I]``. With ``to_bits`` the channels with a negative
    multiplier have their weights flipped and ``level`` (int32 ``[O]``) is the smallest
    accumulator whose output is +1; otherwise ``mul`` and ``add`` (float32 ``[O]``) apply.
    """

    weight: Tensor
    level: Tensor
    mul: Tensor
    add: Tensor

    def __init__(self, sign: Tensor, folded: Folded, to_bits: bool) -> None:
        super().__init__()
        self.to_bits = to_bits
        self.raw = folded
        if to_bits:
            flip = torch.where(folded.mul < 0, -1, 1).view(-1, *[1] * (sign.dim() - 1))
            self.register_buffer("weight", (sign * flip).to(torch.int8))
            self.register_buffer("level", thresholds(folded, sign[0].numel()))
        else:
            self.register_buffer("weight", sign.to(torch.int8))
            self.register_buffer("mul", folded.mul.float())
            self.register_buffer("add", folded.add.float())

    def round_to(self, exponent: int) -> None:
        """Round mul and add to ``2**-exponent``; GridError if a multiplier vanishes."""
        if self.to_bits:
            return
        mul = on_grid(self.raw.mul, exponent)
        if ((mul == 0) & (self.raw.mul != 0)).any():
            raise GridError(f"a multiplier rounds to 0 at 2**-{exponent}")
        self.mul, self.add = mul, on_grid(self.raw.add, exponent)

    def epilogue(self, acc: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (acc.dim() - 2))
        if self.to_bits:
            return to_sign(acc - self.level.view(shape))
        return acc * self.mul.view(shape) + self.add.view(shape)


def thresholds(folded: Folded, taps: int) -> Tensor:
    """Smallest accumulator with output +1, found by evaluating every accumulator value.

    Channels with ``mul < 0`` are evaluated on flipped weights (``acc -> -acc``), so the output
    never decreases with the accumulator. Result int32 ``[O]`` in ``[-taps, taps + 1]``;
    ``taps + 1`` means that no accumulator gives +1. See ``exactness.md``, "one rule, one place".
    """
    acc = torch.arange(-taps, taps + 1, dtype=torch.float64)
    positive = folded.mul.abs()[:, None] * acc + folded.add[:, None] >= 0
    return (taps + 1 - positive.sum(dim=1)).to(torch.int32)


class SettledBinaryConv(_Binary):
    """XNOR convolution of +-1 maps ``[N, I, H, W]``; pads (top, left, bottom, right).

    In a binary-weight network the maps are real, and sums are not exact.
    """

    def __init__(
        self,
        sign: Tensor,
        folded: Folded,
        to_bits: bool,
        stride: tuple[int, int],
        pads: tuple[int, int, int, int],
        dilation: tuple[int, int],
        groups: int,
        pad_value: int,
    ) -> None:
        super().__init__(sign, folded, to_bits)
        self.stride, self.pads, self.dilation = stride, pads, dilation
        self.groups, self.pad_value = groups, pad_value

    def forward(self, x: Tensor) -> Tensor:
        top, left, bottom, right = self.pads
        padded = F.pad(x, (left, right, top, bottom), value=float(self.pad_value))
        acc = F.conv2d(
            padded, self.weight.to(x.dtype), None, self.stride, 0, self.dilation, self.groups
        )
        return self.epilogue(acc)


class SettledBinaryLinear(_Binary):
    """XNOR dense layer of +-1 vectors ``[N, I]``."""

    def forward(self, x: Tensor) -> Tensor:
        return self.epilogue(F.linear(x, self.weight.to(x.dtype)))


class SettledSign(nn.Module):
    """+1 where x >= 0, else -1."""

    def forward(self, x: Tensor) -> Tensor:
        return to_sign(x)


class SettledClip(nn.Module):
    """clip(x, -1, 1): an activation that stays real, in a binary-weight network."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-1, 1)


class SettledScale(nn.Module):
    """``mul * x + add`` for each channel of a map ``[N, C, H, W]`` or vector ``[N, C]``.

    Attributes:
        mul, add: float32 ``[C]``.
    """

    mul: Tensor
    add: Tensor

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        self.raw = folded
        self.register_buffer("mul", folded.mul.float())
        self.register_buffer("add", folded.add.float())

    def round_to(self, exponent: int) -> None:
        """Round mul and add to ``2**-exponent``; GridError if a multiplier vanishes."""
        mul = on_grid(self.raw.mul, exponent)
        if ((mul == 0) & (self.raw.mul != 0)).any():
            raise GridError(f"a multiplier rounds to 0 at 2**-{exponent}")
        self.mul, self.add = mul, on_grid(self.raw.add, exponent)

    def forward(self, x: Tensor) -> Tensor:
        shape = (1, -1, *[1] * (x.dim() - 2))
        return x * self.mul.view(shape) + self.add.view(shape)


class SettledCrossing(SettledScale):
    """A scale that only signs read: ``mul`` is +1, -1 or 0, ``add`` minus the place of the zero.

    ``sign(mul * x + add)`` is what it was before, and takes no more bits than ``x``.
    """

    def __init__(self, folded: Folded) -> None:
        constant = torch.where(folded.add >= 0, 1.0, -1.0).double()
        add = torch.where(folded.mul == 0, constant, folded.add / folded.mul.abs())
        super().__init__(Folded(torch.sign(folded.mul), add))

    def limit(self, bound: Tensor) -> None:
        """Move zeros that ``|x| <= bound`` (float64 ``[C]``) does not reach just outside it."""
        most = 2 * bound + 1  # twice: rounding to the grid may still move the bound
        self.raw = Folded(self.raw.mul, self.raw.add.clamp(-most, most))
        self.add = self.raw.add.float()


class GlobalSum(nn.Module):
    """Sum over height and width: ``[N, C, H, W]`` -> ``[N, C, 1, 1]``."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3), keepdim=True)


Rounded = SettledConv | SettledDense | SettledScale | SettledBinaryConv | SettledBinaryLinear
ROUNDED = (SettledConv, SettledDense, SettledScale, SettledBinaryConv, SettledBinaryLinear)
SETTLED = (*ROUNDED, SettledSign, SettledClip, GlobalSum)
