"""What a stranger may write: converted as it is meant, or refused by name before training."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.binarize import binarize

C = 8
IMAGE = (3, 8, 10)


class Net(nn.Module):
    """stem, one layer, and a tail that is written out: ``tail(self, stem's map, layer's map)``."""

    def __init__(self, tail: Callable[..., Tensor], layer: nn.Module | None = None) -> None:
        super().__init__()
        self.stem, self.stem_norm = nn.Conv2d(3, C, 3, padding=1), nn.BatchNorm2d(C)
        self.act = nn.ReLU()
        self.layer, self.norm = layer or nn.Conv2d(C, C, 3, padding=1), nn.BatchNorm2d(C)
        self.pool, self.flat, self.head = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(C, 4)
        self.shift = nn.Parameter(torch.randn(C, 1, 1))
        self.places = nn.Parameter(torch.randn(C, *IMAGE[1:]))
        self.register_buffer("fixed", torch.randn(C, 1, 1))
        self.tail = tail

    def end(self, x: Tensor) -> Tensor:
        return self.head(self.flat(self.pool(self.act(x))))

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.stem_norm(self.stem(x)))
        return self.tail(self, x, self.norm(self.layer(x)))


def refusal(model: nn.Module, **options: object) -> str:
    with pytest.raises(UserError) as refused:
        binarize(model, torch.zeros(2, *IMAGE), mean=(0.5,) * 3, std=(0.2,) * 3, **options)  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)
    assert ";" in str(refused.value)  # a remedy follows
    return str(refused.value)


def relu_in_place(s: Net, x: Tensor, y: Tensor) -> Tensor:
    z = F.relu(y, inplace=True)
    return s.end(s.act(z) + y)


def added_in_place(s: Net, x: Tensor, y: Tensor) -> Tensor:
    z = y
    z += x
    return s.end(z + y)


def thrown_away(s: Net, x: Tensor, y: Tensor) -> Tensor:
    y.add_(x)
    return s.end(y)


def of_a_view(s: Net, x: Tensor, y: Tensor) -> Tensor:
    y.view(y.size(0), -1).mul_(2)
    return s.end(y)


def without_gradient(s: Net, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        z = y * 2
    return s.end(z)


def sized(s: Net, x: Tensor, y: Tensor) -> Tensor:
    return s.end(y if y.shape[2] > 4 else x)


TAILS: dict[str, tuple[Callable[[Net, Tensor, Tensor], Tensor], str]] = {
    "indices": (
        lambda s, x, y: s.end(F.max_pool2d(y, 2, return_indices=True)[0]),
        "return_indices",
    ),
    "cut": (lambda s, x, y: s.end(F.avg_pool2d(y, 3, ceil_mode=True)), "ceil_mode"),
    "pads": (
        lambda s, x, y: s.end(F.avg_pool2d(y, 3, padding=1, count_include_pad=False)),
        "count_include_pad",
    ),
    "uneven": (lambda s, x, y: s.end(F.adaptive_avg_pool2d(y, 3)), "unequal"),
    "upwards": (lambda s, x, y: s.end(F.adaptive_avg_pool2d(y, 16)), "unequal"),
    "norm pool": (lambda s, x, y: s.end(F.lp_pool2d(y, 2, 2)), "lp_pool2d"),
    "dtype": (lambda s, x, y: s.head(y.mean((2, 3), dtype=torch.float32)), "dtype"),
    "one axis": (lambda s, x, y: s.end(y.mean(1, keepdim=True) + y), "mean over 1"),
    "no axis": (lambda s, x, y: s.end(y) + y.mean(), "'mean'"),
    "variance": (lambda s, x, y: s.head(y.var((2, 3))), "'var'"),
    "out": (lambda s, x, y: s.end(torch.add(x, y, out=x)), "out"),
    "broadcast": (lambda s, x, y: s.end(y + s.pool(y)), "same shape"),
    "gate": (lambda s, x, y: s.end(y * s.pool(y)), "product of two maps"),
    "square": (lambda s, x, y: s.end(y * y), "product of two maps"),
    "power": (lambda s, x, y: s.end(y**2), "a call of pow"),
    "places": (lambda s, x, y: s.end(y + s.places), "one for each channel"),
    "expanded map": (lambda s, x, y: s.end(s.pool(y).expand_as(x) + x), "expand_as of a map"),
    "a dictionary": (lambda s, x, y: {"out": s.end(y)}, "not a dict"),
    "divided": (lambda s, x, y: s.end(y / s.shift), "multiply by a parameter"),
    "floored": (lambda s, x, y: s.end(torch.div(y, 2, rounding_mode="floor")), "rounding_mode"),
    "by a map": (lambda s, x, y: s.end(1 / (y + 5)), "division by a map"),
    "computed": (lambda s, x, y: s.end(y + s.shift * 2), "computes with a parameter"),
    "learnt twice": (lambda s, x, y: s.end(y * s.shift + s.shift), "parameter that is used twice"),
    "random": (lambda s, x, y: s.end(y + torch.rand(1)), "random"),
    "noise": (lambda s, x, y: s.end(y + torch.rand_like(y)), "rand_like"),
    "always dropped": (lambda s, x, y: s.end(F.dropout(y, 0.5)), "training=True"),
    "alpha dropout": (lambda s, x, y: s.end(F.alpha_dropout(y, 0.5, s.training)), "alpha_dropout"),
    "two modes": (lambda s, x, y: s.end(y * 2 if s.training else y), "evaluation"),
    "item": (lambda s, x, y: s.end(y / (1 + y.abs().max().item())), "a call of abs"),
    "wide clamp": (lambda s, x, y: s.end(y.clamp(-2, 2)), "clamp"),
    "wide hardtanh": (lambda s, x, y: s.end(F.hardtanh(y, -2.0, 2.0)), "min_val"),
    "leaky": (lambda s, x, y: s.end(F.leaky_relu(y)), "leaky_relu"),
    "softmax": (lambda s, x, y: F.log_softmax(s.end(y), 1), "return the logits"),
    "chunks": (lambda s, x, y: s.end(y.chunk(2, 1)[0]), "'chunk'"),
    "slices": (lambda s, x, y: s.end(y[:, :, ::2, ::2]), "AvgPool2d(1, stride=2)"),
    "padded": (lambda s, x, y: s.end(F.pad(y, (1, 1, 1, 1))), "padding to the convolution"),
    "transposed": (lambda s, x, y: s.end(y.transpose(2, 3)), "'transpose'"),
    "reordered": (lambda s, x, y: s.end(y.reshape(-1, C, 10, 8)), "makes [8, 10, 8]"),
    "mixed images": (lambda s, x, y: s.head(y.reshape(-1, C))[: x.shape[0]], "mixes the images"),
    "one batch": (lambda s, x, y: s.head(s.pool(y).view(2, C)), "mixes the images"),
    "squeezed batch": (lambda s, x, y: s.end(y.flatten(0, 1).unsqueeze(0)), "mixes the images"),
    "double": (lambda s, x, y: s.head(s.pool(y.double()).float().flatten(1)), "a call of double"),
    "bits": (lambda s, x, y: s.end(y.view(torch.int32).view(torch.float32)), "torch.int32"),
    "detached": (lambda s, x, y: s.end(y.detach()), "'detach'"),
    "no gradient": (without_gradient, "without gradient"),
    "control flow": (lambda s, x, y: s.end(y if y.sum() > 0 else x), "cannot trace Net"),
    "size": (sized, "cannot trace Net"),
    "other sizes": (
        lambda s, x, y: s.head(torch.cat([s.pool(x), s.pool(y).mean(3, keepdim=True)], 2)[:, :, 0]),
        "'cat'",
    ),
    "functional": (lambda s, x, y: s.end(F.conv2d(y, s.layer.weight, None, 1, 1)), "'conv2d'"),
    "batch norm": (
        lambda s, x, y: s.end(F.batch_norm(y, s.norm.running_mean, s.norm.running_var)),
        "'batch_norm'",
    ),
    "relu in place": (relu_in_place, "works in place"),
    "added in place": (added_in_place, "works in place"),
    "thrown away": (thrown_away, "works in place"),
    "of a view": (of_a_view, "works in place"),
    "a tuple": (lambda s, x, y: (s.end(y), y), "one tensor [N, classes]"),
    "a map": (lambda s, x, y: y, "one tensor [N, classes], not [N, 8, 8, 10]"),
    "signs": (lambda s, x, y: s.act(s.end(y)), "out of an activation"),
    "twice": (lambda s, x, y: s.end(s.norm(s.layer(s.act(y)))), "is used twice"),
    "flat shift": (
        lambda s, x, y: s.head(s.pool((y.flatten(1) * s.fixed[0]).view(y.shape))),
        "'mul'",
    ),
    "no flatten": (lambda s, x, y: s.head(y.mean((2, 3), True).transpose(1, 3)), "'transpose'"),
    "unexpected": (lambda s, x, y: s.end(torch.mean(y, (2, 3), True, foo=1)), "foo"),
}


@pytest.mark.parametrize("case", sorted(TAILS))
def test_calls_that_cannot_be_converted_are_named(case: str) -> None:
    tail, text = TAILS[case]
    assert text in refusal(Net(tail))


def plain() -> Net:
    return Net(lambda s, x, y: s.end(y))


class Standardised(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean()
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class Halved(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight / 2, bias)


class Named(nn.Conv2d):
    """A subclass that computes what its base does."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width, 3, padding=1)

    def extra_repr(self) -> str:
        return "ours"


