"""Settling and lowering: the trained module, its settled form and its Program are one network."""

import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from frostbit.export.onnx.runtime import OrtRuntime
from frostbit.export.parity import compare
from frostbit.export.runtimes import EngineRuntime, Runtime
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import program_hash
from frostbit.kernels.ir.program import Dense, Program
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.fold_batchnorm import structure
from frostbit.pipeline.lowering.folded_layers import fold_batchnorm
from frostbit.pipeline.lowering.settle import Settled, reestimate_batchnorm, settle, state_hash
from frostbit.pipeline.lowering.settled_layers import (
    ROUNDED,
    Folded,
    GridError,
    SettledBinaryConv,
    SettledSign,
    on_grid,
    thresholds,
)
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime
from frostbit.pipeline.lowering.to_program import (
    lower,
    lower_with_targets,
    sign_nodes,
    with_numbers,
)
from frostbit.pipeline.network import models
from frostbit.pipeline.network.binary import BinaryConv2d, binarize, maskable, sign

NETS = {
    "bireal": ("bireal-4", models.Options(8, 2), (9, 9, 1)),
    "bireal-sign": ("bireal-2", models.Options(8, 1, final_sign=True), (8, 8, 3)),
    "plain": ("plain-4", models.Options(8, 1), (7, 7, 2)),
    "mlp": ("mlp-2", models.Options(24), (5, 5, 2)),
}


def pixels(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float()


def random_images(shape: tuple[int, int, int], count: int = 64) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), dtype=np.uint8)


def frozen(model: nn.Module) -> nn.Module:
    """``model`` fully frozen, with BatchNorm scales of both signs (and one of exactly 0)."""
    for _, module in maskable(model):
        module.freeze(1.0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            with torch.no_grad():
                module.weight[0] = 0.0
    return model


def made(key: str) -> tuple[nn.Module, np.ndarray]:
    name, options, image = NETS[key]
    torch.manual_seed(0)
    channels = image[2]
    shape = models.Shape(image, 10, (0.3,) * channels, (0.35,) * channels)
    return frozen(models.build(name, shape, options)), random_images(image)


@pytest.fixture(scope="module", params=NETS)
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, Settled, Program, np.ndarray]:
    model, images = made(request.param)
    settled = settle(model, pixels(images))
    height, width, channels = images.shape[1:]
    return model, settled, lower(settled.module, (channels, height, width)), images


def test_the_settled_network_is_proved_exact(case: tuple) -> None:
    _, settled, program, _ = case
    assert settled.report["body_exact"]
    assert analyse(program).head_exact == settled.report["head_exact"]
    assert settled.report["bits_left"] > 0


def test_all_runtimes_agree_bit_for_bit(case: tuple) -> None:
    _, settled, program, images = case
    height, width, channels = program.input_shape
    runtimes: list[Runtime] = [
        TorchRuntime(settled.module, (channels, height, width)),
        EngineRuntime(program),
        OrtRuntime(program),
        OrtRuntime(program, level="disabled"),
    ]
    report = compare(program, runtimes, images, batch=25)
    assert report.promised
    assert report.passed, report.comparisons


def test_float64_evaluation_gives_the_same_bits(case: tuple) -> None:
    _, settled, program, images = case
    with torch.no_grad():
        single = settled.module(pixels(images))
    assert np.allclose(single.numpy(), reference.run(program, images), rtol=1e-5, atol=1e-5)
    if settled.report["head_exact"]:
        assert np.array_equal(single.numpy(), reference.run(program, images))


def test_every_sign_tensor_has_its_torch_node(case: tuple) -> None:
    _, settled, program, _ = case
    height, width, channels = program.input_shape
    nodes = sign_nodes(settled.module, (channels, height, width))
    names = {node.name for node in settled.module.graph.nodes}
    assert nodes
    assert {node for node, _ in nodes.values()} <= names


