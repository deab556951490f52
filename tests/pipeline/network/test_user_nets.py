"""Random networks of the table through the whole chain; ``make fuzz`` draws 2,000."""

import pytest
import torch
from torch import Tensor, nn

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.binary import binarize
from frostbit.pipeline.run.folder import to_bytes
from tests.reliability.networks import converted


def test_random_networks_are_the_same_at_every_step() -> None:
    found = converted(40, seed=1)
    assert found.tried == 40
    assert found.equal >= 30
    assert found.exact >= 10
    assert found.folded >= 100
    assert found.signs > 10_000


class Shifted(nn.Module):
    """A learnt shift and scale inside a module that is called, as in ReActNet."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.conv = nn.Parameter(torch.zeros(4, 1, 1)), nn.Conv2d(4, 4, 3)
        self.register_buffer("fixed", torch.ones(4, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(input=x + self.shift.expand_as(x))
        x = self.conv(input=x)
        return x * self.fixed.expand_as(x)


def test_a_learnt_shift_is_saved_once() -> None:
    """The place that adds it has it; the module that it came from would save it again."""
    net = nn.Sequential(nn.Conv2d(1, 4, 3), Shifted(), nn.Flatten(), nn.Linear(64, 3))
    model = binarize(net, torch.zeros(2, 1, 8, 8), mean=(0.5,), std=(0.5,))
    assert len(to_bytes(model.state_dict())) > 0
    named = list(model.named_parameters(remove_duplicate=False))
    assert len(named) == len(list(net.parameters()))
    model.alias = named[0][1]
    with pytest.raises(UserError, match="are one tensor"):
        to_bytes(model.state_dict())
