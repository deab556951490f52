"""``StoMPP``, the freezer of one's own loop, is the freezer of ours."""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import frostbit as fb
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.method.freezer import Freezer
from frostbit.pipeline.method.stompp import METHODS, Schedule
from frostbit.pipeline.network.binary import BinaryActivation, BinaryConv2d, maskable


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Flatten(), nn.Linear(6 * 16, 3),
    )  # fmt: skip
    return fb.binarize(net, torch.zeros(1, 1, 4, 4), mean=[0.5], std=[0.5])


def masks(net: nn.Module) -> list[tuple[float, Tensor | None]]:
    return [(m.share, None if m.mask is None else m.mask.clone()) for _, m in maskable(net)]


def same(one: list[tuple[float, Tensor | None]], other: list[tuple[float, Tensor | None]]) -> bool:
    return all(
        p == q and (a is b is None or (a is not None and b is not None and torch.equal(a, b)))
        for (p, a), (q, b) in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("method", ["stompp", "stompp-ste", "reverse", "global"])
def test_masks_are_those_of_the_freezer(method: str) -> None:
    ours, theirs = network(), network()
    stompp = fb.StoMPP(ours, 40, method=method, seed=7, warmup=0.1, overlap=2)
    schedule = Schedule(METHODS[method].order, "cubic", 3, 40, 0.1, 0.05, 2)
    freezer = Freezer(theirs, METHODS[method], schedule, seed=7, refresh=0.01)
    partly = 0
    for step in range(40):
        assert stompp.advance() == freezer.advance(step)
        assert stompp.step == step
        assert same(masks(ours), masks(theirs))
        partly += sum(mask is not None for _, mask in masks(ours))
    assert partly > 20


def test_a_step_needs_no_history() -> None:
    one, other = network(), network()
    steady, jumping = fb.StoMPP(one, 40, seed=3), fb.StoMPP(other, 40, seed=3)
    for _ in range(25):
        steady.advance()
    jumping.advance(24)
    assert same(masks(one), masks(other))
    assert any(mask is not None for _, mask in masks(one))
    assert steady.advance() == jumping.advance()
    assert same(masks(one), masks(other))


@pytest.mark.parametrize("steps", [1, 7, 40])
@pytest.mark.parametrize("settle", [0.0, 0.05])
def test_after_the_last_step_the_network_is_binary(steps: int, settle: float) -> None:
    net = network()
    freezer = fb.StoMPP(net, steps, settle=settle)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5, momentum=0.9)
    pixels = 255 * torch.rand(8, 1, 4, 4)
    shares = []
    for _ in range(steps):
        shares.append(sum(freezer.advance()))
        optimizer.zero_grad()
        net(pixels).square().sum().backward()
        with freezer.holding():
            optimizer.step()
    assert all(before <= after for before, after in pairwise(shares))
    assert all(module.share == 1 for _, module in maskable(net))
    for _, module in maskable(net):
        if isinstance(module, BinaryConv2d):
            assert module.weight.detach().abs().max() <= 1


def test_holding_puts_frozen_weights_back() -> None:
    net = network()
    freezer = fb.StoMPP(net, 40, seed=1, refresh=0)
    layers = [cast(BinaryConv2d, m) for _, m in maskable(net) if isinstance(m, BinaryConv2d)]
    for step in range(40):
        freezer.advance(step)
        layer = next((each for each in layers if each.mask is not None), None)
        if layer is not None:
            break
    assert layer is not None
    assert layer.mask is not None
    before = layer.weight.detach().clone()
    with freezer.holding(), torch.no_grad():
        layer.weight += 0.25
    moved = layer.weight.detach() != before
    assert torch.equal(moved, layer.mask == 0)


def test_weights_alone() -> None:
    net = network()
    fb.StoMPP(net, 10, activations=False).advance(10)
    for _, module in maskable(net):
        assert module.share == (0 if isinstance(module, BinaryActivation) else 1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"method": "stomp"}, "did you mean 'stompp'"),
        ({"ramp": "sine"}, "unknown ramp 'sine'"),
        ({"refresh": 1.5}, "refresh is 1.5"),
        ({"refresh": float("nan")}, "refresh is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"steps": 0}, "no step to do"),
        ({"warmup": 0.5, "settle": 0.5}, "no time to freeze"),
        ({"overlap": 0.5}, "overlap 0.5"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        fb.StoMPP(network(), **{"steps": 10, **settings})  # type: ignore[arg-type]


def test_other_networks_and_steps_are_refused() -> None:
    with pytest.raises(UserError, match="binarize it first"):
        fb.StoMPP(nn.Linear(2, 2), 10)
    net = network()
    freezer = fb.StoMPP(net, 10)
    with pytest.raises(UserError, match="counted from 0"):
        freezer.advance(-1)
    moved = copy.deepcopy(net).to("meta")
    freezer._net = moved
    with pytest.raises(UserError, match="another device"):
        freezer.advance()
