"""What is written down while training: one line of metrics.jsonl per interval."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frostbit.pipeline.errors import UserError

MAX_BYTES = 1 << 26


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
    """The inverse of ``dataclasses.asdict``, after a way through JSON; ValueError if it is none."""
    try:
        found = Metrics(**{**row, "frozen": tuple(row["frozen"]), "flips": tuple(row["flips"])})
        single = (found.step, found.epoch, found.loss, found.accuracy, found.lr)
        numbers = (*single, *found.frozen, *found.flips)
        well = all(type(n) in (int, float) and abs(n) < 1e30 for n in numbers)
    except (KeyError, TypeError) as error:
        raise ValueError("no metrics of one interval") from error
    if not well or len(found.frozen) != len(found.flips):
        raise ValueError("metrics that are no numbers")
    return found


def read(path: Path) -> list[Metrics]:
    """metrics.jsonl read back.

    Raises:
        UserError: it is missing or damaged.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ValueError("too large")
        found = [from_json(json.loads(line)) for line in data.splitlines()]
        if len({len(row.frozen) for row in found}) > 1:
            raise ValueError("layers come and go")
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"'{path}' is damaged; train the run again") from error


def to_lines(history: Sequence[Metrics]) -> bytes:
    """``history`` as the bytes of metrics.jsonl."""
    return "".join(json.dumps(asdict(row)) + "\n" for row in history).encode()