def test_rounding_moves_the_network_little() -> None:
    """Without any sign behind it the folded stem stays within half a grid step per tap."""
    model, images = made("plain")
    stem = nn.Sequential(model.get_submodule("stem"), model.get_submodule("stem_norm"))
    settled = settle(model, pixels(images), "32")
    exponent = settled.report["grid_exponent"]
    with torch.no_grad():
        before = stem.eval()(pixels(images)).numpy()
        after = settled.module.get_submodule("stem")(pixels(images)).numpy()
    taps = 9 * 2 * 255 + 1
    assert np.abs(before - after).max() <= taps * 2.0 ** -(exponent + 1) + 1e-3
    assert not np.array_equal(before, after)


def test_rounding_the_ops_equals_lowering_again(case: tuple) -> None:
    """Settling lowers once and then changes numbers; the Program is that of a fresh lowering."""
    model, _, program, _ = case
    height, width, channels = program.input_shape
    gm = structure(model, (channels, height, width))
    changed, targets = lower_with_targets(gm, (channels, height, width))
    rounded = {op: gm.get_submodule(target) for op, target in targets.items()}
    rounded = {op: module for op, module in rounded.items() if isinstance(module, ROUNDED)}
    assert set(rounded.values()) == {m for m in gm.modules() if isinstance(m, ROUNDED)}
    for exponent in (20, 9):
        for module in rounded.values():
            module.round_to(exponent)
        ops = [
            with_numbers(op, rounded[op.name]) if op.name in rounded else op for op in changed.ops
        ]
        changed = dataclasses.replace(changed, ops=tuple(ops))
        assert program_hash(changed) == program_hash(lower(gm, (channels, height, width)))


def test_only_a_module_of_its_own_kind_gives_an_op_its_numbers() -> None:
    dense = Dense("head", ("input",), np.ones((2, 3), np.float32), np.ones(2, np.float32))
    with pytest.raises(TypeError, match="op 'head': no numbers of a SettledSign"):
        with_numbers(dense, SettledSign())


def test_batchnorm_is_estimated_as_the_plain_mean_of_whole_batches() -> None:
    norm = nn.BatchNorm2d(2, momentum=0.3)
    norm(torch.randn(4, 2, 3, 3))
    images = torch.randn(11, 2, 3, 3)
    reestimate_batchnorm(norm, images, batch=4)
    parts = images[:8].split(4)  # the last three would count as much as four
    assert torch.allclose(
        norm.running_mean, torch.stack([p.mean((0, 2, 3)) for p in parts]).mean(0)
    )
    variances = torch.stack([p.transpose(0, 1).flatten(1).var(1) for p in parts])
    assert torch.allclose(norm.running_var, variances.mean(0))
    assert norm.momentum == 0.3
    assert not norm.training
    reestimate_batchnorm(norm, images[:3], batch=4)
    assert torch.allclose(norm.running_mean, images[:3].mean((0, 2, 3)), atol=1e-6)


def test_thresholds_agree_with_evaluating_every_accumulator() -> None:
    generator = torch.Generator().manual_seed(0)
    mul = torch.randn(200, generator=generator, dtype=torch.float64) * 0.1
    mul[:3] = 0.0
    add = torch.randn(200, generator=generator, dtype=torch.float64)
    taps = 27
    levels = thresholds(Folded(mul, add), taps)
    acc = torch.arange(-taps, taps + 1, dtype=torch.float64)
    for channel in range(200):
        expected = sign(mul[channel] * acc + add[channel])
        flipped = -acc if mul[channel] < 0 else acc
        got = torch.where(flipped >= levels[channel], 1.0, -1.0)
        assert torch.equal(got, expected.float()), channel


def test_fold_batchnorm_matches_batchnorm() -> None:
    norm = nn.BatchNorm2d(5).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 2.0)
    bias = torch.randn(5)
    shift = Folded(torch.ones(5, dtype=torch.float64), bias.double())
    folded = shift.then(fold_batchnorm(norm, 5))
    x = torch.randn(3, 5, 2, 2)
    with torch.no_grad():
        expected = norm(x + bias.view(1, 5, 1, 1))
    got = x * folded.mul.view(1, 5, 1, 1) + folded.add.view(1, 5, 1, 1)
    assert torch.allclose(got.float(), expected, atol=1e-5)


