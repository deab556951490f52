"""Random networks as people write them, out of the table of what can be converted.

Hypothesis draws the structure (residual, pre-activation, joined, pooled, shifted; several heads)
and, for every step, one of the ways to write it, arguments included.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

Step = Callable[["Drawn", Tensor], Tensor]
Draw = Callable[[st.SearchStrategy], object]

CLASSES = 4


class Drawn(nn.Module):
    """A network of drawn steps.

    Attributes:
        steps: called one after the other.
        clips: activations are clip(x, -1, 1), as in the binary network before it freezes.
        text: what each step does, for reports.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.text: list[str] = []
        self.clips = False

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(self, x)
        return x


@dataclass
class Writer:
    """Builds one network step by step, watching the shape of the map."""

    draw: Callable[[st.SearchStrategy], object]
    net: Drawn
    shape: tuple[int, ...]
    count: int = 0

    def pick(self, *choices: object) -> object:
        return self.draw(st.sampled_from(choices))

    def module(self, module: nn.Module) -> str:
        name = f"m{self.count}"
        self.count += 1
        self.net.add_module(name, module)
        return name

    def parameter(self, shape: tuple[int, ...], learnt: bool) -> str:
        name = f"p{self.count}"
        self.count += 1
        value = torch.empty(shape).uniform_(-1.5, 1.5)
        if learnt:
            self.net.register_parameter(name, nn.Parameter(value))
        else:
            self.net.register_buffer(name, value)
        return name

    def tried(self, step: Step) -> tuple[int, ...]:
        """The shape that ``step`` gives; the step is not kept."""
        with torch.no_grad():
            self.net.eval()
            return tuple(step(self.net, torch.zeros(2, *self.shape)).shape[1:])

    def add(self, step: Step, text: str) -> None:
        self.shape = self.tried(step)
        self.net.steps.append(step)
        self.net.text.append(f"{text} -> {list(self.shape)}")

    def call(self, module: nn.Module) -> Step:
        name = self.module(module)
        return lambda net, x: getattr(net, name)(x)

    # ------------------------------------------------------------ steps

    def activation(self) -> Step:
        kind = self.pick(
            "module", "F", "method", "torch", "hardtanh", "clamp", "prelu", "relu6", "in"
        )
        if kind == "module":
            name = self.module(nn.ReLU())
            return lambda net, x: F.hardtanh(x) if net.clips else getattr(net, name)(x)
        if kind == "prelu":
            name = self.module(nn.PReLU())
            return lambda net, x: F.hardtanh(x) if net.clips else getattr(net, name)(x)
        if kind == "hardtanh":
            return self.call(nn.Hardtanh())
        calls: dict[object, Callable[[Tensor], Tensor]] = {
            "F": F.relu,
            "method": lambda x: x.relu(),
            "torch": torch.relu,
            "clamp": lambda x: x.clamp(min=0),
            "relu6": F.relu6,
            "in": lambda x: F.relu(x.clone(), inplace=True),
        }
        call = calls[kind]
        return lambda net, x: F.hardtanh(x) if net.clips else call(x)

    def conv(self, channels: int | None = None, same: bool = False) -> tuple[Step, str]:
        """A convolution; with ``same`` it keeps height and width."""
        inside, height, width = self.shape
        out = channels or inside * int(self.pick(1, 1, 2))
        kernel = self.pick((3, 3), (3, 3), (1, 1), (5, 3), (1, 3))
        dilation = self.pick(1, 1, (1, 2)) if min(height, width) > 5 else 1
        steps = (dilation, dilation) if isinstance(dilation, int) else dilation
        reach = [d * (k - 1) for d, k in zip(steps, kernel, strict=True)]
        if same:
            padding: object = self.pick("same", (reach[0] // 2, reach[1] // 2))
            stride: object = 1
        else:
            padding = self.pick(0, (reach[0] // 2, reach[1] // 2), 1, "valid")
            stride = 1 if padding in ("same",) else self.pick(1, 1, 2, (2, 1))
        groups = self.pick(1, 1, 1, 2, inside)
        if inside % int(groups) or out % int(groups):
            groups = 1
        conv = nn.Conv2d(
            inside,
            out,
            kernel,
            stride,
            padding,
            dilation,
            int(groups),
            bool(self.pick(True, False)),
        )
        padded = (0, 0) if isinstance(padding, str) else padding
        padded = (padded, padded) if isinstance(padded, int) else padded
        if not same and any(
            size + 2 * p <= r for size, p, r in zip((height, width), padded, reach, strict=True)
        ):
            return self.conv(channels, same=True)
        return self.call(conv), str(conv)

    def norm(self, channels: int) -> Step:
        return self.call(nn.BatchNorm2d(channels, affine=bool(self.pick(True, True, False))))

    def pool(self) -> tuple[Step, str] | None:
        """A pool that fits the map, one of many ways to write it."""
        _, height, width = self.shape
        most = min(height, width)
        if most < 2:
            return None
        kernel = self.pick(2, 2, 3, (2, 1), (1, 2)) if most > 2 else self.pick(2, (1, 2))
        stride = self.pick(None, 1, 2)
        small = kernel if isinstance(kernel, int) else min(kernel)
        padding = self.pick(0, 1) if small > 2 or (small == 2 and most > 2) else 0
        kind = self.pick("max", "max", "avg", "avg", "adaptive", "rows")
        if kind == "max":
            dilation = self.pick(1, 2) if most > 4 and padding == 0 else 1
            ceil = bool(self.pick(True, False))
            options = {
                "stride": stride,
                "padding": padding,
                "dilation": dilation,
                "ceil_mode": ceil,
            }
            if self.pick(True, False):
                return self.call(nn.MaxPool2d(kernel, **options)), f"MaxPool2d {kernel} {options}"
            if self.pick(True, False):
                return lambda net, x: F.max_pool2d(x, kernel, **options), f"max {kernel} {options}"
            places = (stride or kernel, padding, dilation, ceil)
            return lambda net, x: torch.max_pool2d(x, kernel, *places), f"max {kernel} {places}"
        if kind == "avg":
            divisor = self.pick(None, None, 3)
            places = (stride, padding, False, True, divisor)
            if self.pick(True, False):
                return self.call(nn.AvgPool2d(kernel, *places)), f"AvgPool2d {kernel} {places}"
            return lambda net, x: F.avg_pool2d(x, kernel, *places), f"avg {kernel} {places}"
        if kind == "rows":
            axis = self.pick(2, 3, -1)
            pooled = self.pick(torch.mean, torch.amax, torch.sum)
            return lambda net, x: pooled(x, axis, True), f"{pooled.__name__} over {axis}"
        sizes = [(r, c) for r in range(1, height + 1) for c in range(1, width + 1)
                 if height % r == 0 and width % c == 0]  # fmt: skip
        size = self.pick(*sizes)
        made = self.pick(nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)(size)
        if self.pick(True, False):
            return self.call(made), str(made)
        call = (
            F.adaptive_avg_pool2d
            if isinstance(made, nn.AdaptiveAvgPool2d)
            else F.adaptive_max_pool2d
        )
        return lambda net, x: call(x, size), f"{call.__name__} {size}"

    def shift(self) -> tuple[Step, str]:
        """A factor or an addend for each channel, or for all."""
        shape = self.pick((), (self.shape[0], 1, 1), (1, self.shape[0], 1, 1), (1,))
        name = self.parameter(shape, bool(self.pick(True, False)))
        number = self.pick(0.5, 1.0, -2, 3)
        ways: dict[str, Step] = {
            "x + p": lambda net, x: x + getattr(net, name),
            "p + x": lambda net, x: getattr(net, name) + x,
            "x - p": lambda net, x: x - getattr(net, name),
            "p - x": lambda net, x: getattr(net, name) - x,
            "x * p": lambda net, x: x * getattr(net, name),
            "expanded": lambda net, x: x + getattr(net, name).expand_as(x),
            "add(alpha)": lambda net, x: torch.add(x, getattr(net, name), alpha=number),
            "x + n": lambda net, x: x + number,
            "n - x": lambda net, x: number - x,
            "x * n": lambda net, x: x.mul(number),
            "x / n": lambda net, x: x / number,
            "-x": lambda net, x: -x,
        }
        chosen = self.pick(*ways)
        return ways[chosen], f"{chosen}, p {shape}, n {number}"

    def merge(self) -> tuple[Callable[[Tensor, Tensor], Tensor], str]:
        """One way to add two maps."""
        factor = self.pick(1, 0.25, -1)
        ways: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
            "+": operator.add,
            "+=": operator.iadd,
            "torch.add": torch.add,
            ".add": lambda a, b: a.add(b),
            ".add_": lambda a, b: a.add_(b),
            "alpha": lambda a, b: torch.add(a, b, alpha=factor),
            ".add alpha": lambda a, b: a.add(b, alpha=factor),
            "-": operator.sub,
            "torch.sub": lambda a, b: torch.sub(a, b, alpha=factor),
            "scaled": lambda a, b: a + 0.5 * b,
        }
        chosen = self.pick(*ways)
        return ways[chosen], f"{chosen} ({factor})"

    # ------------------------------------------------------------ blocks

    def branch(self, make: Callable[[], None]) -> Step:
        """The steps that ``make`` adds, as one step; the network is left as it was."""
        kept, text, shape = self.net.steps, self.net.text, self.shape
        self.net.steps, self.net.text = [], ["("]
        make()
        steps = self.net.steps
        self.net.steps, self.net.text, self.shape = kept, [*text, *self.net.text, ")"], shape

        def run(net: Drawn, x: Tensor) -> Tensor:
            for step in steps:
                x = step(net, x)
            return x

        return run

    def layer(self, channels: int | None = None, same: bool = False) -> None:
        """A convolution with BatchNorm, activation and more, in one of several orders."""
        orders = [
            "conv norm act", "conv norm act", "conv act", "norm act conv", "conv norm", "conv",
            "conv shift act", "act conv norm", "norm shift act conv", "conv norm drop act",
            "conv norm shift act", "act norm conv",
        ]  # fmt: skip
        if not same:
            orders += ["conv pool norm act", "conv norm act pool", "pool norm act conv"]
        for part in str(self.pick(*orders)).split():
            self.part(part, channels, same)

    def part(self, part: str, channels: int | None = None, same: bool = False) -> None:
        if part == "conv":
            self.add(*self.conv(channels, same))
        elif part == "norm":
            self.add(self.norm(self.shape[0]), "BatchNorm2d")
        elif part == "act":
            self.add(self.activation(), "activation")
        elif part == "shift":
            self.add(*self.shift())
        elif part == "drop":
            self.add(self.dropout(), "dropout")
        elif pool := self.pool():
            self.add(*pool)

    def dropout(self) -> Step:
        kind = self.pick("module", "2d", "F", "off")
        if kind == "F":
            return lambda net, x: F.dropout(x, 0.2, net.training)
        if kind == "off":
            return lambda net, x: F.dropout(x, 0.2, training=False)
        return self.call(nn.Dropout(0.1) if kind == "module" else nn.Dropout2d(0.1))

    def residual(self) -> None:
        """A branch and a shortcut, added or joined."""
        channels = self.shape[0]
        joined = bool(self.pick(False, False, True))
        out = int(self.pick(channels, 2 * channels))
        count = int(self.pick(1, 2))

        def main() -> None:
            for index in range(count):
                self.layer(out if index == count - 1 else channels, same=True)
            if self.shape[0] != out:
                self.add(*self.conv(out, same=True))

        def short() -> None:
            self.add(
                self.call(nn.Conv2d(channels, out, 1, bias=bool(self.pick(True, False)))), "1x1"
            )
            if self.pick(True, False):
                self.part("norm")

        first = self.branch(main)
        second = self.branch(short) if out != channels and not joined else None
        if joined:
            join = self.pick(torch.cat, torch.concat)
            axis = int(self.pick(1, -3))
            if self.pick(True, False):
                self.add(lambda net, x: join([x, first(net, x)], dim=axis), "cat(x, branch)")
            else:
                self.add(lambda net, x: join((first(net, x), x, x), axis), "cat(branch, x, x)")
            return
        merge, text = self.merge()
        other: Step = second if second is not None else lambda net, x: x
        if text.startswith((".add_", "+=")) or self.pick(True, False):
            self.add(lambda net, x: merge(first(net, x), other(net, x)), f"branch {text} shortcut")
        else:
            self.add(lambda net, x: merge(other(net, x), first(net, x)), f"shortcut {text} branch")

    def repeat(self) -> None:
        self.add(lambda net, x: torch.cat((x, x), 1), "cat(x, x)")

    def block(self) -> None:
        kind = self.pick("layer", "layer", "residual", "residual", "part", "repeat")
        if kind == "layer":
            self.layer()
        elif kind == "residual":
            self.residual()
        elif kind == "repeat" and self.shape[0] < 12:
            self.repeat()
        else:
            self.part(str(self.pick("act", "pool", "shift", "drop", "norm")))

    # ------------------------------------------------------------ heads

    def pooled(self) -> Step:
        """The global pool, to [N, C, 1, 1]."""
        return self.pick(
            self.call(nn.AdaptiveAvgPool2d(1)),
            lambda net, x: F.adaptive_avg_pool2d(x, (1, 1)),
            lambda net, x: x.mean((2, 3), True),
            lambda net, x: x.mean(dim=[-1, -2], keepdim=True),
            lambda net, x: F.avg_pool2d(x, x.size()[2:]),
            lambda net, x: F.avg_pool2d(x, kernel_size=(x.shape[2], x.shape[3])),
            lambda net, x: torch.amax(x, (2, 3), keepdim=True),
            lambda net, x: x.sum(dim=(2, 3), keepdim=True),
            lambda net, x: x.mean(3, keepdim=True).mean(2, keepdim=True),
        )

    def flat(self) -> Step:
        """A map to [N, features]."""
        return self.pick(
            self.call(nn.Flatten()),
            lambda net, x: torch.flatten(x, 1),
            lambda net, x: x.flatten(1),
            lambda net, x: x.flatten(start_dim=1),
            lambda net, x: x.view(x.size(0), -1),
            lambda net, x: x.reshape(x.shape[0], -1),
            lambda net, x: x.reshape(-1, x.size(1) * x.size(2) * x.size(3)),
        )

    def vector(self) -> Step:
        """The global pool and flattening at once."""
        return self.pick(
            lambda net, x: x.mean((2, 3)),
            lambda net, x: torch.mean(x, dim=[2, 3]),
            lambda net, x: x.mean(3).mean(2),
            lambda net, x: x.flatten(2).mean(-1),
            lambda net, x: x.view(x.size(0), x.size(1), -1).mean(dim=2),
            lambda net, x: x.amax(dim=(2, 3)),
            lambda net, x: F.adaptive_avg_pool2d(x, 1).squeeze(-1).squeeze(-1),
            lambda net, x: F.adaptive_avg_pool2d(x, 1).squeeze((2, 3)),
        )

    def dense(self, out: int) -> None:
        self.add(
            self.call(nn.Linear(self.shape[0], out, bias=bool(self.pick(True, False)))), "Linear"
        )

    def hidden(self) -> None:
        """A hidden dense layer on a vector."""
        self.dense(int(self.pick(5, 8)))
        if self.pick(True, False):
            self.add(self.call(nn.BatchNorm1d(self.shape[0])), "BatchNorm1d")
        if self.pick(True, False):
            self.add(self.activation(), "activation")

    def head(self) -> None:
        kind = self.pick("pool", "vector", "flat", "conv", "conv first", "conv 3x3 first")
        if kind in ("conv first", "conv 3x3 first"):
            size = 3 if kind == "conv 3x3 first" else 1
            conv = nn.Conv2d(self.shape[0], CLASSES, size, padding=size // 2)
            self.add(self.call(conv), f"{size}x{size} head")
            if self.pick(True, False):
                self.part("norm")
        if kind in ("pool", "conv", "conv first", "conv 3x3 first"):
            self.add(self.pooled(), "global pool")
        if kind == "conv":
            if self.pick(True, False):
                self.part(str(self.pick("act", "norm", "drop", "shift")))
            self.add(self.call(nn.Conv2d(self.shape[0], CLASSES, 1)), "1x1 head")
        if len(self.shape) == 3 and kind != "vector":
            self.add(self.flat(), "flatten")
        if kind == "vector":
            self.add(self.vector(), "vector")
        if kind in ("pool", "vector", "flat"):
            if self.pick(True, False, False):
                self.hidden()
            if self.pick(True, False, False):
                self.add(self.dropout_1d(), "dropout")
            self.dense(CLASSES)
        if self.pick(True, False, False, False):
            self.add(lambda net, x: x * 0.5, "x * 0.5")

    def dropout_1d(self) -> Step:
        return self.pick(self.call(nn.Dropout(0.2)), lambda net, x: F.dropout(x, 0.5, net.training))


@st.composite
def networks(draw: Callable[[st.SearchStrategy], object]) -> tuple[Drawn, tuple[int, int, int]]:
    """A network and the shape (C, H, W) of its images."""
    channels, height, width = (draw(st.integers(*span)) for span in ((1, 3), (5, 12), (5, 12)))
    torch.manual_seed(int(draw(st.integers(0, 1000))))
    net = Drawn()
    writer = Writer(draw, net, (channels, height, width))
    if draw(st.integers(0, 9)) == 0:
        writer.add(writer.flat(), "flatten")
        writer.hidden()
        writer.hidden()
        writer.dense(CLASSES)
        return net, (channels, height, width)
    stem = nn.Conv2d(channels, draw(st.integers(2, 8)), 3, draw(st.sampled_from([1, 1, 2])), 1)
    writer.add(writer.call(stem), str(stem))
    for _ in range(draw(st.integers(1, 4))):
        writer.block()
    if not any(isinstance(m, (nn.Conv2d, nn.Linear)) for m in net.modules() if m is not stem):
        writer.layer()
    writer.head()
    return net, (channels, height, width)
