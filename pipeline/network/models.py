"""Networks for small images, made of the modules of :mod:`frostbit.pipeline.network.binary`.

* ``bireal-N``: the product's nets, N binary convolutions, each with a real shortcut around it, so
  that the stream between them is real (Bi-Real Net, arXiv 1808.00278). Binary convolutions pad
  with +1; halving the map costs no parameters (average pool and channel repeat).
* ``plain-N``: the papers' residual nets, blocks of two binary convolutions whose residual sum is
  binarized again, so that every path crosses every activation. Zero padding.
* ``mlp-N``: the same with N binary dense layers.

Larger ones come from :mod:`frostbit.pipeline.network.zoo`.

Convolutional nets have two stages: half of the layers at ``width`` channels, half at twice the
channels on a map of half the size.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from frostbit.pipeline.errors import UserError, unknown
from frostbit.pipeline.network import zoo
from frostbit.pipeline.network.binary import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    StemConv2d,
    StemLinear,
    number_layers,
)
from frostbit.pipeline.network.channels import ChannelRepeat
from frostbit.pipeline.run.recipe import Recipe

MOST_WEIGHTS = 1 << 30
"""A recipe may come from a stranger: larger ones are refused before memory is taken."""


@dataclass(frozen=True)
class Shape:
    """What a network must know of its data.

    Attributes:
        image: ``(H, W, C)``.
        classes: number of logits.
        mean, std: per channel, of pixels / 255.
    """

    image: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Options:
    """What a recipe chooses of a network; see :class:`frostbit.pipeline.run.recipe.Recipe`."""

    width: int
    stem_stride: int = 1
    final_sign: bool = False
    cifar_stem: bool = False
    keep: tuple[str, ...] = ()


Size = tuple[int, int]
"""Height and width of a map."""


def _halve(size: Size) -> nn.AvgPool2d:
    """Halve a map of ``size``: average of 2x2, or every second pixel where a side is odd.

    A 3x3 convolution with stride 2 and padding 1 gives ceil(side / 2), as both do.
    """
    even = size[0] % 2 == 0 and size[1] % 2 == 0
    return nn.AvgPool2d(2) if even else nn.AvgPool2d(1, stride=2)


def _reduced(size: Size, stride: int) -> Size:
    """The map that a 3x3 convolution with padding 1 leaves."""
    return (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1


def _shortcut(size: Size, channels: int, out: int, stride: int) -> nn.Module:
    steps: list[nn.Module] = [] if stride == 1 else [_halve(size)]
    if out != channels:
        steps.append(ChannelRepeat(out // channels))
    return nn.Sequential(*steps)


class BiRealLayer(nn.Module):
    """sign -> binary convolution -> BatchNorm, plus a real shortcut."""

    def __init__(self, size: Size, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.activation = BinaryActivation()
        self.conv = BinaryConv2d(channels, out, stride=(stride, stride), pad_value=1)
        self.norm = nn.BatchNorm2d(out)
        self.shortcut = _shortcut(size, channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.conv(self.activation(x)))
        z: Tensor = self.shortcut(x)
        return y + z


class PlainBlock(nn.Module):
    """Two binary convolutions around which a +-1 map is added; the sum is binarized."""

    def __init__(self, size: Size, channels: int, out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = BinaryConv2d(channels, out, stride=(stride, stride), pad_value=0)
        self.norm1 = nn.BatchNorm2d(out)
        self.activation1 = BinaryActivation()
        self.conv2 = BinaryConv2d(out, out, pad_value=0)
        self.norm2 = nn.BatchNorm2d(out)
        self.activation2 = BinaryActivation()
        self.shortcut = _shortcut(size, channels, out, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation1(self.norm1(self.conv1(x)))
        out: Tensor = self.activation2(self.norm2(self.conv2(y)) + self.shortcut(x))
        return out


class MlpBlock(nn.Module):
    """:class:`PlainBlock` with dense layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense1 = BinaryLinear(width, width)
        self.norm1 = nn.BatchNorm1d(width)
        self.activation1 = BinaryActivation()
        self.dense2 = BinaryLinear(width, width)
        self.norm2 = nn.BatchNorm1d(width)
        self.activation2 = BinaryActivation()

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation1(self.norm1(self.dense1(x)))
        out: Tensor = self.activation2(self.norm2(self.dense2(y)) + x)
        return out


def _stages(
    units: int, size: Size, width: int, unit: Callable[[Size, int, int, int], nn.Module]
) -> tuple[nn.Sequential, int]:
    """``units`` units, the second half with twice the channels; returns them and the channels."""
    layers: list[nn.Module] = []
    channels = width
    for index in range(units):
        halving = units > 1 and index == units // 2
        out = 2 * channels if halving else channels
        stride = 2 if halving else 1
        layers.append(unit(size, channels, out, stride))
        size, channels = _reduced(size, stride), out
    return nn.Sequential(*layers), channels


