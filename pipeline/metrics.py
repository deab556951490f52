"""What is written down while training: one line of metrics.jsonl per interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Metrics:
    """Averages over one interval of training, a line of metrics.jsonl.

    Attributes:
        step: first step after the interval; epoch: fractional, at that step.
        loss: what is minimised; accuracy: percent, on the (augmented) training batches.
        lr: of the binary weights.
        frozen: share of every layer, in [0, 1].
        flips: share of every layer's binary weights whose sign changed in the interval.
    """

    step: int
    epoch: float
    loss: float
    accuracy: float
    lr: float
    frozen: tuple[float, ...]
    flips: tuple[float, ...]


def from_json(row: dict[str, Any]) -> Metrics:
    """The inverse of ``dataclasses.asdict``, after a way through JSON."""
    return Metrics(**{**row, "frozen": tuple(row["frozen"]), "flips": tuple(row["flips"])})


def to_lines(history: Sequence[Metrics]) -> bytes:
    """``history`` as the bytes of metrics.jsonl."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in history).encode()
