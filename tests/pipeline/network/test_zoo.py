"""torchvision's networks, ours and a user's own: converted, trained a step, packed, run."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from frostbit.export.lce.runtime import LceRuntime
from frostbit.export.onnx.runtime import OrtRuntime
from frostbit.export.parity import compare
from frostbit.export.runtimes import EngineRuntime
from frostbit.kernels.ir.file import dumps, loads
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.settle import settle
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.method.freezer import Freezer
from frostbit.pipeline.method.stompp import METHODS, Schedule
from frostbit.pipeline.network import zoo
from frostbit.pipeline.network.binary import BinaryActivation, BinaryConv2d, BinaryLinear, maskable
from frostbit.pipeline.network.models import Options, Shape, build, build_from
from frostbit.pipeline.run import recipe
from tests.export.lce.lce_fixture import require_lce

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)
BINARY = {  # convolutions and dense layers but for first, last, downsample, depthwise
    "resnet18": 16, "resnet34": 32, "resnet50": 48, "mobilenet_v2": 34,
    "vgg11_bn": 7, "vgg13_bn": 9, "vgg16_bn": 12, "vgg19_bn": 15,
}  # fmt: skip


def small(name: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    chosen = {"cifar_stem": True, **options}
    return zoo.network(name, (32, 32, 3), 10, MEAN, STD, **chosen)  # type: ignore[arg-type]


def pixels(count: int = 4) -> torch.Tensor:
    torch.manual_seed(1)
    return torch.randint(0, 256, (count, 3, 32, 32)).float()


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "mobilenet_v2", "vgg11_bn"])
def test_networks_train_at_every_share(name: str) -> None:
    model = small(name, cifar_stem=not name.startswith("resnet"))
    layers = 1 + max(module.layer for _, module in maskable(model))
    drive = Freezer(
        model, METHODS["stompp"], Schedule("global", "linear", layers, 100), 0, refresh=0.01
    )
    for step, share in ((0, 0.0), (50, 0.5), (100, 1.0)):
        assert set(drive.advance(step)) == {share}
        model.zero_grad()
        logits = model(pixels())
        assert logits.shape == (4, 10)
        torch.autograd.backward(logits.square().sum())
        head = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
        assert head.weight.grad is not None
        assert head.weight.grad.abs().sum() > 0
        latents = [m.weight.grad for m in model.modules() if isinstance(m, BinaryConv2d)]
        assert all((g is None) == (share == 1) for g in latents)


@pytest.mark.parametrize("name", sorted(BINARY))
def test_what_becomes_binary(name: str) -> None:
    model = small(name)
    weighted = [m for m in model.modules() if isinstance(m, (BinaryConv2d, BinaryLinear))]
    assert len(weighted) == BINARY[name]
    real = {n for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    if name == "mobilenet_v2":
        assert len(real) == 17 + 1  # depthwise, classifier
        assert all(m.groups > 1 for m in model.modules() if isinstance(m, nn.Conv2d))
    elif name.startswith("resnet"):
        assert all("downsample" in n or n == "fc" for n in real)
    else:
        assert real == {"classifier"}


def test_every_binary_layer_of_mobilenet_reads_signs() -> None:
    model = small("mobilenet_v2")
    layers = 1 + max(module.layer for _, module in maskable(model))
    schedule = Schedule("start", "linear", layers, 1)
    Freezer(model, METHODS["ste"], schedule, 0, refresh=0.0).advance(0)
    seen: list[bool] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        seen.append(bool((inputs[0].abs() == 1).all()))

    for module in model.modules():
        if isinstance(module, BinaryConv2d):
            module.register_forward_hook(note)
    model(pixels(2))
    assert len(seen) == 34
    assert all(seen)
    # 35 ReLU6, and one sign for each block's real output, which the next expansion reads
    assert sum(isinstance(m, BinaryActivation) for m in model.modules()) == 35 + 17


def test_recipes_name_them_with_patterns() -> None:
    chosen = recipe.load(
        "digits", {"model": "resnet18", "cifar_stem": True, "keep": "layer1.*, layer4.1.conv2"}
    )
    facts = {"image_shape": [8, 8, 1], "classes": list("abc"), "mean": [0.1], "std": [0.3]}
    model = build_from(chosen, facts)
    names = [n for n, m in model.named_modules() if isinstance(m, BinaryConv2d)]
    assert len(names) == 16 - 4 - 1
    assert "layer4.1.conv2" not in names
    assert model(torch.rand(2, 1, 8, 8)).shape == (2, 3)
    latent = model.get_submodule("layer2.0.conv2").weight
    assert latent.detach().std() == pytest.approx((2 / (128 * 9)) ** 0.5, rel=0.05)
    with pytest.raises(UserError, match="keep is for torchvision"):
        build_from(recipe.load("digits", {"keep": "stem"}), facts)


def frozen(model: nn.Module) -> nn.Module:
    layers = 1 + max(module.layer for _, module in maskable(model))
    schedule = Schedule("start", "linear", layers, 1)
    Freezer(model, METHODS["stompp"], schedule, 0, refresh=0.0).advance(0)
    return model


def runs_everywhere(model: nn.Module, image: tuple[int, int, int] = (3, 32, 32)) -> None:
    """Settle, pack, export; torch, the file's engine, ONNX Runtime and LCE give the same bits."""
    require_lce()
    torch.manual_seed(1)
    images = torch.randint(0, 256, (32, *image)).float()
    settled = settle(frozen(model), images)
    program = loads(dumps(lower(settled.module, image)))
    few = images[:2].permute(0, 2, 3, 1).numpy().astype(np.uint8)
    runtimes = [
        TorchRuntime(settled.module, image),
        EngineRuntime(program),
        OrtRuntime(program),
        OrtRuntime(program, form="int8"),
        LceRuntime(program, "indirect"),
        LceRuntime(program, "default"),
    ]
    report = compare(program, runtimes, few)
    for runtime in runtimes[-2:]:
        runtime.close()
    assert report.promised
    assert report.passed, report.comparisons
    assert all(each.sign_bits_compared >= 100 for each in report.comparisons)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "mobilenet_v2", "vgg11_bn"])
