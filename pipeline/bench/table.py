"""A benchmark as a person reads it: the table and the lines under it, also as Markdown."""

from __future__ import annotations

import html
import re
from typing import Any

from rich.table import Table

from frostbit.export.parity import ParityReport
from frostbit.pipeline.bench import conditions
from frostbit.pipeline.bench.measure import Bench, Row
from frostbit.pipeline.bench.timing import NOISY
from frostbit.pipeline.console import shown
from frostbit.pipeline.parity.runtimes import Missing


def _accuracy(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"


HEAD = ("runtime", "median", "min", "p90", "p99", "x engine (95 % interval)", "accuracy", "bytes")


def _cells(bench: Bench, row: Row) -> tuple[str, ...]:
    """One row of the table, as under :data:`HEAD`."""
    ms = row.latency_ms
    numbers = [f"{value:.4f}" for value in (ms.median, ms.min, ms.p90, ms.p99)]
    name = row.name if len(bench.models) == 1 else f"{row.model} {row.name}"
    ratio = "" if row.ratio is None else str(row.ratio)
    return (name, *numbers, ratio, _accuracy(row.accuracy), f"{row.size_bytes:,}")


def bench_table(bench: Bench, missing: list[Missing]) -> tuple[Table, list[str]]:
    """Runtime table of a benchmark and the lines under it (parity, noise, what is missing)."""
    title = f"latency at batch {bench.conditions['batch']} (ms)"
    table = Table(title=title, title_justify="left")
    for name in HEAD:
        table.add_column(name, justify="left" if name == "runtime" else "right")
    for row in bench.rows:
        table.add_row(*_cells(bench, row))
    lines = [*parity_lines(bench), *_noise_lines(bench), *conditions.lines(bench.conditions)]
    return table, [*lines, *(f"{m.name}: {m.remedy}" for m in missing)]


def markdown_cell(value: Any) -> str:
    """Text that cannot leave its cell of a Markdown table, nor be markup there."""
    text = html.escape(shown(str(value)), quote=False)
    return re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", text)


def bench_markdown(bench: Bench) -> str:
    """The benchmark as a Markdown table with its conditions, for records and issues."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    rows = (map(markdown_cell, _cells(bench, row)) for row in bench.rows)
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    parity = map(markdown_cell, parity_lines(bench))
    facts = (f"- {key}: {markdown_cell(value)}" for key, value in bench.conditions.items())
    return "\n".join([*lines, "", *parity, "", *facts]) + "\n"


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
