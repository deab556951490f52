"""What works on whole channels of a map: factors and addends, learnt or fixed, and copies."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelAffine(nn.Module):
    """``x * (times * mul) + plus * add`` of a map ``[N, C, H, W]`` or a vector ``[N, C]``.

    Attributes:
        mul, add: float32, one value or one a channel, in a shape that broadcasts to ``x``
            (parameters learn, tensors stay); None is 1 and 0.
        times, plus: fixed factors of the two.
    """

    mul: Tensor | None
    add: Tensor | None

    def __init__(self, mul: Tensor | None, times: float, add: Tensor | None, plus: float) -> None:
        super().__init__()
        self.times, self.plus = times, plus
        for name, tensor in (("mul", mul), ("add", add)):
            if tensor is None or isinstance(tensor, nn.Parameter):
                self.register_parameter(name, tensor)
            else:
                self.register_buffer(name, tensor.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        y = x * self.times if self.mul is None else x * (self.times * self.mul)
        return y if self.add is None else y + self.plus * self.add

    def folded(self, channels: int) -> tuple[Tensor, Tensor]:
        """The factor and the addend of every channel, float64 ``[C]`` each."""
        mul = torch.ones(()) if self.mul is None else self.mul.detach()
        add = torch.zeros(()) if self.add is None else self.add.detach()
        factor = self.times * mul.double().reshape(-1)
        addend = self.plus * add.double().reshape(-1)
        return factor.expand(channels).clone(), addend.expand(channels).clone()


class ChannelRepeat(nn.Module):
    """Tile channels: ``[N, C, H, W]`` -> ``[N, times * C, H, W]``, output c is input c % C."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.times, dim=1)