def test_frozen_networks_settle_pack_export_and_run(name: str) -> None:
    """The other VGGs: pipeline/records, by ``python -m tests.figures.parity``."""
    runs_everywhere(small(name, cifar_stem=not name.startswith("resnet")))


@pytest.mark.parametrize("name", ["bireal-4", "plain-4", "mlp-4"])
def test_our_own_networks_settle_pack_export_and_run(name: str) -> None:
    torch.manual_seed(0)
    runs_everywhere(build(name, Shape((12, 12, 3), 10, MEAN, STD), Options(16)), (3, 12, 12))


def test_maps_that_are_not_square_and_one_channel_run_everywhere() -> None:
    torch.manual_seed(0)
    runs_everywhere(
        build("bireal-2", Shape((48, 96, 1), 10, (0.4,), (0.2,)), Options(8)), (1, 48, 96)
    )


# ---------------------------------------------------------------- a user's own

FACTORY = """
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.norm2(self.conv2(x)))
        x = F.adaptive_avg_pool2d(x, 1)
        return self.head(F.dropout(x.view(x.size(0), -1), 0.1, self.training))


def net(num_classes, in_channels):
    return Net(num_classes, in_channels)


def mean(num_classes):
    class Mean(Net):
        def forward(self, x):
            return self.head(F.relu(self.norm2(self.conv2(F.relu(self.conv1(x))))).mean([2, 3]))
    return Mean(num_classes, 3)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm1, self.norm2 = nn.BatchNorm2d(8), nn.BatchNorm2d(8)

    def forward(self, x):
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + x)


def residual(num_classes):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        Block(), nn.AvgPool2d(2), Block(), nn.Flatten(),
        nn.Linear(8 * 3 * 3, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, num_classes),
    )


def text(num_classes):
    return "no network"


def broken(num_classes):
    raise RuntimeError("no weights here")


def odd(num_classes):
    class Odd(Net):
        def forward(self, x):
            return self.head(F.relu(self.conv2(F.relu(self.conv1(x)))).cumsum(1).mean([2, 3]))
    return Odd(num_classes, 3)


number = 3
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module in the current folder."""
    (tmp_path / "my_nets_7.py").write_text(FACTORY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets_7", raising=False)
    return "my_nets_7"


@pytest.mark.parametrize("factory", ["net", "mean"])
def test_a_factory_in_the_current_folder(mine: str, factory: str) -> None:
    model = small(f"{mine}:{factory}")
    assert [n for n, m in model.named_modules() if isinstance(m, BinaryConv2d)] == ["conv2"]
    model.eval()
    assert model(pixels(2)).shape == (2, 10)


def test_a_network_of_ones_own_settles_packs_exports_and_runs(mine: str) -> None:
    torch.manual_seed(0)
    runs_everywhere(zoo.network(f"{mine}:residual", (12, 12, 3), 10, MEAN, STD), (3, 12, 12))


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("text", "returned a str"),
        ("broken", "RuntimeError: no weights here"),
        ("number", "no function 'number'"),
        ("none", "no function 'none'"),
        ("odd", "a call of cumsum"),
    ],
)
def test_a_factory_that_cannot_be_used_is_named(mine: str, factory: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        small(f"{mine}:{factory}")


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UserError, match="cannot import"):
        small("no_such_module_x:net")
    facts = {"image_shape": [8, 8, 1], "classes": ["a", "b"], "mean": [0.1], "std": [0.3]}
    with pytest.raises(UserError, match="did you mean 'resnet18'"):
        build_from(recipe.load("digits", {"model": "resnet-18"}), facts)
    with pytest.raises(UserError, match=r"224x224.*cifar_stem"):
        build_from(recipe.load("digits", {"model": "vgg11_bn"}), facts)
