"""Binary modules, the freezer that drives them, and the conversion of ordinary networks."""

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.method.freezer import Freezer
from frostbit.pipeline.method.stompp import METHODS, Schedule
from frostbit.pipeline.network.binary import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    StemConv2d,
    StemLinear,
    binarize,
    maskable,
    number_layers,
    sign,
    unfrozen_layers,
)
from frostbit.pipeline.network.models import Options, Shape, build

SHAPE = Shape((8, 8, 1), 10, (0.3,), (0.35,))
NETS = {"bireal-4": Options(4), "plain-4": Options(4), "mlp-4": Options(12)}
STEPS = 40
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def net(name: str = "plain-4") -> nn.Module:
    torch.manual_seed(0)
    return build(name, SHAPE, NETS[name])


def pixels(count: int = 8, channels: int = 1, size: int = 8) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, channels, size, size), generator=generator).float()


def freezer(model: nn.Module, method: str, refresh: float = 0.05, both: bool = True) -> Freezer:
    layers = 1 + max(m.layer for _, m in maskable(model))
    schedule = Schedule(METHODS[method].order, "linear", layers, STEPS, 0.1, 0.1, 2.0)
    return Freezer(model, METHODS[method], schedule, 5, refresh, both)


def mask_of(module: nn.Module) -> torch.Tensor:
    mask = module.mask
    assert isinstance(mask, torch.Tensor)
    return mask.bool()


def test_sign_of_zero_is_plus_one() -> None:
    x = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 3.0, -3.0])
    assert sign(x).tolist() == [1, 1, 1, -1, 1, -1]


# ---------------------------------------------------------------- forward and gradient


@pytest.mark.parametrize("ste", [False, True])
def test_weights_mix_and_gradients_stop_at_frozen_entries(ste: bool) -> None:
    layer = BinaryLinear(6, 5)
    layer.ste = ste
    mask = (torch.arange(30).view(5, 6) % 3 == 0).float()
    layer.freeze(0.5, mask)
    weight = layer.effective_weight()
    frozen = mask.bool()
    assert torch.equal(weight[frozen], sign(layer.weight.detach())[frozen])
    assert torch.equal(weight[~frozen], layer.weight[~frozen])
    weight.sum().backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad[~frozen], torch.ones(20))
    assert torch.equal(layer.weight.grad[frozen], torch.full((10,), float(ste)))


@pytest.mark.parametrize("ste", [False, True])
def test_activations_mix_and_pass_gradient_inside_the_clip_only(ste: bool) -> None:
    x = torch.tensor([[-2.0, -0.5, 0.0, 0.5, 2.0]] * 2, requires_grad=True)
    activation = BinaryActivation()
    activation.ste = ste
    activation.set_entry_shape((5,))
    activation.freeze(0.5, torch.tensor([0.0, 1, 1, 0, 1]))
    y = activation(x)
    assert y[0].tolist() == [-1, -1, 1, 0.5, 1]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad[0].tolist() == [0, float(ste), float(ste), 1, 0]


@pytest.mark.parametrize("ste", [False, True])
def test_fully_frozen_modules(ste: bool) -> None:
    x = torch.randn(3, 6, requires_grad=True)
    activation, layer = BinaryActivation(), BinaryLinear(6, 5)
    for module in (activation, layer):
        module.ste = ste
        module.freeze(1.0)
    bits = activation(x)
    assert torch.equal(bits, sign(x.detach()))
    assert torch.equal(layer.effective_weight().detach(), sign(layer.weight.detach()))
    assert layer(bits).requires_grad == bits.requires_grad == ste


def test_a_partly_frozen_module_needs_its_mask() -> None:
    with pytest.raises(ValueError, match="needs a mask"):
        BinaryLinear(2, 2).freeze(0.5)


@pytest.mark.parametrize("pad_value", [0, 1])
def test_binary_convolution_pads_with_its_value(pad_value: int) -> None:
    conv = BinaryConv2d(4, 6, (3, 3), (2, 1), (1, 2), groups=2, pad_value=pad_value, bias=True)
    conv.freeze(1.0)
    x = sign(torch.randn(2, 4, 7, 6))
    padded = torch.full((2, 4, 9, 10), float(pad_value))
    padded[:, :, 1:8, 2:8] = x
    expected = F.conv2d(padded, sign(conv.weight.detach()), conv.bias, (2, 1), groups=2)
    assert torch.equal(conv(x), expected)


