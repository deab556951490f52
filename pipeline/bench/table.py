"""A benchmark as a person reads it: the table and the lines under it, also as Markdown."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from frostbit.export.parity import ParityReport
from frostbit.pipeline.bench import conditions
from frostbit.pipeline.bench.measure import Bench
from frostbit.pipeline.bench.rows import Row, Scaled
from frostbit.pipeline.bench.timing import NOISY
from frostbit.pipeline.console import shown
from frostbit.pipeline.parity.runtimes import Missing


def _accuracy(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


HEAD = ("runtime", "median", "min", "p90", "p99", "x engine (95 % interval)", "accuracy", "bytes")
THREADS = "threads"
"""Second column where runtimes had different numbers of them."""
SCALING = ("runtime", THREADS, "median", "faster (95 % interval)", "x engine")


def _name(bench: Bench, row: Row | Scaled) -> str:
    return row.name if len(bench.models) == 1 else f"{row.model} {row.name}"


def _rows(bench: Bench) -> list[tuple[str, ...]]:
    """The table's head and rows."""
    head, *rows = HEAD, *(_cells(bench, row) for row in bench.rows)
    if len({row.threads for row in bench.rows}) == 1:
        return [head, *rows]
    threads = (THREADS, *(str(row.threads) for row in bench.rows))
    return [(row[0], more, *row[1:]) for row, more in zip((head, *rows), threads, strict=True)]


def _cells(bench: Bench, row: Row) -> tuple[str, ...]:
    """One row of the table, as under :data:`HEAD`."""
    ms = row.latency_ms
    numbers = [f"{value:.4f}" for value in (ms.median, ms.min, ms.p90, ms.p99)]
    ratio = "" if row.ratio is None else str(row.ratio)
    return (_name(bench, row), *numbers, ratio, _accuracy(row.accuracy), f"{row.size_bytes:,}")


def bench_table(bench: Bench, missing: list[Missing]) -> tuple[list[Table], list[str]]:
    """Tables of a benchmark and the lines under them (parity, noise, what is missing)."""
    tables = [_table(f"latency at batch {bench.conditions['batch']} (ms)", *_rows(bench))]
    if bench.scaling:
        title = f"times faster than with {conditions.threads_text([bench.scaling[0].over])}"
        tables.append(_table(title, SCALING, *_scaling_cells(bench)))
    lines = [*parity_lines(bench), *_noise_lines(bench), *conditions.lines(bench.conditions)]
    return tables, [*lines, *(f"{m.name}: {m.remedy}" for m in missing)]


def _table(title: str, head: Sequence[str], *rows: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(name, justify="left" if name == "runtime" else "right")
    for row in rows:
        table.add_row(*row)
    return table


def _scaling_cells(bench: Bench) -> list[tuple[str, ...]]:
    """The rows of the second table, as under :data:`SCALING`."""
    return [
        (
            _name(bench, each),
            str(each.threads),
            f"{each.median_ms:.4f}",
            str(each.faster),
            "" if each.ratio is None else f"{each.ratio.value:.3g}",
        )
        for each in bench.scaling
    ]


def markdown_cell(value: Any) -> str:
    """Text that cannot leave its cell of a Markdown table, nor be markup there."""
    text = html.escape(shown(str(value)), quote=False)
    return re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", text)


def bench_markdown(bench: Bench) -> str:
    """The benchmark as Markdown tables with its conditions, for records and issues."""
    lines = _markdown(*_rows(bench))
    if bench.scaling:
        lines += ["", *_markdown(SCALING, *_scaling_cells(bench))]
    parity = map(markdown_cell, parity_lines(bench))
    facts = (f"- {key}: {markdown_cell(value)}" for key, value in bench.conditions.items())
    return "\n".join([*lines, "", *parity, "", *facts]) + "\n"


def _markdown(head: Sequence[str], *rows: Sequence[str]) -> list[str]:
    lines = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    return [*lines, *("| " + " | ".join(map(markdown_cell, row)) + " |" for row in rows)]


def _noise_lines(bench: Bench) -> list[str]:
    noise, found = bench.conditions["noise"], conditions.warnings(bench.conditions)
    if noise <= NOISY:
        return found
    return [
        *found,
        f"noisy: rounds of {bench.conditions['noisiest']} spread by {100 * noise:.0f} % of their "
        "median (quartiles); trust the intervals, or stop what else runs, use --pin, more --rounds",
    ]


def parity_lines(bench: Bench) -> list[str]:
    return [
        line if len(bench.models) == 1 else f"{each.label}: {line}"
        for each in bench.models
        for line in _report_lines(each.parity)
    ]


def _report_lines(report: ParityReport | None) -> list[str]:
    if report is None:
        return ["parity: not checked, no runtime of the model itself was asked for"]
    total = report.total
    lines = [
        f"parity {report.verdict}: {total['images']:,} images, "
        f"{total['sign_bits_differing']:,} of {total['sign_bits_compared']:,} sign bits differ, "
        f"logits differ by at most {total['logits_max_abs_diff']:.2g}"
    ]
    lines += [
        f"  {each.name}: {each.sign_bits_differing:,} bits differ, first at "
        f"'{each.first_difference}', logits by {each.logits_max_abs_diff:.3g}"
        for each in report.comparisons
        if not report.keeps(each)
    ]
    return lines
