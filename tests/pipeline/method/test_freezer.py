"""The freezer against the definition of masks and of what an optimizer may move."""

import pytest
import torch
from torch import nn

from frostbit.pipeline.method.freezer import Freezer
from frostbit.pipeline.method.stompp import METHODS, Schedule, field, limit, refresh_period
from frostbit.pipeline.network.binary import BinaryActivation, BinaryConv2d, BinaryLinear, maskable
from frostbit.pipeline.network.models import Options, Shape, build

STEPS = 40

REFRESH = 0.1


def net(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build(name, Shape((6, 6, 1), 4, (0.5,), (0.3,)), Options(6))


def freezer(model: nn.Module, method: str = "global", seed: int = 5) -> Freezer:
    layers = 1 + max(module.layer for _, module in maskable(model))
    schedule = Schedule(METHODS[method].order, "linear", layers, STEPS, 0.1, 0.1, 2.0)
    return Freezer(model, METHODS[method], schedule, seed, REFRESH)


@pytest.mark.parametrize("name", ["plain-2", "mlp-2"])
@pytest.mark.parametrize("method", ["global", "stompp"])
def test_masks_are_the_field_below_the_share_in_execution_order(name: str, method: str) -> None:
    """Entries are numbered through the network, channels last; masks are 1 where field < limit."""
    model = net(name)
    drive = freezer(model, method)
    modules = sorted((m for _, m in maskable(model)), key=lambda m: m.layer)
    compared = 0
    for step in range(STEPS):
        shares = drive.advance(step)
        start = 0
        for module in modules:
            share, stop = shares[module.layer], start + module.entries
            if 0 < share < 1:
                numbers = field(5, start, stop, step, refresh_period(REFRESH))
                expected = (numbers < limit(share)).float()
                assert module.mask is not None
                moved = module.mask.movedim(-3, -1) if module.mask.dim() > 2 else module.mask
                assert torch.equal(moved.flatten(), expected)
                compared += 1
            else:
                assert module.mask is None
            assert module.share == share
            start = stop
    assert compared > STEPS


def test_another_seed_draws_other_masks() -> None:
    first, second = net("mlp-2"), net("mlp-2")
    freezer(first, seed=1).advance(STEPS // 2)
    freezer(second, seed=2).advance(STEPS // 2)
    pairs = zip(maskable(first), maskable(second), strict=True)
    assert not any(torch.equal(a.mask, b.mask) for (_, a), (_, b) in pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", sorted(METHODS))
def test_gradients_of_frozen_entries_are_as_the_method_says(method: str) -> None:
    model = net("plain-2")
    freezer(model, method)
    assert {module.ste for _, module in maskable(model)} == {METHODS[method].ste}


@pytest.mark.parametrize("method", ["global", "global-ste"])
def test_an_optimizer_moves_what_may_move_and_nothing_leaves_the_unit_interval(method: str) -> None:
    model = net("plain-2")
    drive = freezer(model, method)
    drive.advance(STEPS // 2)
    latents = [m for _, m in maskable(model) if isinstance(m, (BinaryConv2d, BinaryLinear))]
    before = [m.weight.detach().clone() for m in latents]
    with drive.holding(), torch.no_grad():
        for number, module in enumerate(latents):
            module.weight.add_(3.0 * (-1) ** number)
    for number, (module, old) in enumerate(zip(latents, before, strict=True)):
        assert module.mask is not None
        held = (module.mask == 1) & (not METHODS[method].ste)
        expected = torch.where(held, old, torch.tensor(1.0 * (-1) ** number))
        assert torch.equal(module.weight, expected)
        assert 0 < int(held.sum()) < held.numel() or METHODS[method].ste


def test_activations_can_be_left_out() -> None:
    model = net("plain-2")
    layers = 1 + max(module.layer for _, module in maskable(model))
    method = METHODS["ste"]
    schedule = Schedule(method.order, "linear", layers, STEPS)
    Freezer(model, method, schedule, 0, 0.0, activations=False).advance(0)
    for _, module in maskable(model):
        assert module.share == (0 if isinstance(module, BinaryActivation) else 1)