def _conv_net(depth: int, shape: Shape, options: Options, plain: bool) -> nn.Sequential:
    height, width, channels = shape.image
    stride = options.stem_stride
    stem = StemConv2d(
        channels, options.width, stride=(stride, stride), mean=shape.mean, std=shape.std
    )
    size = _reduced((height, width), stride)
    if plain:
        body, out = _stages(depth // 2, size, options.width, PlainBlock)
    else:
        body, out = _stages(depth, size, options.width, BiRealLayer)
    net = nn.Sequential()
    net.add_module("stem", stem)
    net.add_module("stem_norm", nn.BatchNorm2d(options.width))
    if plain:
        net.add_module("stem_activation", BinaryActivation())
    net.add_module("body", body)
    if options.final_sign and not plain:
        net.add_module("final_activation", BinaryActivation())
    net.add_module("pool", nn.AdaptiveAvgPool2d(1))
    net.add_module("flatten", nn.Flatten())
    net.add_module("head", nn.Linear(out, shape.classes))
    return net


def bireal(depth: int, shape: Shape, options: Options) -> nn.Module:
    """``bireal-N``: N = ``depth`` binary convolutions with a real shortcut each."""
    return _conv_net(depth, shape, options, plain=False)


def plain(depth: int, shape: Shape, options: Options) -> nn.Module:
    """``plain-N``: N = ``depth`` (even) binary convolutions, residual sums binarized again."""
    return _conv_net(depth, shape, options, plain=True)


def mlp(depth: int, shape: Shape, options: Options) -> nn.Module:
    """``mlp-N``: N = ``depth`` (even) binary dense layers, residual sums binarized again."""
    height, width, channels = shape.image
    net = nn.Sequential()
    pixels = height * width * channels
    net.add_module("stem", StemLinear(pixels, options.width, mean=shape.mean, std=shape.std))
    net.add_module("stem_norm", nn.BatchNorm1d(options.width))
    net.add_module("stem_activation", BinaryActivation())
    net.add_module("body", nn.Sequential(*(MlpBlock(options.width) for _ in range(depth // 2))))
    net.add_module("head", nn.Linear(options.width, shape.classes))
    return net


FAMILIES: dict[str, Callable[[int, Shape, Options], nn.Module]] = {
    "bireal": bireal,
    "plain": plain,
    "mlp": mlp,
}


def parse(name: str) -> tuple[str, int]:
    """``"bireal-8"`` -> ``("bireal", 8)``; UserError with the nearest family otherwise."""
    match = re.fullmatch(r"([a-z]+)-([1-9]\d{0,2})", name)
    if match is None or match[1] not in FAMILIES:
        known = [*(f"{family}-8" for family in FAMILIES), *zoo.NAMES]
        raise unknown("model", name, known)
    depth = int(match[2])
    if match[1] != "bireal" and depth % 2:
        raise UserError(f"model '{name}' has blocks of two layers: use an even number of layers")
    return match[1], depth


def build(name: str, shape: Shape, options: Options) -> nn.Module:
    """Network ``name`` for data of ``shape``: float pixels ``[N, C, H, W]`` -> logits.

    Its layers are numbered (:func:`frostbit.pipeline.network.binary.number_layers`). Initial
    weights come from torch's global generator.

    Raises:
        UserError: for an unknown name or an impossible option.
    """
    if name in zoo.NAMES or ":" in name:
        return zoo.network(
            name,
            shape.image,
            shape.classes,
            shape.mean,
            shape.std,
            cifar_stem=options.cifar_stem,
            keep=options.keep,
        )
    family, depth = parse(name)
    if options.keep:
        raise UserError(f"keep is for torchvision's networks and your own, not for '{name}'")
    if options.width < 1 or options.stem_stride < 1:
        raise UserError("width and stem_stride must be at least 1")
    least = depth * options.width**2 * (1 if family == "mlp" else 9)
    if least > MOST_WEIGHTS:
        raise UserError(
            f"model '{name}' of width {options.width} has more than {MOST_WEIGHTS:,} weights; "
            "make it narrower"
        )
    model = FAMILIES[family](depth, shape, options)
    height, width, channels = shape.image
    number_layers(model, torch.zeros(1, channels, height, width))
    return model


def build_from(recipe: Recipe, dataset: dict[str, Any]) -> nn.Module:
    """The untrained network of ``recipe`` for data described by ``datasets.as_json``."""
    height, width, channels = dataset["image_shape"]
    shape = Shape(
        (height, width, channels),
        len(dataset["classes"]),
        tuple(dataset["mean"]),
        tuple(dataset["std"]),
    )
    options = Options(
        recipe.width,
        recipe.stem_stride,
        recipe.final_sign,
        recipe.cifar_stem,
        tuple(filter(None, (pattern.strip() for pattern in recipe.keep.split(",")))),
    )
    return build(recipe.model, shape, options)
