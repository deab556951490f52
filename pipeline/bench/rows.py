"""The rows of a benchmark, one for each runtime and number of threads, and what threads bring."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from frostbit.pipeline.bench.timing import Latency, Ratio, paired_ratio


@dataclass(frozen=True)
class Row:
    """One runtime in the table and in bench.json.

    Attributes:
        name: runtime as in tables, e.g. ``engine:xnor``.
        model: label of the model it ran.
        kernel: what is behind the colon of the name.
        threads: that it ran with; 1 for a runtime that has no more.
        latency_ms: of one batch.
        ratio: latency over that of the first engine with as many threads, round by round (of the
            first engine, where none has as many); None without an engine.
        accuracy: percent, None if not measured.
        size_bytes: of what the runtime loads.
    """

    name: str
    model: str
    kernel: str
    threads: int
    latency_ms: Latency
    ratio: Ratio | None
    accuracy: float | None
    size_bytes: int


@dataclass(frozen=True)
class Scaled:
    """One runtime with one number of threads, beside its own first.

    Attributes:
        name, model, threads: of its row.
        median_ms: of one batch.
        over: threads that it is compared with.
        faster: latency with those over latency with these, round by round.
        ratio: of its row: over the engine.
    """

    name: str
    model: str
    threads: int
    median_ms: float
    over: int
    faster: Ratio
    ratio: Ratio | None


def scaling(rows: Sequence[Row]) -> tuple[Scaled, ...]:
    """Every runtime that was measured with several numbers of threads, runtime by runtime.

    All times are of the same rounds of one process: a machine's drift is in none of the ratios.
    """
    alike: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        alike.setdefault((row.model, row.name), []).append(row)
    return tuple(
        Scaled(
            row.name,
            row.model,
            row.threads,
            row.latency_ms.median,
            each[0].threads,
            paired_ratio(each[0].latency_ms, row.latency_ms),
            row.ratio,
        )
        for each in alike.values()
        if len(each) > 1
        for row in each
    )
