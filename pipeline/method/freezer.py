"""Applies the schedule to a network: sets masks before each step, holds frozen latents after it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from frostbit.pipeline.method.stompp import Method, Schedule, field, limit, refresh_, refresh_period
from frostbit.pipeline.network.binary import BinaryActivation, Maskable, maskable


@dataclass(frozen=True)
class _Slot:
    """A maskable module and its range of entry numbers."""

    module: Maskable
    start: int
    stop: int


def _as_mask(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    """View entries as a mask with channels last in memory, as the tensors it is mixed with."""
    if len(shape) == 4:
        out, channels, height, width = shape
        return flat.view(out, height, width, channels).permute(0, 3, 1, 2)
    if len(shape) == 3:
        channels, height, width = shape
        return flat.view(height, width, channels).permute(2, 0, 1)
    return flat.view(shape)


class Freezer:
    """Drives the masks of ``model``, whose layers ``number_layers`` has numbered.

    Args:
        model: network on its device.
        method: order and gradient of frozen entries.
        schedule: share of each layer at each step.
        seed: seed of the masks.
        refresh: share of every mask that is drawn again each step, in [0, 1].
        activations: whether activations freeze too (False: binary weights only).

    There is no state to save: :meth:`advance` to any step gives that step's masks.
    """

    def __init__(
        self,
        model: nn.Module,
        method: Method,
        schedule: Schedule,
        seed: int,
        refresh: float,
        activations: bool = True,
    ) -> None:
        modules = [module for _, module in maskable(model)]
        if not activations:
            modules = [m for m in modules if not isinstance(m, BinaryActivation)]
        self.layers: list[list[_Slot]] = [[] for _ in range(schedule.layers)]
        entry = 0
        for module in sorted(modules, key=lambda m: m.layer):
            module.ste = method.ste
            self.layers[module.layer].append(_Slot(module, entry, entry + module.entries))
            entry += module.entries
        self.method, self.schedule, self.seed = method, schedule, seed
        self.period = refresh_period(refresh)
        self._latents = [
            slot for slots in self.layers for slot in slots if _latent(slot) is not None
        ]
        self.device = next(model.parameters()).device
        self._field = torch.empty(0, dtype=torch.int32, device=self.device)
        self._range = (0, 0)
        self._step = -1

    def advance(self, step: int) -> list[float]:
        """Freeze as ``step`` asks; returns the frozen share of every layer."""
        shares = [self.schedule.share(layer, step) for layer in range(len(self.layers))]
        moving = [layer for layer, share in enumerate(shares) if 0 < share < 1]
        slots = [slot for layer in moving for slot in self.layers[layer]]
        if slots:
            self._move_field(slots[0].start, slots[-1].stop, step)
        for share, layer in zip(shares, self.layers, strict=True):
            for slot in layer:
                slot.module.freeze(share, self._mask(slot, share))
        return shares

    def _move_field(self, start: int, stop: int, step: int) -> None:
        """Make ``self._field`` hold entries ``start`` to ``stop`` at ``step``."""
        if (start, stop) == self._range and step == self._step + 1:
            refresh_(self._field, self.seed, start, step, self.period)
        elif (start, stop, step) != (*self._range, self._step):
            self._field = field(self.seed, start, stop, step, self.period, self.device)
        self._range, self._step = (start, stop), step

    def _mask(self, slot: _Slot, share: float) -> Tensor | None:
        if not 0 < share < 1:
            return None
        origin = self._range[0]
        numbers = self._field[slot.start - origin : slot.stop - origin]
        mask = torch.lt(numbers, limit(share), out=torch.empty_like(numbers, dtype=torch.float32))
        return _as_mask(mask, slot.module.entry_shape)

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Around ``optimizer.step()``: frozen latents stay as they are, all end in [-1, 1].

        A zero gradient is not "no update" (momentum, weight decay), so without STE the frozen
        entries are put back. Fully frozen tensors have no gradient, and optimizers skip them.
        """
        held: list[tuple[Tensor, Tensor, Tensor]] = []
        moved: list[Tensor] = []
        for slot in self._latents:
            latent = _latent(slot)
            if latent is None or (slot.module.share >= 1 and not self.method.ste):
                continue
            moved.append(latent)
            if slot.module.mask is not None and not self.method.ste:
                held.append((latent, latent.clone(), slot.module.mask))
        yield
        for latent, before, mask in held:
            latent.lerp_(before, mask)
        if moved:
            torch._foreach_clamp_min_(moved, -1.0)
            torch._foreach_clamp_max_(moved, 1.0)


def _latent(slot: _Slot) -> Tensor | None:
    """The latent weight of a slot, outside autograd; None for an activation."""
    weight = getattr(slot.module, "weight", None)
    return None if weight is None else weight.detach()
