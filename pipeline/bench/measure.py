"""Latency, size, accuracy and parity of every runtime, measured side by side.

Method: all runtimes live in one process (LCE in its worker, timed inside it) and take turns on the
same images (:mod:`frostbit.pipeline.bench.timing`). Compare the ratios; absolute times belong to
the machine named under ``conditions``.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from frostbit.export.parity import ParityReport, compare
from frostbit.export.runtimes import Runtime, Timed
from frostbit.kernels.ir.file import program_hash
from frostbit.kernels.ir.program import Program
from frostbit.pipeline import machine
from frostbit.pipeline.bench import conditions, timing
from frostbit.pipeline.bench.rows import Row, Scaled, scaling
from frostbit.pipeline.bench.timing import Latency
from frostbit.pipeline.console import Progress
from frostbit.pipeline.data.inputs import Inputs

QUICK = 10
"""With fewer rounds than this nobody asks for care: no cold starts, no least time."""


@dataclass(frozen=True)
class Entrant:
    """A runtime and how many threads it has."""

    runtime: Timed
    threads: int


@dataclass(frozen=True)
class Model:
    """One model of a benchmark: what to run, and what to compare it on.

    Attributes:
        label: short name in tables.
        path: its file.
        program: the loaded file.
        entrants: what to time.
        inputs: images, with labels if they come from the data set.
    """

    label: str
    path: Path
    program: Program
    entrants: tuple[Entrant, ...]
    inputs: Inputs


@dataclass(frozen=True)
class Checked:
    """What is known of one model besides times; ``parity`` is None if nothing could be compared."""

    label: str
    program_sha256: str
    dataset: str
    parity: ParityReport | None

    def document(self) -> dict[str, object]:
        """As in bench.json."""
        parity = None
        if self.parity is not None:
            parity = {
                **self.parity.total,
                "passed": self.parity.passed,
                "exact": self.parity.promised,
                "head_exact": self.parity.head_exact,
                "runtimes": [asdict(each) for each in self.parity.comparisons],
            }
        return {
            "model": self.label,
            "program_sha256": self.program_sha256,
            "dataset": self.dataset,
            "parity": parity,
        }


@dataclass(frozen=True)
class Bench:
    """Everything one benchmark found; :meth:`to_json` is what ``bench.json`` holds."""

    rows: tuple[Row, ...]
    models: tuple[Checked, ...]
    conditions: dict[str, Any]
    profile: dict[str, Any] | None = None

    @property
    def passed(self) -> bool:
        """Whether no bit differs in anything that was compared."""
        return all(each.parity is None or each.parity.passed for each in self.models)

    @property
    def scaling(self) -> tuple[Scaled, ...]:
        """What more threads bring, where several numbers of them were measured."""
        return scaling(self.rows)

    def to_json(self) -> str:
        """A single model's facts stand at the top, those of several in a list ``models``."""
        documents = [each.document() for each in self.models]
        facts = documents[0] if len(documents) == 1 else {"models": documents}
        document: dict[str, object] = {
            "runtimes": [asdict(row) for row in self.rows],
            "scaling": [asdict(each) for each in self.scaling],
            **facts,
            "conditions": self.conditions,
        }
        if self.profile is not None:
            document["profile"] = self.profile
        return json.dumps(document, indent=2) + "\n"


def size(runtime: Timed, model: Path) -> int:
    """Bytes of what a runtime loads: its file, or its parameters where it has no file."""
    return int(getattr(runtime, "size_bytes", 0)) or model.stat().st_size


def _names(model: Model) -> list[str]:
    """A name for each entrant: with its threads where there is another one of that name before."""
    names: list[str] = []
    for each in model.entrants:
        name = each.runtime.name
        names.append(f"{name}:threads{each.threads}" if name in names else name)
    return names


def _checked(model: Model, progress: Progress) -> Checked:
    comparable = {
        name: each.runtime
        for name, each in zip(_names(model), model.entrants, strict=True)
        if isinstance(each.runtime, Runtime)
    }
    images, labels = model.inputs.images, model.inputs.labels
    report = None
    if comparable:
        runtimes = list(comparable.values())
        report = compare(model.program, runtimes, images, labels, progress=progress)
        named = zip(report.comparisons, comparable, strict=True)
        report = replace(report, comparisons=tuple(replace(c, name=name) for c, name in named))
    return Checked(model.label, program_hash(model.program), model.inputs.dataset, report)


def _rows(
    models: Sequence[Model], checked: Sequence[Checked], latencies: Sequence[Latency]
) -> tuple[Row, ...]:
    entrants = [each for model in models for each in model.entrants]
    engines: dict[int, Latency] = {}  # the first with so many threads
    for each, latency in zip(entrants, latencies, strict=True):
        if each.runtime.name.startswith("engine"):
            engines.setdefault(each.threads, latency)
    rest, rows = iter(latencies), []
    for model, check in zip(models, checked, strict=True):
        comparisons = () if check.parity is None else check.parity.comparisons
        correct = {c.name: c.correct for c in comparisons}
        for name, each in zip(_names(model), model.entrants, strict=True):
            latency, right = next(rest), correct.get(name)
            engine = engines.get(each.threads, next(iter(engines.values()), None))
            rows.append(
                Row(
                    each.runtime.name,
                    model.label,
                    each.runtime.name.partition(":")[2],
                    each.threads,
                    latency,
                    None if engine is None else timing.paired_ratio(latency, engine),
                    None if right is None else 100 * right / len(model.inputs.images),
                    size(each.runtime, model.path),
                )
            )
    return tuple(rows)


def _noise(rows: Sequence[Row]) -> dict[str, object]:
    """How far rounds spread, and of which runtime: the noisiest one."""
    worst = max(rows, key=lambda row: timing.noise(row.latency_ms))
    return {"noise": round(timing.noise(worst.latency_ms), 4), "noisiest": worst.name}


def run(
    models: Sequence[Model],
    *,
    rounds: int,
    seed: int,
    progress: Callable[[str], Progress],
    batch: int = 1,
) -> Bench:
    """Check parity over each model's whole test set, then time every runtime of all models.

    Runtimes without ``logits`` (full-precision twins) are timed only.

    Raises:
        ParityError: if the comparison is void (constant outputs).
    """
    checked = [_checked(model, progress("parity")) for model in models]
    pairs = [(each.runtime, model.inputs.images) for model in models for each in model.entrants]
    before, load, start = machine.sensors(), os.getloadavg()[0], time.perf_counter()
    span = timing.SPAN_S if rounds >= QUICK else 0.0
    latencies = timing.measure(pairs, rounds, seed, batch, progress("timing"), span)
    rows = _rows(models, checked, latencies)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = {
        **conditions.conditions(),
        "sensors": {"before": before, "after": machine.sensors()},
        "measured_s": round(time.perf_counter() - start, 3),
        "threads": rows[0].threads,
        "thread_counts": sorted({row.threads for row in rows}),
        "batch": batch,
        "rounds": len(latencies[0].rounds),
        "seed": seed,
        "load_average": round(load, 2),
        **_noise(rows),
        "peak_rss_mib": round(peak_kib / 1024, 1),
    }
    if span and any(row.name.startswith("engine") for row in rows):
        facts.update(conditions.cold_start(models[0].path))
    return Bench(rows, tuple(checked), facts)