def test_a_vanishing_multiplier_is_refused() -> None:
    weight = torch.ones(1, 1, 1, 1)
    fold = Folded(torch.tensor([1e-9]).double(), torch.zeros(1).double())
    module = SettledBinaryConv(weight, fold, False, (1, 1), (0, 0, 0, 0), (1, 1), 1, 0)
    with pytest.raises(GridError, match="2\\*\\*-10"):
        module.round_to(10)


def test_where_a_multiplier_vanishes_is_named() -> None:
    model, images = made("bireal")
    name, norm = next(
        (name, m)
        for name, m in reversed(list(model.named_modules()))
        if isinstance(m, nn.BatchNorm2d)
    )
    with torch.no_grad():
        norm.weight.fill_(1e-9)
    binary = name.replace("norm", "conv")
    with pytest.raises(UserError, match=rf"^numerical: '{binary}': a multiplier rounds to 0"):
        settle(model, pixels(images))


def test_on_grid_rounds_to_the_nearest_multiple() -> None:
    values = torch.tensor([0.3, -0.3, 0.5], dtype=torch.float64)
    assert on_grid(values, 2).tolist() == [0.25, -0.25, 0.5]


def test_the_hash_sees_one_changed_weight() -> None:
    model, images = made("mlp")
    settled = settle(model, pixels(images))
    assert state_hash(settled.module) == settled.hash
    next(iter(settled.module.state_dict().values())).view(-1)[0] += 1
    assert state_hash(settled.module) != settled.hash


class Unusual(nn.Module):
    """A user's module with a BatchNorm where no convolution stands before it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3)
        self.act = nn.ReLU()
        self.norm = nn.BatchNorm2d(4)
        self.act2 = nn.ReLU()
        self.conv = nn.Conv2d(4, 4, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.act2(self.norm(self.act(self.first(x)))))
        return self.head(torch.flatten(self.pool(x), 1))


def test_an_unknown_module_is_named() -> None:
    shape = models.Shape((9, 9, 1), 3, (0.5,), (0.5,))
    model = frozen(binarized(Unusual(), shape))
    model.add_submodule("norm", nn.Softsign())
    with pytest.raises(UserError, match="'norm'"):
        structure(model, (1, 9, 9))


def binarized(model: nn.Module, shape: models.Shape) -> nn.Module:
    """``binarize`` with this shape."""
    height, width, channels = shape.image
    example = torch.zeros(2, channels, height, width)
    return binarize(model, example, mean=shape.mean, std=shape.std)


class Residual(nn.Module):
    """A user's ordinary residual network with max-pool and a full-precision downsample."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=True)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu1 = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.conv2 = nn.Conv2d(8, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(16)
        self.downsample = nn.Sequential(nn.Conv2d(8, 16, 1, 2, bias=False), nn.BatchNorm2d(16))
        self.relu3 = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.maxpool(self.relu1(self.bn1(self.conv1(x))))
        y = self.bn3(self.conv3(self.relu2(self.bn2(self.conv2(x)))))
        x = self.relu3(y + self.downsample(x))
        return self.fc(torch.flatten(self.pool(x), 1))


def test_an_ordinary_module_goes_all_the_way() -> None:
    torch.manual_seed(1)
    shape = models.Shape((13, 13, 3), 4, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    model = frozen(binarized(Residual(), shape))
    assert isinstance(model.get_submodule("conv2"), BinaryConv2d)
    assert isinstance(model.get_submodule("downsample.0"), nn.Conv2d)
    images = random_images(shape.image, 40)
    settled = settle(model, pixels(images))
    program = lower(settled.module, (3, 13, 13))
    assert settled.report["head_exact"]
    runtimes = [
        TorchRuntime(settled.module, (3, 13, 13)),
        EngineRuntime(program),
        OrtRuntime(program),
    ]
    report = compare(program, runtimes, images)
    assert report.passed, report.comparisons


def test_a_network_that_was_not_rounded_is_caught() -> None:
    model, images = made("bireal")
    reestimated = settle(model, pixels(images))
    raw = structure(model, (1, 9, 9))
    program = lower(raw, (1, 9, 9))
    assert not analyse(program).body_exact
    assert reestimated.report["body_exact"]
    report = compare(program, [EngineRuntime(program)], images)
    assert not report.promised
    assert dataclasses.asdict(report)["images"] == len(images)