def test_the_stem_pads_pixels_with_the_zero_point() -> None:
    stem = StemConv2d(3, 4, (3, 3), (2, 2), (1, 2), mean=MEAN, std=STD, bias=True)
    assert stem.zero_point.tolist() == [128, 102, 76]
    x = pixels(2, 3, 6)
    padded = stem.zero_point.float().view(1, 3, 1, 1).expand(2, 3, 8, 10).clone()
    padded[:, :, 1:7, 2:8] = x
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    expected = F.conv2d((padded / 255 - mean) / std, stem.weight, stem.bias, 2)
    torch.testing.assert_close(stem(x), expected)


def test_the_dense_stem_normalises_in_channel_order() -> None:
    stem = StemLinear(12, 5, mean=MEAN, std=STD)
    x = pixels(2, 3, 2)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    expected = ((x / 255 - mean) / std).flatten(1) @ stem.weight.T
    torch.testing.assert_close(stem(x), expected)


# ---------------------------------------------------------------- layers and counting


def test_layers_are_numbered_in_execution_order() -> None:
    layers = {name: m.layer for name, m in maskable(net("plain-4"))}
    assert layers["stem_activation"] == 0
    assert layers["body.0.conv1"] == layers["body.0.activation1"] == 1
    assert layers["body.1.conv2"] == layers["body.1.activation2"] == 4
    layers = {name: m.layer for name, m in maskable(net("bireal-4"))}
    assert layers["body.0.activation"] == 0
    assert layers["body.0.conv"] == layers["body.1.activation"] == 1
    assert layers["body.3.conv"] == 4


