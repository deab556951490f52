"""bench.json read back; nothing of it is trusted before it was checked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from frostbit.pipeline.errors import UserError

_TIMES = ("min", "median", "p90", "p99")


def read(path: Path) -> dict[str, Any]:
    """The document that ``pipeline bench`` wrote to ``path``.

    Raises:
        UserError: it is missing, or something else, or of another version.
    """
    try:
        document = json.loads(path.read_text("utf-8"))
        for row in document["runtimes"]:
            _check_row(row)
        if not document["runtimes"] or not isinstance(document["conditions"], dict):
            raise ValueError
    except FileNotFoundError as error:
        raise UserError(f"there is no benchmark '{path}'; write one with --json {path}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"'{path}' is no bench.json of this version; measure it again with --json {path}"
        ) from error
    return dict(document)


def _check_row(row: dict[str, Any]) -> None:
    latency, ratio = row["latency_ms"], row["ratio"]
    numbers = [*latency["rounds"], *(latency[name] for name in _TIMES), row["size_bytes"]]
    numbers += [] if ratio is None else [ratio[name] for name in ("value", "low", "high")]
    well = isinstance(row["name"], str) and isinstance(row["model"], str) and latency["rounds"]
    if not well or not all(float(number) > 0 for number in numbers):
        raise ValueError
    if row["accuracy"] is not None:
        float(row["accuracy"])


def of_model(path: Path, program_sha256: str) -> dict[str, Any] | None:
    """The benchmark at ``path`` if it is one of just this model, else None."""
    try:
        found = read(path)
    except UserError:
        return None
    return found if found.get("program_sha256") == program_sha256 else None


def labels(files: Sequence[Path]) -> list[str]:
    """Short names of model files: their folder's, or their own; whole paths if those collide."""
    short = [f.resolve().parent.name if f.stem == "model" else f.stem for f in files]
    counts = Counter(short)
    return [str(f) if counts[name] > 1 else name for f, name in zip(files, short, strict=True)]
