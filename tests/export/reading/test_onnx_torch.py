"""Networks that people write in PyTorch, as its exporter writes them."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from frostbit.export.foreign import compare_file, read_file
from frostbit.kernels.ir.program import BinaryConv


class Where(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x >= 0, 1.0, -1.0)


class Greater(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x > 0).float() * 2 - 1


class ReAct(nn.Module):
    """Approximates the sign's gradient by pieces of a parabola, as ReActNet does."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, middle, right = (x < -1).float(), (x < 0).float(), (x < 1).float()
        first = -left + (x * x + 2 * x) * (1 - left)
        second = first * middle + (-x * x + 2 * x) * (1 - middle)
        soft = second * right + (1 - right)
        return torch.sign(x).detach() - soft.detach() + soft


class BinaryConv2d(nn.Conv2d):
    """Weights of +-c; gradients pass around the sign."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = self.weight.abs().mean((1, 2, 3), keepdim=True)
        clipped = self.weight.clamp(-1, 1)
        weight = (size * torch.sign(self.weight) - clipped).detach() + clipped
        return functional.conv2d(x, weight, None, self.stride, self.padding)


class Block(nn.Module):
    def __init__(self, sign: type[nn.Module], channels: int) -> None:
        super().__init__()
        self.sign, self.norm = sign(), nn.BatchNorm2d(channels)
        self.conv = BinaryConv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(self.sign(x))) + x


def network(sign: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(16), Block(sign, 16),
        nn.MaxPool2d(2), Block(sign, 16), nn.AdaptiveAvgPool2d(2), nn.Flatten(), sign(),
        nn.Linear(64, 10), nn.Softmax(1),
    )  # fmt: skip
    for norm in (each for each in layers.modules() if isinstance(each, nn.BatchNorm2d)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        nn.init.normal_(norm.running_mean)
        nn.init.uniform_(norm.running_var, 0.5, 9)
    return layers.eval()


@pytest.mark.parametrize("sign", [Where, Greater, ReAct])
@pytest.mark.parametrize("batch", ["one", "open"])
def test_residual_network(sign: type[nn.Module], batch: str, tmp_path: Path) -> None:
    path, example = tmp_path / "model.onnx", torch.randn(1, 3, 32, 32)
    axes = {"x": {0: "batch"}} if batch == "open" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        torch.onnx.export(
            network(sign), (example,), path, dynamo=False, input_names=["x"], dynamic_axes=axes
        )
    imported = read_file(path)
    assert len(imported.orders) == 2  # the row that is flattened channels first, and its signs
    layers = [op for op in imported.program.ops if isinstance(op, BinaryConv)]
    assert len(layers) == len(imported.restored) == 2
    images = np.random.default_rng(0).normal(size=(3, 32, 32, 3)).astype(np.float32)
    found = compare_file(path, imported, images)
    assert found.sign_bits == 3 * (16 * 16 * 16 + 8 * 8 * 16 + 64)
    assert found.answers < 1e-5
    assert read_file(path, logits=True).program.ops[-1].name != imported.program.ops[-1].name
