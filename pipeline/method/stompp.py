"""StoMPP: stochastic masked partial progressive binarization, as pure functions.

The method (arXiv 2601.22660, 2606.27759). A binary network is trained by *freezing* a continuous
one, entry by entry. Every entry u of a weight or activation tensor of a binary layer becomes::

    u' = M * sign(u) + (1 - M) * clip(u, -1, 1)        M in {0, 1}, one mask bit per entry

so a layer with M = 0 is an ordinary clipped layer and one with M = 1 is exactly binary. The share
p of ones in M rises from 0 to 1 inside the layer's *window*; windows follow each other from the
input to the output, so that earlier layers are binary, one group is in transition, and later
layers are continuous and adapt to what was frozen before them.

**Gradients.** A frozen entry receives none: no straight-through estimator (STE) is needed, but an
activation that is frozen passes nothing upstream, which is why the order matters: what lies
before the freezing front has had its turn. The composition "StoMPP + STE" gives frozen entries
the straight-through gradient instead. Every method of :data:`METHODS` is an order of freezing and
that one choice; ``ste`` is "everything frozen from the first step", ``float`` is "never", and
``frozen`` is the floor: all frozen at once and no gradient, only the head learns.

**Soft refresh.** A mask is not drawn once: each step a share r of its entries is drawn again, so
an entry that was frozen too early gets another turn. Here a mask is a *field* of 24-bit numbers,
frozen where ``field < p * 2**24``, and refreshing redraws numbers of the field:

* the number of an entry is a hash of (seed, entry, how often it was redrawn): no generator and no
  state. Every process and every device computes the same masks, and so does a resumed run.
* entry i is redrawn at the steps congruent to i modulo 1/r: exactly the share r per step, and only
  those entries are touched (:func:`refresh_`). :func:`field` computes any step from scratch.
* integers only, so that a GPU and a CPU agree on every bit.

Layers are numbered in execution order and entries through all layers of the network, so the
tensors in transition lie side by side and one hash per step serves them all.

**Left to the reader of the papers, chosen here** (the papers' text at hand does not say): masks of
activations have the shape of one image's map, shared by the batch; weight and activation masks of
a layer move together; neighbouring windows may overlap (``overlap``), the first part of training
is continuous (``warmup``) and the last part fully binary (``settle``).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from frostbit.pipeline.errors import UserError

Order = Literal["forward", "reverse", "global", "start", "never"]


@dataclass(frozen=True)
class Method:
    """How a network becomes binary.

    Attributes:
        order: which layers freeze when: from input to output, from output to input, all
            together, all before the first step, or never.
        ste: whether frozen entries receive the straight-through gradient.
    """

    order: Order
    ste: bool


METHODS: dict[str, Method] = {
    "stompp": Method("forward", ste=False),
    "stompp-ste": Method("forward", ste=True),
    "global": Method("global", ste=False),
    "global-ste": Method("global", ste=True),
    "reverse": Method("reverse", ste=False),
    "ste": Method("start", ste=True),
    "float": Method("never", ste=False),
    "frozen": Method("start", ste=False),
}

RAMPS: dict[str, Callable[[float], float]] = {
    "linear": lambda x: x,
    "quadratic": lambda x: x**2,
    "cubic": lambda x: x**3,
    "cosine": lambda x: 0.5 - 0.5 * math.cos(math.pi * x),
}

FEWEST_STEPS_PER_LAYER = 25


@dataclass(frozen=True)
class Schedule:
    """When each layer freezes; ``share(layer, step)`` is a pure function.

    Attributes:
        order: see :class:`Method`.
        ramp: key of :data:`RAMPS`, the share as a function of the elapsed part of the window.
        layers: number of layers, >= 1.
        steps: number of training steps, >= 1.
        warmup: part of training, in [0, 1), before the first window opens.
        settle: part of training, in [0, 1), after the last window has closed.
        overlap: how many layers are in transition at once, >= 1 (1: strictly one by one).

    Raises:
        UserError: if a field is out of range or the windows have no room.
    """

    order: Order
    ramp: str
    layers: int
    steps: int
    warmup: float = 0.0
    settle: float = 0.0
    overlap: float = 1.0

    def __post_init__(self) -> None:
        if self.layers < 1 or self.steps < 1:
            raise UserError("nothing to train: the network has no binary layer or no step to do")
        if self.ramp not in RAMPS:
            raise UserError(f"unknown ramp '{self.ramp}'; choose one of {', '.join(RAMPS)}")
        if not (0 <= self.warmup < 1 and 0 <= self.settle < 1 and self.warmup + self.settle < 1):
            raise UserError(
                f"warmup {self.warmup} and settle {self.settle} leave no time to freeze, so the "
                "network could not end binary; make their sum smaller than 1"
            )
        if not 1 <= self.overlap < math.inf:
            raise UserError(f"overlap {self.overlap} must be at least 1 (layers in transition)")

    @property
    def steps_per_layer(self) -> float:
        """Steps between the openings of neighbouring windows."""
        span = self.steps * (1 - self.warmup - self.settle)
        return span if self.order == "global" else span / (self.layers - 1 + self.overlap)

    def window(self, layer: int) -> tuple[float, float]:
        """First and last step (fractional) of the transition of ``layer``."""
        start = self.steps * self.warmup
        if self.order == "global":
            return start, start + self.steps_per_layer
        place = self.layers - 1 - layer if self.order == "reverse" else layer
        start += place * self.steps_per_layer
        return start, start + self.overlap * self.steps_per_layer

    def share(self, layer: int, step: int) -> float:
        """Frozen share p in [0, 1] of ``layer`` while ``step`` runs (0 = the first step)."""
        if self.order == "never":
            return 0.0
        if self.order == "start" or step >= self.steps:
            return 1.0
        start, end = self.window(layer)
        if step <= start:
            return 0.0
        elapsed = (step - start) / (end - start)
        return 1.0 if elapsed >= 1 - 1e-9 else RAMPS[self.ramp](elapsed)

    def transition(self, step: int) -> list[int]:
        """Layers that are neither continuous nor binary while ``step`` runs."""
        return [layer for layer in range(self.layers) if 0 < self.share(layer, step) < 1]

    def in_words(self, step: int) -> str:
        """What freezes while ``step`` runs, for messages."""
        if self.order in ("start", "never"):
            return "every layer is frozen" if self.order == "start" else "no layer freezes"
        moving = self.transition(step)
        if moving:
            return "freezing layer " + ", ".join(str(layer) for layer in moving)
        return "before the first layer froze" if self.share(0, step) == 0 else "all layers frozen"


FIELD_BITS = 24
_MASK32 = 0xFFFFFFFF
_MULTIPLIER = 0x45D9F3B  # 27 bits: a product with 32 bits stays inside int64
_GOLDEN = 0x9E3779B9


def refresh_period(rate: float) -> int:
    """Steps between two draws of the same entry for a refresh ``rate`` in [0, 1]; 0 is never."""
    return round(1 / rate) if rate > 0 else 0


def limit(share: float) -> int:
    """Entries whose field is below this number are frozen: ``share`` in [0, 1] in field units."""
    return math.ceil(share * (1 << FIELD_BITS))


def _mix(x: Tensor) -> Tensor:
    """Scramble int64 values in [0, 2**32) to int64 in [0, 2**32), in place."""
    for _ in range(2):
        x.bitwise_xor_(x >> 16).mul_(_MULTIPLIER).bitwise_and_(_MASK32)
    return x.bitwise_xor_(x >> 16)


def _draw(seed: int, entries: Tensor, draws: Tensor | int) -> Tensor:
    """Field values int32 in [0, 2**24): a hash of seed, entry (int64) and draw number."""
    x = _mix(torch.bitwise_and(entries + (seed * _GOLDEN & _MASK32), _MASK32))
    x = _mix(x.add_(draws * 0x632BE5AB).bitwise_and_(_MASK32))
    return (x >> (32 - FIELD_BITS)).to(torch.int32)


def field(
    seed: int, start: int, stop: int, step: int, period: int, device: torch.device | str = "cpu"
) -> Tensor:
    """The field of entries ``start`` to ``stop`` at ``step``, from scratch.

    Args:
        seed: seed of the run.
        start, stop: range of entry numbers.
        step: training step, >= 0.
        period: steps between two draws of an entry (:func:`refresh_period`); 0 draws once.
        device: where to compute it; the result does not depend on it.

    Returns:
        int32 ``[stop - start]`` in ``[0, 2**24)``.
    """
    entries = torch.arange(start, stop, device=device)
    if period == 0:
        return _draw(seed, entries, 0)
    draws = torch.div(step + period - entries % period, period, rounding_mode="floor")
    return _draw(seed, entries, draws)


def refresh_(values: Tensor, seed: int, start: int, step: int, period: int) -> None:
    """Take a field from ``step - 1`` to ``step`` in place, touching 1/period of the entries.

    Args:
        values: the field at ``step - 1`` of entries ``start`` onward, int32 ``[n]``.
        seed, start, step, period: as in :func:`field`.
    """
    if period == 0:
        return
    first = (step - start) % period  # position of the first entry due in this step
    if first >= len(values):
        return
    due = torch.arange(start + first, start + len(values), period, device=values.device)
    values[first::period] = _draw(seed, due, step // period + 1)
