"""What one trained layer becomes, given all that its result is scaled by."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering import settled_layers as st
from frostbit.pipeline.network.binary import (
    BinaryConv2d,
    BinaryLinear,
    StemConv2d,
    StemLinear,
    sign,
)
from frostbit.pipeline.network.channels import ChannelAffine

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


def fold_batchnorm(norm: nn.Module, channels: int) -> st.Folded:
    """BatchNorm in evaluation mode, or a :class:`ChannelAffine`, as ``mul * x + add``, float64."""
    if isinstance(norm, ChannelAffine):
        return st.Folded(*norm.folded(channels))
    if not isinstance(norm, BATCH_NORMS) or norm.running_mean is None or norm.running_var is None:
        raise UserError(f"a {type(norm).__name__} without running statistics cannot be packed")
    gamma = torch.ones(channels) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros(channels) if norm.bias is None else norm.bias.detach()
    mul = gamma.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return st.Folded(mul, beta.double() - norm.running_mean.double() * mul)


def pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise UserError(f"{value} is no pair of whole numbers")


def _symmetric(padding: object) -> tuple[int, int, int, int]:
    return (*pair(padding), *pair(padding))


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """``values`` ``[O]``, shaped to scale the rows of ``like`` ``[O, ...]``."""
    return values.view(-1, *[1] * (like.dim() - 1))


def folded_stem(module: StemConv2d | StemLinear, fold: st.Folded) -> nn.Module:
    """Fold ``(x / 255 - mean) / std``, the convolution and BatchNorm into pixel-space weights."""
    weight = module.weight.detach().double()
    mean, std = module.mean.double(), module.std.double()
    scaled = weight * _rows(fold.mul, weight)
    if isinstance(module, StemLinear):
        per_input = weight.shape[1] // len(mean)
        mean, std = mean.repeat_interleave(per_input), std.repeat_interleave(per_input)
        return st.SettledDense(scaled / (255 * std), fold.add - (scaled * (mean / std)).sum(1))
    shape = (1, -1, 1, 1)
    offset = (scaled * (mean / std).view(shape)).sum(dim=(1, 2, 3))
    return st.SettledConv(
        scaled / (255 * std).view(shape),
        fold.add - offset,
        module.zero_point.detach(),
        pair(module.stride),
        _symmetric(module.padding),
        (1, 1),
    )


def folded_binary(module: BinaryConv2d | BinaryLinear, fold: st.Folded, to_bits: bool) -> nn.Module:
    weight = sign(module.weight.detach())
    if isinstance(module, BinaryLinear):
        return st.SettledBinaryLinear(weight, fold, to_bits)
    return st.SettledBinaryConv(
        weight,
        fold,
        to_bits,
        pair(module.stride),
        _symmetric(module.padding),
        pair(module.dilation),
        module.groups,
        int(module.pad_value),
    )


def folded_conv(conv: nn.Conv2d, fold: st.Folded) -> st.SettledConv:
    """A convolution that stayed full precision (downsample, head), on +-1 or real maps."""
    weight = conv.weight.detach().double() * _rows(fold.mul, conv.weight)
    return st.SettledConv(
        weight,
        fold.add,
        torch.zeros(conv.in_channels),
        pair(conv.stride),
        _symmetric(conv.padding),
        pair(conv.dilation),
        conv.groups,
    )


def folded_dense(dense: nn.Linear, fold: st.Folded) -> st.SettledDense:
    """A dense layer that stayed full precision: the head."""
    weight = dense.weight.detach().double() * _rows(fold.mul, dense.weight)
    return st.SettledDense(weight, fold.add)


def windowed_sum(pool: nn.AvgPool2d, channels: int) -> st.SettledConv:
    """The sums of an average pool, as a convolution of every channel with ones."""
    kernel = pair(pool.kernel_size)
    return st.SettledConv(
        torch.ones(channels, 1, *kernel),
        torch.zeros(channels),
        torch.zeros(channels),
        pair(pool.stride),
        _symmetric(pool.padding),
        (1, 1),
        channels,
    )
