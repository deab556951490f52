"""``StoMPP``: the method in a training loop of one's own, and in ours.

>>> freezer = StoMPP(net, steps=len(loader) * epochs)
>>> for images, labels in batches:  # float pixels [N, C, H, W], 0..255
...     freezer.advance()
...     optimizer.zero_grad()
...     loss(net(images), labels).backward()
...     with freezer.holding():
...         optimizer.step()
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from frostbit.pipeline.errors import UserError, unknown
from frostbit.pipeline.method.freezer import Freezer
from frostbit.pipeline.method.stompp import METHODS, Schedule
from frostbit.pipeline.network.binary import maskable

MOST_SEED = 2**32 - 1


class StoMPP:
    """Freezes a binarized network, entry by entry, while it is trained.

    Args:
        net: from :func:`frostbit.binarize`, on the device where it is trained: float pixels
            ``[N, C, H, W]``, 0..255 -> float32 logits ``[N, classes]``.
        steps: training steps (calls of :meth:`advance`) until all is frozen, >= 1.
        method: ``stompp`` (no straight-through estimator), ``stompp-ste`` (frozen entries receive
            its gradient), ``ste`` (all frozen from the start), or one of the others of
            :data:`frostbit.pipeline.method.stompp.METHODS`.
        ramp: the frozen share along a layer's window: ``cubic``, ``linear``, ``quadratic``,
            ``cosine``.
        refresh: share of every mask that is drawn again each step, in [0, 1].
        seed: of the masks, in [0, 2**32).
        warmup: part of the steps, in [0, 1), before the first layer freezes.
        settle: part of the steps, in [0, 1), after the last layer is frozen.
        overlap: layers in transition at once, >= 1.
        activations: whether activations freeze too; False: binary weights only.

    Attributes:
        step: the step whose masks are set; -1 before the first.
        schedule: share of each layer at each step.

    The masks of a step depend on ``seed`` and the step alone, so a loop that goes on from a
    checkpoint calls ``advance(step)`` and needs no other state.

    Raises:
        UserError: an unknown or impossible setting, or ``net`` is not binarized.

    Source: StoMPP, arXiv 2601.22660 and 2606.27759; the defaults are those of the paper. What it
    leaves open is listed in :mod:`frostbit.pipeline.method.stompp`.
    """

    def __init__(
        self,
        net: nn.Module,
        steps: int,
        *,
        method: str = "stompp",
        ramp: str = "cubic",
        refresh: float = 0.01,
        seed: int = 0,
        warmup: float = 0.05,
        settle: float = 0.05,
        overlap: float = 1.0,
        activations: bool = True,
    ) -> None:
        if method not in METHODS:
            raise unknown("method", method, METHODS)
        if not 0 <= refresh <= 1:
            raise UserError(f"refresh is {refresh}; it must be in [0, 1]")
        if not 0 <= seed <= MOST_SEED:
            raise UserError(f"seed is {seed}; it must be at least 0 and below 2**32")
        numbers = [module.layer for _, module in maskable(net)]
        if min(numbers, default=-1) < 0:
            raise UserError("the network has no numbered binary layers; binarize it first")
        self.schedule = Schedule(
            METHODS[method].order, ramp, 1 + max(numbers), steps, warmup, settle, overlap
        )
        self.step = -1
        self._net = net
        self._freezer = Freezer(net, METHODS[method], self.schedule, seed, refresh, activations)

    def advance(self, step: int | None = None) -> list[float]:
        """Set the masks of ``step`` (without one: of the next); call it before the forward pass.

        Args:
            step: counted from 0; from ``steps`` on everything is frozen.

        Returns:
            The frozen share, in [0, 1], of every layer.

        Raises:
            UserError: a step below 0, or the network was moved to another device.
        """
        step = self.step + 1 if step is None else step
        if step < 0:
            raise UserError(f"step {step}: steps are counted from 0")
        if next(self._net.parameters()).device != self._freezer.device:
            raise UserError("the network was moved to another device; make StoMPP after that")
        self.step = step
        return self._freezer.advance(step)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Around ``optimizer.step()``: frozen weights stay as they are, all end in [-1, 1].

        When it ends for the last step, what is left is frozen: the network is binary.
        """
        with self._freezer.holding():
            yield
        if self.step == self.schedule.steps - 1:
            self.advance()
