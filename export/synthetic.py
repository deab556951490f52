"""Standard networks as Programs with seeded random parameters: to check sizes and speeds without
training anything, and without torch.

The binary ResNets have torchvision's structure (He et al., arXiv 1512.03385; stride on a
bottleneck's 3x3 convolution): a full-precision stem, then only signs between layers. A block's
last convolution keeps its number, ``mul * acc + add``, to which the block's input is added, as
+-1 or, where the shape changes, through a full-precision 1x1 convolution; the sum's sign goes on.
At 32x32 the stem is 3x3 with stride 1 and there is no max-pool; at 224x224 it is 7x7 with stride
2, and 3x3 max-pool works on bits. Zero padding.

Parameters are small integers times a power of two, so :mod:`kernels.exact` proves body and head
exact, and scaled so that about half of the bits of every layer are +1. They come from the raw
stream of PCG64, which NumPy keeps the same in all versions: a name and a seed always give the
same Program.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from kernels.program import (
    INPUT,
    Add,
    Affine,
    BinaryConv,
    Conv,
    Dense,
    GlobalSum,
    MaxPool,
    Op,
    Program,
    Sign,
    Threshold,
    ToFloat,
    Window,
)

STEP = 2.0**-12
PIXEL_MEAN = (124, 116, 104)
PIXEL_SPREAD = 74.0  # standard deviation of uniform pixels
POOLED_SHIFT = 1.3  # stem's standard deviations below 0, so that a maximum of nine is balanced


class UnknownNetwork(ValueError):
    """No network of that name; the text gives the nearest one."""


def _window(kernel: int, stride: int) -> Window:
    """Square window with torchvision's padding, (kernel - 1) / 2 on every side."""
    pad = (kernel - 1) // 2
    return Window((kernel, kernel), (stride, stride), (pad, pad, pad, pad))


