"""bench.json read back; nothing of it is trusted before it was checked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from frostbit.pipeline import json_file
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import Count, JsonError, Name, Number, Percent, Positive, Text

_Threads = Annotated[int, Meta(gt=0, le=1 << 20)]
_Share = Annotated[float, Meta(ge=0, le=1)]


class _Latency(Struct):
    min: Positive
    median: Positive
    p90: Positive
    p99: Positive
    rounds: Annotated[list[Positive], Meta(min_length=1, max_length=1 << 20)]


class _Ratio(Struct):
    value: Positive
    low: Positive
    high: Positive


class _Row(Struct):
    name: Name
    model: Text
    latency_ms: _Latency
    ratio: _Ratio | None
    accuracy: Percent | None
    size_bytes: Annotated[int, Meta(gt=0, le=1 << 53)]
    threads: _Threads | None = None  # older files have none


class _Scaled(Struct):
    name: Name
    model: Text
    threads: _Threads
    median_ms: Positive
    over: _Threads
    faster: _Ratio
    ratio: _Ratio | None


class _Compared(Struct):
    name: Name
    images: Count
    sign_bits_compared: Count
    sign_bits_differing: Count
    logits_max_abs_diff: Number
    top1_agreement: _Share


class _Parity(Struct):
    passed: bool
    images: Count
    sign_bits_compared: Count
    sign_bits_differing: Count
    runtimes: list[_Compared]


class _Conditions(Struct):
    cpu: Text
    threads: Count
    batch: Count
    rounds: Count


class _Step(Struct):
    name: Name
    microseconds: Annotated[float, Meta(ge=0, le=1e12)]
    share: _Share
    binary_macs: Count


class _Profile(Struct):
    steps: list[_Step]


class _Bench(Struct):
    runtimes: Annotated[list[_Row], Meta(min_length=1, max_length=1000)]
    conditions: _Conditions
    scaling: Annotated[list[_Scaled], Meta(max_length=1000)] = []
    parity: _Parity | None = None
    profile: _Profile | None = None
    program_sha256: Text = ""
    dataset: Text = ""


def read(path: Path) -> dict[str, Any]:
    """The document that ``pipeline bench`` wrote to ``path``.

    A file of a version that measured one number of threads gets it in every row.

    Raises:
        UserError: it is missing, or something else, or of another version.
    """
    try:
        found = json_file.document(json_file.read_bytes(path), _Bench)
    except FileNotFoundError as error:
        raise UserError(f"there is no benchmark '{path}'; write one with --json {path}") from error
    except (OSError, JsonError) as error:
        raise UserError(
            f"'{path}' is damaged, or no bench.json of this version ({error}); measure it again: "
            f"pipeline bench MODEL --json {path}"
        ) from error
    for row in found["runtimes"]:
        row.setdefault("threads", found["conditions"]["threads"])
    found.setdefault("scaling", [])
    return found


def first_of_each(document: dict[str, Any]) -> list[Any]:
    """The rows of a document, each runtime with its first number of threads only."""
    found: dict[tuple[str, str], Any] = {}
    for row in document["runtimes"]:
        found.setdefault((row["model"], row["name"]), row)
    return list(found.values())


def of_model(path: Path, program_sha256: str) -> dict[str, Any] | None:
    """The benchmark at ``path`` if it is one of just this model, None if it is another's or none.

    Raises:
        UserError: it is damaged; with the remedy.
    """
    if not path.exists():
        return None
    found = read(path)
    return found if found.get("program_sha256") == program_sha256 else None


def engine_latency(found: dict[str, Any] | None) -> str:
    """The engine's median for one image, and where it was measured; "" if it was not."""
    if found is None or found["conditions"]["batch"] != 1:
        return ""
    row = next((row for row in found["runtimes"] if row["name"].startswith("engine")), None)
    if row is None:
        return ""
    where, median = found["conditions"], row["latency_ms"]["median"]
    threads = "one thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{median:.4g} ms, {row['name']}, {threads}, on {where['cpu']}"


def labels(files: Sequence[Path]) -> list[str]:
    """Short names of model files: their folder's, or their own; whole paths if those collide."""
    short = [f.resolve().parent.name if f.stem == "model" else f.stem for f in files]
    counts = Counter(short)
    return [str(f) if counts[name] > 1 else name for f, name in zip(files, short, strict=True)]