def test_numbering_leaves_statistics_and_mode_alone() -> None:
    model = net("plain-4").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert number_layers(model, pixels()) == 5
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_unfrozen_entries_are_counted_and_survive_saving() -> None:
    model = net("plain-4")
    drive = freezer(model, "stompp")
    total = sum(module.entries for _, module in maskable(model))
    assert sum(unfrozen_layers(model).values()) == total
    drive.advance(STEPS // 2)
    counts = unfrozen_layers(model)
    for name, module in maskable(model):
        if module.mask is not None:
            assert counts[name] == int((module.mask == 0).sum())
    loaded = net("plain-4")
    loaded.load_state_dict(model.state_dict())
    assert unfrozen_layers(loaded).keys() == counts.keys()
    drive.advance(STEPS)
    assert unfrozen_layers(model) == {}
    loaded.load_state_dict(model.state_dict())
    assert unfrozen_layers(loaded) == {}


@pytest.mark.parametrize("name", sorted(NETS))
@pytest.mark.parametrize("method", sorted(set(METHODS) - {"float"}))
def test_every_method_ends_exactly_binary(name: str, method: str) -> None:
    model = net(name)
    freezer(model, method).advance(STEPS)
    seen: list[torch.Tensor] = []
    for _, module in maskable(model):
        if isinstance(module, BinaryActivation):
            module.register_forward_hook(lambda m, x, y: seen.append(y))
        else:
            assert set(module.effective_weight().unique().tolist()) == {-1.0, 1.0}
    model.eval()(pixels())
    assert all(set(y.unique().tolist()) <= {-1.0, 1.0} for y in seen)
    assert len(seen) == sum(isinstance(m, BinaryActivation) for _, m in maskable(model))


def test_weights_alone_can_be_binarized() -> None:
    model = net("plain-4")
    freezer(model, "stompp", both=False).advance(STEPS)
    left = unfrozen_layers(model)
    assert left.keys() == {n for n, m in maskable(model) if isinstance(m, BinaryActivation)}


def test_float_freezes_nothing() -> None:
    model = net("plain-4")
    freezer(model, "float").advance(STEPS)
    assert len(unfrozen_layers(model)) == len(dict(maskable(model)))


# ---------------------------------------------------------------- masks over time


@pytest.mark.parametrize("method", ["stompp", "reverse", "global"])
def test_masks_are_the_same_walked_or_resumed(method: str) -> None:
    walked = net("plain-4")
    drive = freezer(walked, method)
    partly = 0
    for step in range(STEPS):
        drive.advance(step)
        resumed = net("plain-4")
        freezer(resumed, method).advance(step)
        for (_, a), (_, b) in zip(maskable(walked), maskable(resumed), strict=True):
            assert a.share == b.share == pytest.approx(float(a.progress))
            assert (a.mask is None) == (b.mask is None)
            if a.mask is not None and b.mask is not None:
                assert torch.equal(a.mask, b.mask)
                partly += 1
    assert partly > STEPS


def test_masks_differ_between_layers_and_follow_the_share() -> None:
    model = build("mlp-4", SHAPE, Options(64))
    drive = freezer(model, "global")
    drive.advance(STEPS // 2)
    masks = [mask_of(m) for _, m in maskable(model) if isinstance(m, BinaryLinear)]
    for mask in masks:
        assert float(mask.float().mean()) == pytest.approx(0.5, abs=0.05)
    for a, b in itertools.combinations(masks, 2):
        assert float((a == b).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_refresh_thaws_and_freezes() -> None:
    model = net("plain-4")
    drive = freezer(model, "global", refresh=0.2)
    drive.advance(18)
    before = {n: mask_of(m) for n, m in maskable(model)}
    drive.advance(19)
    thawed = sum(int((before[n] & ~mask_of(m)).sum()) for n, m in maskable(model))
    assert thawed > 0
    drive = freezer(model, "global", refresh=0.0)
    drive.advance(18)
    before = {n: mask_of(m) for n, m in maskable(model)}
    drive.advance(19)
    assert not any((before[n] & ~mask_of(m)).any() for n, m in maskable(model))


OPTIMIZERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adam": lambda p: torch.optim.Adam(p, lr=0.05),
    "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.1),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.05, momentum=0.9),
}


def walk(model: nn.Module, method: str, optimizer: str) -> int:
    """Train over a whole schedule; returns how many frozen latents moved in their step."""
    drive = freezer(model, method)
    steps = OPTIMIZERS[optimizer](list(model.parameters()))
    x, y = pixels(16), torch.arange(16) % 10
    moved = 0
    weights = [m for _, m in maskable(model) if not isinstance(m, BinaryActivation)]
    for step in range(STEPS):
        drive.advance(step)
        steps.zero_grad(set_to_none=True)
        F.cross_entropy(model(x), y).backward()
        before = [m.weight.detach().clone() for m in weights]
        with drive.holding():
            steps.step()
        for module, old in zip(weights, before, strict=True):
            frozen = torch.full_like(old, module.share >= 1).bool()
            if module.mask is not None:
                frozen = mask_of(module)
            moved += int((frozen & (module.weight.detach() != old)).sum())
            assert float(module.weight.detach().abs().max()) <= 1
    return moved


@pytest.mark.parametrize("optimizer", sorted(OPTIMIZERS))
@pytest.mark.parametrize("method", ["stompp", "global", "reverse"])
def test_frozen_latents_are_held_whatever_the_optimizer(method: str, optimizer: str) -> None:
    assert walk(net("plain-4"), method, optimizer) == 0


def test_with_ste_frozen_latents_move() -> None:
    assert walk(net("plain-4"), "stompp-ste", "sgd") > 1000


def test_a_frozen_front_stops_the_backward_pass() -> None:
    for method, blocked in (("stompp", True), ("stompp-ste", False)):
        model = net("plain-4")
        drive = freezer(model, method)
        drive.advance(STEPS - 8)  # layer 0 to 3 are binary, the last is in transition
        assert next(m.share for _, m in maskable(model)) == 1
        F.cross_entropy(model(pixels()), torch.arange(8)).backward()
        first = model.get_submodule("body.0.conv1").weight
        stem = model.get_submodule("stem").weight
        last = model.get_submodule("body.1.conv2").weight
        assert (first.grad is None) == (stem.grad is None) == blocked
        assert isinstance(last.grad, torch.Tensor)
        assert last.grad.abs().sum() > 0


def test_evaluation_is_deterministic_while_partly_frozen() -> None:
    model = net("bireal-4").eval()
    freezer(model, "stompp").advance(STEPS // 2)
    assert torch.equal(model(pixels()), model(pixels()))


# ---------------------------------------------------------------- conversion


def converted(model: nn.Module, **options: object) -> nn.Module:
    return binarize(model, pixels(2, 3, 32), mean=MEAN, std=STD, **options)  # type: ignore[arg-type]


def test_resnet18_is_converted_by_rule() -> None:
    source = torchvision.models.resnet18(num_classes=7)
    model = converted(source)
    kinds = {name: type(module).__name__ for name, module in model.named_modules()}
    assert kinds["conv1"] == "StemConv2d"
    assert kinds["fc"] == "Linear"
    for stage in (2, 3, 4):
        assert kinds[f"layer{stage}.0.downsample.0"] == "Conv2d"
    convs = [name for name, kind in kinds.items() if kind == "BinaryConv2d"]
    assert len(convs) == 16
    assert sum(kind == "BinaryActivation" for kind in kinds.values()) == 17
    assert max(m.layer for _, m in maskable(model)) == 16
    name = "layer3.1.conv2"
    assert torch.equal(model.get_submodule(name).weight, source.get_submodule(name).weight)
    freezer(model, "stompp").advance(STEPS)
    assert unfrozen_layers(model) == {}
    assert model.eval()(pixels(2, 3, 32)).shape == (2, 7)


class Small(nn.Module):
    """A network whose middle can be exchanged."""

    def __init__(self, middle: nn.Module, act: nn.Module | None = None) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.act = act or nn.ReLU(inplace=True)
        self.middle = middle
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.act(self.first(x))
        return self.last(torch.flatten(self.pool(self.act(self.middle(x))), 1))


def test_a_shared_activation_becomes_one_for_each_place() -> None:
    model = converted(Small(nn.Conv2d(8, 8, 3)))
    activations = [m for m in model.modules() if isinstance(m, BinaryActivation)]
    assert [(m.layer, m.entry_shape) for m in activations] == [(0, (8, 32, 32)), (1, (8, 30, 30))]


def test_latents_are_clipped_and_geometry_is_kept() -> None:
    conv = nn.Conv2d(8, 8, (3, 1), (2, 1), (1, 0), groups=2)
    with torch.no_grad():
        conv.weight.mul_(100)
    made = converted(Small(conv), pad_value=1).get_submodule("middle")
    assert isinstance(made, BinaryConv2d)
    assert (made.stride, made.padding, made.groups, made.pad_value) == ((2, 1), (1, 0), 2, 1)
    assert torch.equal(made.weight, conv.weight.clamp(-1, 1))
    assert made.bias is not None
    assert conv.bias is not None
    assert torch.equal(made.bias, conv.bias)


def test_patterns_keep_layers_in_full_precision() -> None:
    model = converted(Small(nn.Conv2d(8, 8, 3)), keep=["mid*"])
    assert type(model.get_submodule("middle")) is nn.Conv2d


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 6), nn.Linear(6, 6)
        self.last = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(torch.flatten(x, 1)))
        x = self.second(x).relu()
        return self.last(x)


def test_functional_activations_and_a_dense_stem() -> None:
    model = binarize(Functional(), pixels(2, 3, 2), mean=MEAN, std=STD)
    assert isinstance(model.get_submodule("first"), StemLinear)
    assert isinstance(model.get_submodule("second"), BinaryLinear)
    assert sum(isinstance(m, BinaryActivation) for m in model.modules()) == 2


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) if x.sum() > 0 else self.b(x)


class Calling(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(super().forward(x))


class Twice(Small):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.middle(self.act(self.middle(self.act(self.first(x))))))


REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "activation": (lambda: Small(nn.Conv2d(8, 8, 3), nn.SiLU()), "'act': a SiLU"),
    "module": (lambda: Small(nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(2, 8))), "'middle.1'"),
    "padding mode": (lambda: Small(nn.Conv2d(8, 8, 3, 1, 1, padding_mode="reflect")), "'middle'"),
    "padding word": (lambda: Small(nn.Conv2d(8, 8, 2, padding="same")), "'middle': padding='same'"),
    "control flow": (Branching, "cannot trace Branching"),
    "call": (lambda: Calling(nn.Conv2d(8, 8, 3)), "'sigmoid'"),
    "twice": (lambda: Twice(nn.Conv2d(8, 8, 3)), "'middle' is used twice"),
    "one layer": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3072, 2)), "at least two"),
    "no input": (
        lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3)),
        "'1' is the first layer",
    ),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_be_converted_is_named(case: str) -> None:
    make, text = REFUSED[case]
    with pytest.raises(UserError) as refusal:
        converted(make())
    assert text in str(refusal.value)
    assert "\n" not in str(refusal.value)