def with_layer(layer: nn.Module) -> Net:
    return Net(lambda s, x, y: s.end(y), layer)


def hooked() -> Net:
    net = plain()
    net.norm.register_forward_hook(lambda module, inputs, output: output * 2)
    return net


def patched() -> Net:
    net = plain()
    net.norm.forward = lambda x: x * 2  # type: ignore[method-assign]
    return net


def tied() -> Net:
    net = Net(lambda s, x, y: s.end(s.other(s.act(y))))
    net.other = nn.Conv2d(C, C, 3, padding=1)
    net.other.weight = net.layer.weight
    return net


def half() -> Net:
    net = plain()
    net.layer.half()
    return net


def no_statistics() -> Net:
    net = plain()
    net.norm = nn.BatchNorm2d(C, track_running_stats=False)
    return net


class Masked(Net):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * mask


class OnImage(Net):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.head(
            F.adaptive_avg_pool2d(x, 1).flatten(1).repeat(1, 3)[:, :C]
        )


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "reflect": (
        lambda: with_layer(nn.Conv2d(C, C, 3, padding=1, padding_mode="reflect")),
        "'layer'",
    ),
    "even same": (lambda: with_layer(nn.Conv2d(C, C, 4, padding="same")), "'layer'"),
    "transposed": (lambda: with_layer(nn.ConvTranspose2d(C, C, 1)), "a ConvTranspose2d"),
    "overridden": (lambda: with_layer(Standardised(C, C, 3, padding=1)), "in 'layer'"),
    "inner method": (lambda: with_layer(Halved(C, C, 3, padding=1)), "in 'layer'"),
    "weight norm": (
        lambda: with_layer(parametrizations.weight_norm(nn.Conv2d(C, C, 3, padding=1))),
        "'layer' has a parametrization",
    ),
    "pruned": (
        lambda: with_layer(prune.random_unstructured(nn.Conv2d(C, C, 3, padding=1), "weight", 0.5)),
        "'layer' has a hook",
    ),
    "hook": (hooked, "'norm' has a hook"),
    "patched": (patched, "'norm' has a forward"),
    "tied": (tied, "shares its weight with 'layer.weight'"),
    "half": (half, "call .float()"),
    "no statistics": (no_statistics, "'norm': BatchNorm2d(track_running_stats=False)"),
    "group norm": (lambda: with_layer(nn.Sequential(Named(C), nn.GroupNorm(2, C))), "BatchNorm2d"),
    "lazy": (lambda: with_layer(nn.LazyConv2d(C, 3, padding=1)), "'layer'"),
    "indices": (
        lambda: with_layer(nn.Sequential(Named(C), nn.MaxPool2d(2, return_indices=True))),
        "return_indices",
    ),
    "two inputs": (lambda: Masked(lambda s, x, y: s.end(y)), "'mask'"),
    "the image again": (lambda: OnImage(lambda s, x, y: s.end(y)), "'"),
    "too small": (lambda: with_layer(nn.Conv2d(C, C, 11)), "'layer': it fails"),
}


