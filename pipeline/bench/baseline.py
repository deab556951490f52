"""``bench --baseline``: is this build faster or slower than the one that wrote an older JSON?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frostbit.pipeline.bench.measure import Bench
from frostbit.pipeline.bench.rows import Row
from frostbit.pipeline.bench.timing import Ratio, ratio_of_runs


@dataclass(frozen=True)
class Verdict:
    """One runtime now over before.

    Attributes:
        name: model and runtime, with its threads if it has more than one.
        ratio: latency now over latency before.
        word: ``faster``, ``slower``, ``within noise`` or ``new``.
        regressed: whether it is slower by more than was allowed.
    """

    name: str
    ratio: Ratio | None
    word: str
    regressed: bool

    def __str__(self) -> str:
        if self.ratio is None:
            return f"{self.name}: not in the baseline"
        return f"{self.name}: {self.ratio} times the baseline, {self.word}"


def compare(bench: Bench, before: dict[str, Any], allowed: float) -> tuple[list[Verdict], str]:
    """Compare with an earlier document.

    Args:
        bench: what was measured now.
        before: from :func:`frostbit.pipeline.bench.file.read`.
        allowed: percent by which a runtime may be slower.

    Returns:
        One verdict a row, and a warning ("" if CPU and batch are the same).
    """
    old = {(row["model"], row["name"], row["threads"]): row for row in before["runtimes"]}
    verdicts = [
        _verdict(row, old.get((row.model, row.name, row.threads)), allowed) for row in bench.rows
    ]
    then, now = before["conditions"], bench.conditions
    others = [
        f"{name} {then.get(name)}, now {now.get(name)}"
        for name in ("cpu", "batch")
        if then.get(name) != now.get(name)
    ]
    return verdicts, f"the baseline had {'; '.join(others)}" if others else ""


def _verdict(row: Row, old: dict[str, Any] | None, allowed: float) -> Verdict:
    name = f"{row.model} {row.name}"
    if row.threads > 1:
        name += f", {row.threads} threads"
    if old is None:
        return Verdict(name, None, "new", False)
    ratio = ratio_of_runs(row.latency_ms.rounds, old["latency_ms"]["rounds"])
    word = "within noise"
    if ratio.low > 1:
        word = "slower"
    elif ratio.high < 1:
        word = "faster"
    return Verdict(name, ratio, word, word == "slower" and ratio.value > 1 + allowed / 100)
