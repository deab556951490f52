"""The search for the grid of a settled network, against trying every exponent by brute force."""

import pytest
import torch
from torch import nn

from frostbit.kernels.ir.exact import analyse
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.fold_batchnorm import structure
from frostbit.pipeline.lowering.settle import head_of, reestimate_batchnorm, settle
from frostbit.pipeline.lowering.settled_layers import ROUNDED, GridError
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.network import models
from frostbit.pipeline.network.binary import maskable

SHAPE = (1, 6, 6)
EXPONENTS = range(30, -5, -1)


def network(kind: str, body: float = 1.0, head: float = 1.0) -> nn.Module:
    """A frozen network whose stream and whose logits are ``body`` and ``head`` times as large."""
    torch.manual_seed(3)
    options = models.Options(8, final_sign=True)
    model = models.build(kind, models.Shape((6, 6, 1), 5, (0.4,), (0.3,)), options)
    for _, module in maskable(model):
        module.freeze(1.0)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.0).mul_(body)
                module.bias.normal_().mul_(body)
            if isinstance(module, nn.Linear):
                module.weight.mul_(head)
                module.bias.mul_(head)
    return model


def images() -> torch.Tensor:
    return torch.randint(0, 256, (16, *SHAPE), generator=torch.Generator().manual_seed(0)).float()


def finest(model: nn.Module, exact: str, body: int | None) -> int | None:
    """The largest exponent for which ``exact`` holds, by trying; that of the head on ``body``."""
    gm = structure(model, SHAPE)
    head = head_of(gm)
    rest = [m for m in gm.modules() if isinstance(m, ROUNDED) and m is not head]
    for module in rest if body is not None else []:
        module.round_to(body)
    for exponent in EXPONENTS:
        for module in [head] if body is not None else rest:
            try:
                module.round_to(exponent)
            except GridError:
                return None
        if getattr(analyse(lower(gm, SHAPE)), exact):
            return exponent
    return None


@pytest.mark.parametrize("kind", ["bireal-2", "plain-2"])
@pytest.mark.parametrize("power", [-6, -4, -1, 4, 8, 11, 12, 13])
def test_the_body_gets_the_finest_grid_that_is_proved(kind: str, power: int) -> None:
    """Twice the values leave one bit less, down to 2**-4; what needs a coarser one is refused."""
    model = network(kind, body=2.0**power)
    reestimate_batchnorm(model, images())
    best = finest(model, "body_exact", None)
    if best is None or best < 4:
        with pytest.raises(UserError, match="too large for exact float32"):
            settle(model, images(), "32")
        return
    report = settle(model, images(), "32").report
    assert report["grid_exponent"] == min(best, 20), "20: a change would change every model"
    assert report["body_exact"]


@pytest.mark.parametrize("power", [-2, 3, 8, 13, 15, 16, 17, 20])
def test_the_head_gets_its_finest_grid_or_keeps_its_float32_weights(power: int) -> None:
    model = network("bireal-2", head=2.0**power)
    settled = settle(model, images(), "32")
    body = settled.report["grid_exponent"]
    best = finest(model, "head_exact", body)
    head = head_of(settled.module)
    assert head is not None
    if best is None or best < 6:
        assert settled.report["head_exponent"] is None
        raw = head_of(structure(model, SHAPE))
        assert raw is not None
        assert torch.equal(head.weight, raw.weight)
        assert torch.equal(head.add, raw.add)
    else:
        assert settled.report["head_exponent"] == min(best, 20)
    assert settled.report["head_exact"] == analyse(lower(settled.module, SHAPE)).head_exact


def test_the_sizes_above_reach_both_ends_of_both_searches() -> None:
    """Otherwise the two tests would see a part of the range only."""
    bodies = [finest_settled(2.0**power, 1.0) for power in (-4, 8, 14)]
    assert bodies[0][0] == 20
    assert bodies[1][0] is not None
    assert 4 <= bodies[1][0] < 12
    assert bodies[2][0] is None
    heads = [finest_settled(1.0, 2.0**power)[1] for power in (-2, 12, 20)]
    assert heads[0] == 20
    assert heads[1] is not None
    assert 6 <= heads[1] < 12
    assert heads[2] is None


def finest_settled(body: float, head: float) -> tuple[int | None, int | None]:
    """The exponents that settling chose, None where there was none."""
    try:
        report = settle(network("bireal-2", body, head), images(), "32").report
    except UserError:
        return None, None
    return report["grid_exponent"], report["head_exponent"]
