"""run.json, metrics and recipe of a run folder that may come from a stranger.

Checksums in run.json say that nothing was damaged, not that nothing was forged. So types and sizes
are checked here, once, before a network is built or a page is written from them.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from frostbit.kernels.ir.limits import check_name
from frostbit.kernels.ir.program import MAX_DIM, MAX_ELEMENTS
from frostbit.pipeline.errors import UserError

MAX_BYTES = 1 << 26
MOST_CLASSES = 1 << 16


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of at most 64 MB.

    Raises:
        OSError: it cannot be read.
        ValueError: it is something else.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"larger than {MAX_BYTES >> 20} MB")
    try:
        found = json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(found, dict):
        raise ValueError("no object")
    return found


def check(facts: dict[str, Any]) -> None:
    """ValueError, KeyError or TypeError unless ``facts`` are what a finished run writes."""
    _check_dataset(facts["dataset"])
    accuracy = facts["accuracy"]
    for name in ("validation", "test_before_settling"):
        _number(accuracy[name])
    if accuracy["test_after_settling"] is not None:
        _number(accuracy["test_after_settling"])
    for name in ("parameters", "steps", "seconds"):
        _number(facts[name])
    _need(all(type(n) is int for n in facts["unfrozen"].values()), "unfrozen")
    _need(isinstance(facts["fully_frozen"], bool), "fully_frozen")
    _need(isinstance(facts.get("settled_hash", ""), str), "settled_hash")
    for name in ("device", "cpu"):
        check_name(facts.get(name, ""))


def _check_dataset(found: dict[str, Any]) -> None:
    """What a network is built for: name, shape, classes, normalisation."""
    shape, classes = found["image_shape"], found["classes"]
    _need(len(shape) == 3 and all(type(n) is int and 1 <= n <= MAX_DIM for n in shape), "shape")
    _need(math.prod(shape) <= MAX_ELEMENTS, "shape")
    _need(isinstance(classes, list) and 1 <= len(classes) <= MOST_CLASSES, "classes")
    for name in (found["name"], *classes):
        _need(isinstance(name, str), "a name")
        check_name(name)
    for values in (found["mean"], found["std"]):
        _need(len(values) == shape[2], "mean or std")
        for value in values:
            _number(value)


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} is impossible")


def _number(value: Any) -> None:
    _need(type(value) in (int, float) and abs(value) < 1e18, "a number")


def refuse(path: Path, error: Exception, again: str) -> UserError:
    """The error for a file of a run folder; ``again`` is the remedy."""
    reason = f" ({error})" if isinstance(error, ValueError) and str(error).isprintable() else ""
    return UserError(f"'{path}' is damaged{reason}; {again}")