@dataclass
class _Net:
    """Ops so far, and the source of random parameters; methods return the new value's name."""

    raw: np.random.PCG64
    ops: list[Op] = field(default_factory=list)

    def append(self, op: Op) -> str:
        self.ops.append(op)
        return op.name

    def words(self, *shape: int) -> NDArray[np.uint64]:
        """Random uint64."""
        return np.asarray(self.raw.random_raw(int(np.prod(shape))), np.uint64).reshape(shape)

    def integers(self, low: int, high: int, *shape: int) -> NDArray[np.int64]:
        """Random int64 in [low, high]."""
        return low + (self.words(*shape) % np.uint64(high - low + 1)).astype(np.int64)

    def around(self, size: float, *shape: int) -> NDArray[np.float32]:
        """Multiples of ``STEP``, evenly spread over [-size, size]."""
        most = max(1, round(size / STEP))
        return (self.integers(-most, most, *shape) * STEP).astype(np.float32)

    def stem(self, kernel: int, stride: int, out: int, shift: float) -> str:
        """Convolution of pixels minus their mean, ``shift`` deviations below 0; its signs."""
        weights = self.integers(-8, 8, out, kernel, kernel, len(PIXEL_MEAN))
        pixel = np.array(PIXEL_MEAN, np.uint8)
        spread = PIXEL_SPREAD * np.sqrt((weights**2).sum(axis=(1, 2, 3)))
        added = -(weights * pixel).sum(axis=(1, 2, 3)) - np.round(shift * spread)
        self.append(
            Conv(
                "conv1", (INPUT,), _window(kernel, stride), weights.astype(np.float32),
                added.astype(np.float32), pixel,
            )
        )  # fmt: skip
        return self.append(Sign("sign1", ("conv1",)))

    def binary(
        self, name: str, source: str, window: Window, channels: tuple[int, int], *, last: bool
    ) -> str:
        """Binary convolution of ``channels = (I, O)``; ``last`` keeps the number."""
        inside, out = channels
        taps = window.kernel[0] * window.kernel[1] * inside
        words = self.words(out, *window.kernel, inside // 64)
        epilogue: Affine | Threshold
        if last:
            one = round(1.0 / (np.sqrt(taps) * STEP))
            mul = self.integers(one // 2, one * 3 // 2, out) * STEP
            epilogue = Affine(mul.astype(np.float32), self.around(0.25, out))
        else:
            most = max(1, round(0.4 * taps**0.5))
            epilogue = Threshold(self.integers(-most, most, out).astype(np.int32))
        return self.append(BinaryConv(name, (source,), window, words, inside, 1, 0, epilogue))

    def block(self, name: str, source: str, steps: list[_Step], reshaped: int | None) -> str:
        """Binary convolutions, plus the block's input; ``reshaped`` is a 1x1 shortcut's stride."""
        x, inside = source, steps[0].channels[0]
        for index, step in enumerate(steps, 1):
            is_last = index == len(steps)
            conv = f"{name}.conv{index}"
            x = self.binary(conv, x, step.window, step.channels, last=is_last)
        out = steps[-1].channels[1]
        if reshaped is None:
            shortcut = self.append(ToFloat(f"{name}.shortcut", (source,)))
        else:
            weights = self.around(1.7 * inside**-0.5, out, 1, 1, inside)
            shortcut = self.append(
                Conv(
                    f"{name}.downsample", (source,), _window(1, reshaped), weights,
                    self.around(0.25, out), np.zeros(inside, np.uint8),
                )
            )  # fmt: skip
        total = self.append(Add(f"{name}.add", (x, shortcut)))
        return self.append(Sign(f"{name}.sign", (total,)))

    def head(self, source: str, channels: int, classes: int) -> None:
        """Sum over the map and dense layer."""
        self.append(GlobalSum("sum", (source,)))
        weights, added = self.around(8 * STEP, classes, channels), self.around(0.25, classes)
        self.append(Dense("fc", ("sum",), weights, added))


@dataclass(frozen=True)
class _Step:
    """One binary convolution of a block; ``channels = (I, O)``."""

    window: Window
    channels: tuple[int, int]


def _basic(channels: int, width: int, stride: int) -> list[_Step]:
    return [
        _Step(_window(3, stride), (channels, width)),
        _Step(_window(3, 1), (width, width)),
    ]


def _bottleneck(channels: int, width: int, stride: int) -> list[_Step]:
    return [
        _Step(_window(1, 1), (channels, width)),
        _Step(_window(3, stride), (width, width)),
        _Step(_window(1, 1), (width, 4 * width)),
    ]


def _resnet(
    net: _Net, size: int, classes: int, blocks: tuple[int, ...], kind: Callable[..., list[_Step]]
) -> None:
    """Append a ResNet with ``blocks`` blocks in each of four stages of 64 to 512 channels."""
    if size == 224:
        net.stem(7, 2, 64, POOLED_SHIFT)
        x = net.append(MaxPool("maxpool", ("sign1",), _window(3, 2)))
    else:
        x = net.stem(3, 1, 64, 0.0)
    channels = 64
    for stage, count in enumerate(blocks):
        for index in range(count):
            stride = 2 if stage and not index else 1
            steps = kind(channels, 64 << stage, stride)
            out = steps[-1].channels[1]
            reshaped = stride if stride > 1 or out != channels else None
            x = net.block(f"layer{stage + 1}.{index}", x, steps, reshaped)
            channels = out
    net.head(x, channels, classes)


FAMILIES: dict[str, Callable[[_Net, int, int], None]] = {
    "resnet18": partial(_resnet, blocks=(2, 2, 2, 2), kind=_basic),
    "resnet34": partial(_resnet, blocks=(3, 4, 6, 3), kind=_basic),
    "resnet50": partial(_resnet, blocks=(3, 4, 6, 3), kind=_bottleneck),
}
CLASSES = {32: 10, 224: 1000}
NAMES = tuple(f"{family}@{size}" for family in FAMILIES for size in CLASSES)


def synthetic(name: str, seed: int = 0) -> Program:
    """The network ``name``, one of :data:`NAMES`, for RGB images, with random parameters.

    Args:
        name: ``<family>@<size>``; 32 has 10 classes, 224 has 1000.
        seed: of the parameters, 0 or greater.

    Raises:
        UnknownNetwork: for any other name.
    """
    if name not in NAMES:
        near = difflib.get_close_matches(name.lower(), NAMES, n=1, cutoff=0)[0]
        raise UnknownNetwork(
            f"unknown network '{name}'; did you mean '{near}'? (known: {', '.join(NAMES)})"
        )
    family, size = name.split("@")
    classes = CLASSES[int(size)]
    net = _Net(np.random.PCG64(seed))
    FAMILIES[family](net, int(size), classes)
    labels = tuple(f"class {index}" for index in range(classes))
    return Program((int(size), int(size), 3), tuple(net.ops), "", labels)
