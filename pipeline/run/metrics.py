"""What is written down while training: one line of metrics.jsonl per interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from frostbit.pipeline import json_file
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import Count, JsonError, Number


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """Averages over one interval of training, a line of metrics.jsonl.

    Attributes:
        step: first step after the interval; epoch: fractional, at that step.
        loss: what is minimised; accuracy: percent, on the (augmented) training batches.
        lr: of the binary weights.
        frozen: share of every layer, in [0, 1].
        flips: share of every layer's binary weights whose sign changed in the interval.
    """

    step: Count
    epoch: Number
    loss: Number
    accuracy: Number
    lr: Number
    frozen: tuple[Number, ...]
    flips: tuple[Number, ...]

    def __post_init__(self) -> None:
        if len(self.frozen) != len(self.flips):
            raise ValueError("frozen and flips need a number a layer")


def read(path: Path) -> list[Metrics]:
    """metrics.jsonl read back.

    Raises:
        UserError: it is missing or damaged.
    """
    found: list[Metrics] = []
    try:
        for line in json_file.read_bytes(path).splitlines():
            found.append(json_file.parse(line, Metrics))
            if len(found[-1].frozen) != len(found[0].frozen):
                raise JsonError("layers come and go")
    except (OSError, JsonError) as error:
        raise UserError(
            f"'{path}' is damaged in line {len(found) + 1} ({error}); train the run again"
        ) from error
    return found


def to_lines(history: Sequence[Metrics]) -> bytes:
    """``history`` as the bytes of metrics.jsonl."""
    return b"".join(msgspec.json.encode(row) + b"\n" for row in history)
