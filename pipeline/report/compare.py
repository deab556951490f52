"""``pipeline compare``: several runs side by side, and which of them nothing beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from frostbit.kernels.ir.file import load_program, program_hash
from frostbit.pipeline.bench import file as bench_file
from frostbit.pipeline.bench.file import labels
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run import folder as run_folder

HEAD = (
    "run", "model", "method", "seed", "accuracy", "bytes", "engine ms", "x ort-fp32", "CPU", "front"
)  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """One run.

    Attributes:
        name: its folder's name, or more of the path where names collide.
        model, method, seed: of its recipe.
        accuracy: settled, on the test split, percent.
        size_bytes: of ``model.bnn``; None if not packed.
        engine_ms: median of the engine; None if not benchmarked.
        times_faster: than the fp32 twin in ONNX Runtime; None if not measured.
        cpu: where it was benchmarked.
        front: whether no other run is at least as fast and as accurate, and better in one.
        damaged: what is wrong with its benchmark, and the remedy; "" if nothing is.
    """

    name: str
    model: str
    method: str
    seed: int
    accuracy: float
    size_bytes: int | None
    engine_ms: float | None
    times_faster: float | None
    cpu: str
    front: bool = False
    damaged: str = ""

    def cells(self) -> tuple[str, ...]:
        """As under :data:`HEAD`."""
        return (
            self.name,
            self.model,
            self.method,
            str(self.seed),
            f"{self.accuracy:.2f} %",
            "" if self.size_bytes is None else f"{self.size_bytes:,}",
            "" if self.engine_ms is None else f"{self.engine_ms:.4f}",
            "" if self.times_faster is None else f"{self.times_faster:.1f}",
            self.cpu,
            "yes" if self.front else "",
        )


def read(folders: Sequence[Path]) -> list[Entry]:
    """The runs in ``folders``, in this order.

    Raises:
        UserError: a folder holds no finished binary run.
    """
    names = labels([folder / "model.bnn" for folder in folders])
    entries = [_entry(folder, name) for folder, name in zip(folders, names, strict=True)]
    return [_placed(entry, entries) for entry in entries]


def _entry(folder: Path, name: str) -> Entry:
    run = run_folder.read_run(folder)
    if run.facts["accuracy"].get("test_after_settling") is None:
        raise UserError(f"'{folder}' did not end binary; leave it out")
    model = folder / "model.bnn"
    sha = program_hash(load_program(model)) if model.is_file() else ""
    found, damaged = None, ""
    try:
        found = bench_file.of_model(folder / "bench.json", sha)
    except UserError as error:
        damaged = str(error)
    found = found or {"runtimes": [], "conditions": {}}
    rows = {row["name"]: row for row in bench_file.first_of_each(found)}
    engine = next((row for name, row in rows.items() if name.startswith("engine")), None)
    peer = rows.get("ort-fp32", {}).get("ratio")
    return Entry(
        name=name,
        model=run.recipe.model,
        method=run.recipe.method,
        seed=run.recipe.seed,
        accuracy=float(run.facts["accuracy"]["test_after_settling"]),
        size_bytes=model.stat().st_size if sha else None,
        engine_ms=None if engine is None else float(engine["latency_ms"]["median"]),
        times_faster=None if peer is None else float(peer["value"]),
        cpu=str(found["conditions"].get("cpu", "")),
        damaged=damaged,
    )


def _placed(entry: Entry, entries: Sequence[Entry]) -> Entry:
    if entry.engine_ms is None:
        return entry
    return replace(entry, front=not any(_beats(other, entry) for other in entries))


def _beats(other: Entry, entry: Entry) -> bool:
    if other.engine_ms is None or entry.engine_ms is None:
        return False
    as_good = other.engine_ms <= entry.engine_ms and other.accuracy >= entry.accuracy
    return as_good and (other.engine_ms, other.accuracy) != (entry.engine_ms, entry.accuracy)


def compare_table(entries: Sequence[Entry]) -> Table:
    """Table for the terminal."""
    table = Table(title="runs side by side", title_justify="left")
    for name in HEAD:
        left = name in ("run", "model", "method", "CPU")
        table.add_column(name, justify="left" if left else "right")
    for entry in entries:
        table.add_row(*entry.cells())
    return table


def page(entries: Sequence[Entry]) -> str:
    """The comparison as one HTML page."""
    from markupsafe import Markup

    from frostbit.pipeline.report import plots
    from frostbit.pipeline.report.page import render
    from frostbit.pipeline.report.svg import svg

    points = [(e.name, e.engine_ms, e.accuracy, e.front) for e in entries if e.engine_ms]
    best = ", ".join(e.name for e in entries if e.front)
    figure = svg(
        lambda: plots.compared(points),
        "compared",
        f"Accuracy over latency of {len(points)} runs; on the Pareto front: {best}",
    )
    rows = [entry.cells() for entry in entries]
    return render("compare.html", head=HEAD, rows=rows, figure=Markup(figure))