@pytest.mark.parametrize("case", sorted(MODELS))
def test_modules_that_cannot_be_converted_are_named(case: str) -> None:
    make, text = MODELS[case]
    assert text in refusal(make())


def test_options_that_cannot_be_are_named() -> None:
    assert "no layer matches 'body.*'; they are stem, layer, head" in refusal(
        plain(), keep=["body.*"]
    )
    assert "pad_value is 2" in refusal(plain(), pad_value=2)


def test_a_network_is_left_as_it_was() -> None:
    net = Net(lambda s, x, y: s.end(F.dropout(y, 0.1, s.training) + torch.ones(C, 1, 1)))
    net.norm.eval()
    names, state = set(vars(net)), copy.deepcopy(net.state_dict())
    modes = {name: module.training for name, module in net.named_modules()}
    kinds = {name: type(module) for name, module in net.named_modules()}
    binarize(net, torch.zeros(2, *IMAGE), mean=(0.5,) * 3, std=(0.2,) * 3)
    assert set(vars(net)) == names
    assert {name: module.training for name, module in net.named_modules()} == modes
    assert {name: type(module) for name, module in net.named_modules()} == kinds
    assert all(torch.equal(value, state[name]) for name, value in net.state_dict().items())


def test_a_subclass_that_computes_the_same_is_converted() -> None:
    made = binarize(with_layer(Named(C)), torch.zeros(2, *IMAGE), mean=(0.5,) * 3, std=(0.2,) * 3)
    assert type(made.get_submodule("layer")).__name__ == "BinaryConv2d"


class Optional(Net):
    def forward(self, x: Tensor, scale: float | None = None, twice: bool = False) -> Tensor:
        x = super().forward(x)
        if scale is not None:
            x = x * scale
        return x * 2 if twice else x


def test_arguments_with_defaults_keep_them() -> None:
    made = binarize(
        Optional(lambda s, x, y: s.end(y)), torch.zeros(2, *IMAGE), mean=(0.5,) * 3, std=(0.2,) * 3
    )
    assert made(torch.zeros(2, *IMAGE)).shape == (2, 4)
    assert not [node for node in made.graph.nodes if "mul" in node.name]
