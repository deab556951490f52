"""Standard networks as Programs with seeded random parameters: to check sizes and speeds without
training anything, and without torch.

The binary ResNets have torchvision's structure (He et al., arXiv 1512.03385; stride on a
bottleneck's 3x3 convolution): a full-precision stem, then only signs between layers. A block's
last convolution keeps its number, ``mul * acc + add``, to which the block's input is added, as
+-1 or, where the shape changes, through a full-precision 1x1 convolution; the sum's sign goes on.
At 32x32 the stem is 3x3 with stride 1 and there is no max-pool; at 224x224 it is 7x7 with stride
2, and 3x3 max-pool works on bits. Zero padding.

MobileNetV2 (Sandler et al., arXiv 1801.04381) is what
``frostbit.pipeline.network.binarize.binarize`` makes of torchvision's: depthwise convolutions stay
in full precision, every 1x1 convolution is binary and reads signs, a block's output and its
residual sum are real. At 32x32 the stem and the first strided block keep the size of the map.

VGG-11 (Simonyan and Zisserman, arXiv 1409.1556; torchvision's ``vgg11_bn`` at 32x32, with one dense
layer) has no shortcuts: every binary convolution feeds a threshold, and pools work on bits.

How parameters are drawn: :mod:`frostbit.export.synthetic.builder`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from frostbit.export.errors import UnknownNetwork
from frostbit.export.synthetic.builder import Net, window
from frostbit.kernels.ir.program import Add, Conv, MaxPool, Program, Sign, ToFloat, Window

POOLED_SHIFT = 1.3  # stem's standard deviations below 0, so that a maximum of nine is balanced


@dataclass(frozen=True)
class _Step:
    """One binary convolution of a block; ``channels = (I, O)``."""

    window: Window
    channels: tuple[int, int]


def _basic(channels: int, width: int, stride: int) -> list[_Step]:
    return [
        _Step(window(3, stride), (channels, width)),
        _Step(window(3, 1), (width, width)),
    ]


def _bottleneck(channels: int, width: int, stride: int) -> list[_Step]:
    return [
        _Step(window(1, 1), (channels, width)),
        _Step(window(3, stride), (width, width)),
        _Step(window(1, 1), (width, 4 * width)),
    ]


def _block(net: Net, name: str, source: str, steps: list[_Step], reshaped: int | None) -> str:
    """Binary convolutions, plus the block's input; ``reshaped`` is a 1x1 shortcut's stride."""
    x, inside = source, steps[0].channels[0]
    for index, step in enumerate(steps, 1):
        is_last = index == len(steps)
        conv = f"{name}.conv{index}"
        x = net.binary(conv, x, step.window, step.channels, last=is_last)
    out = steps[-1].channels[1]
    if reshaped is None:
        shortcut = net.append(ToFloat(f"{name}.shortcut", (source,)))
    else:
        weights = net.weights(1.7 * inside**-0.5, out, 1, 1, inside)
        shortcut = net.append(
            Conv(
                f"{name}.downsample", (source,), window(1, reshaped), weights,
                net.around(0.25, out), np.zeros(inside, np.uint8),
            )
        )  # fmt: skip
    total = net.append(Add(f"{name}.add", (x, shortcut)))
    return net.append(Sign(f"{name}.sign", (total,)))


def _resnet(
    net: Net, size: int, classes: int, blocks: tuple[int, ...], kind: Callable[..., list[_Step]]
) -> None:
    """Append a ResNet with ``blocks`` blocks in each of four stages of 64 to 512 channels."""
    if size == 224:
        net.stem(7, 2, 64, POOLED_SHIFT)
        x = net.append(MaxPool("maxpool", ("sign1",), window(3, 2)))
    else:
        x = net.stem(3, 1, 64, 0.0)
    channels = 64
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if stage and not index else 1
            steps = kind(channels, 64 << stage, stride)
            out = steps[-1].channels[1]
            reshaped = stride if stride > 1 or out != channels else None
            x = _block(net, f"layer{stage + 1}.{index}", x, steps, reshaped)
            channels = out
    net.head(x, channels, classes)


MOBILE_STAGES = (  # expansion, channels, blocks, stride: table 2 of the paper
    (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
    (6, 320, 1, 1),
)  # fmt: skip


def _inverted(net: Net, name: str, real: str, bits: str, sizes: tuple[int, int, int, int]) -> str:
    """Inverted residual of ``sizes`` = (channels, expansion, channels out, stride) -> real map.

    ``bits`` are the signs of its input; ``real`` is the input itself, "" for the stem's.
    """
    channels, expansion, out, stride = sizes
    inside = channels * expansion
    x = bits
    if expansion > 1:
        x = net.binary(f"{name}.expand", bits, window(1, 1), (channels, inside), last=False)
    weights = net.weights(0.3, inside, 3, 3, 1)
    depthwise = Conv(
        f"{name}.depthwise", (x,), window(3, stride), weights, net.around(0.25, inside),
        np.zeros(inside, np.uint8), inside,
    )  # fmt: skip
    x = net.append(Sign(f"{name}.sign", (net.append(depthwise),)))
    x = net.binary(f"{name}.project", x, window(1, 1), (inside, out), last=True)
    return net.append(Add(f"{name}.add", (x, real))) if stride == 1 and channels == out else x


def _mobilenet(net: Net, size: int, classes: int) -> None:
    """Append MobileNetV2 of width 1."""
    first_stride = 2 if size == 224 else 1
    bits, real, channels = net.stem(3, first_stride, 32, 0.0), "", 32
    for stage, (expansion, out, count, stride) in enumerate(MOBILE_STAGES, 1):
        for index in range(count):
            name = f"stage{stage}.{index}"
            step = stride if index == 0 and (stage != 2 or size == 224) else 1
            real = _inverted(net, name, real, bits, (channels, expansion, out, step))
            bits, channels = net.append(Sign(f"{name}.out", (real,))), out
    x = net.binary("last", bits, window(1, 1), (channels, 1280), last=False)
    net.head(x, 1280, classes)


VGG11 = ((64,), (128,), (256, 256), (512, 512), (512, 512))


def _vgg(net: Net, size: int, classes: int) -> None:
    """Append VGG-11: stages of convolutions, each of which ends in a 2x2 max-pool."""
    x, channels = net.stem(3, 1, VGG11[0][0], 0.0), VGG11[0][0]
    for stage, widths in enumerate(VGG11, 1):
        for index, out in enumerate(widths):
            if stage > 1:
                x = net.binary(f"conv{stage}.{index}", x, window(3, 1), (channels, out), last=False)
            channels = out
        x = net.append(MaxPool(f"pool{stage}", (x,), Window((2, 2), (2, 2))))
    net.head(x, channels, classes)


FAMILIES: dict[str, Callable[[Net, int, int], None]] = {
    "resnet18": partial(_resnet, blocks=(2, 2, 2, 2), kind=_basic),
    "resnet34": partial(_resnet, blocks=(3, 4, 6, 3), kind=_basic),
    "resnet50": partial(_resnet, blocks=(3, 4, 6, 3), kind=_bottleneck),
    "mobilenet_v2": _mobilenet,
    "vgg11_bn": _vgg,
}
CLASSES = {32: 10, 224: 1000}
SMALL_ONLY = ("vgg11_bn",)
NAMES = tuple(
    f"{family}@{size}"
    for family in FAMILIES
    for size in CLASSES
    if size == min(CLASSES) or family not in SMALL_ONLY
)


def synthetic(name: str, seed: int = 0) -> Program:
    """The network ``name``, one of :data:`NAMES`, for RGB images, with random parameters.

    Args:
        name: ``<family>@<size>``; 32 has 10 classes, 224 has 1000.
        seed: of the parameters, 0 or greater.

    Raises:
        UnknownNetwork: for any other name.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UnknownNetwork(f"unknown network '{name}'{hint} (known: {', '.join(NAMES)})")
    family, size = name.split("@")
    classes = CLASSES[int(size)]
    net = Net(np.random.PCG64(seed))
    FAMILIES[family](net, int(size), classes)
    labels = tuple(f"class {index}" for index in range(classes))
    return Program((int(size), int(size), 3), tuple(net.ops), "", labels)
