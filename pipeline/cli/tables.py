"""Tables and summaries as a person reads them in a terminal."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from frostbit.export.parity import ParityReport
from frostbit.export.summary import summarise_program
from frostbit.kernels.ir.exact import Exactness, analyse
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.bench import conditions
from frostbit.pipeline.bench.measure import Bench, Row
from frostbit.pipeline.bench.timing import NOISY
from frostbit.pipeline.parity.runtimes import Missing
from frostbit.pipeline.report.summary import layer_table

if TYPE_CHECKING:
    from frostbit.pipeline.training.train import RunResult


def exactness_line(verdict: Exactness) -> str:
    """One sentence on what :mod:`frostbit.kernels.ir.exact` proves of a model."""
    if not verdict.has_signs:
        return "binary weights only: no sign bits; logits agree within 1e-4"
    if not verdict.body_exact:
        return f"not exact: float32 rounds at '{verdict.tightest}', runtimes may differ"
    head = "logits exact too" if verdict.head_exact else "logits within 1e-5"
    return (
        f"sign bits exact on every runtime: grid 2^-{verdict.exponent}, "
        f"largest value {verdict.bound:.1f}, {verdict.bits_left:.1f} bits left; {head}"
    )


def training_lines(result: RunResult) -> list[str]:
    """What ``pipeline train`` says at the end."""
    where = f"wrote {result.folder.path} after {result.seconds:.0f} s of training"
    if result.unfrozen:
        left = sum(result.unfrozen.values())
        return [
            f"not exactly binary: {left:,} entries in {len(result.unfrozen)} layers are not "
            "frozen; pack will refuse this run",
            f"validation {result.validation_accuracy:.2f} %, test {result.test_before:.2f} %",
            where,
        ]
    return [
        f"exactly binary; validation {result.validation_accuracy:.2f} %, test "
        f"{result.test_after:.2f} % ({result.test_before:.2f} % before folding and rounding)",
        where,
    ]


def pack_table(program: Program, file_bytes: int) -> tuple[Table, list[str]]:
    """Per-layer table of ``program`` and the lines under it (totals, ratio, exactness)."""
    found = summarise_program(program, file_bytes)
    counts, macs = found.parameters, sum(found.macs.values())
    full = counts.get(32, 0)
    lines = [
        f"{counts.get(1, 0):,} 1-bit and {full:,} 32-bit parameters; "
        f"{100 * (found.binary_share or 0):.1f} % of {macs:,} MACs are binary",
        f"file {file_bytes:,} bytes, fp32 state {found.float_bytes:,} bytes: "
        f"{found.float_bytes / file_bytes:.1f} times smaller; "
        f"{100 * 4 * full / file_bytes:.1f} % of the file is full precision",
        exactness_line(analyse(program)),
    ]
    return layer_table(found, "packed model"), lines


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
    lines = [*_parity_lines(bench), *_noise_lines(bench), *conditions.lines(bench.conditions)]
    return table, [*lines, *(f"{m.name}: {m.remedy}" for m in missing)]


def markdown_cell(value: Any) -> str:
    """Text that cannot leave its cell of a Markdown table, nor be markup there."""
    text = html.escape(" ".join(str(value).split()), quote=False)
    return re.sub(r"([\\`*_{}\[\]|~])", r"\\\1", text)


def bench_markdown(bench: Bench) -> str:
    """The benchmark as a Markdown table with its conditions, for records and issues."""
    lines = ["| " + " | ".join(HEAD) + " |", "|---" * len(HEAD) + "|"]
    rows = (map(markdown_cell, _cells(bench, row)) for row in bench.rows)
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    facts = (f"- {key}: {markdown_cell(value)}" for key, value in bench.conditions.items())
    return "\n".join([*lines, "", *_parity_lines(bench), "", *facts]) + "\n"


def _noise_lines(bench: Bench) -> list[str]:
    noise, found = bench.conditions["noise"], conditions.warnings(bench.conditions)
    if noise <= NOISY:
        return found
    return [
        *found,
        f"noisy: rounds of {bench.conditions['noisiest']} spread by {100 * noise:.0f} % of their "
        "median (quartiles); trust the intervals, or stop what else runs, use --pin, more --rounds",
    ]


def _parity_lines(bench: Bench) -> list[str]:
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


def summary(bench: Bench, model: Path, program: Program) -> list[str]:
    """The five lines at the end of ``pipeline run``."""
    rows = {row.name: row for row in bench.rows}
    engine = next((row for row in bench.rows if row.name.startswith("engine")), None)
    size = model.stat().st_size
    before = summarise_program(program, size).float_bytes
    accuracy = None if engine is None else engine.accuracy
    measured = "not measured" if accuracy is None else f"{accuracy:.2f} % of the test images"
    lines = [
        f"accuracy   {measured} classified correctly by the packed model",
        f"size       {size:,} bytes, {before / size:.1f} times smaller than fp32",
    ]
    if engine is not None:
        median = engine.latency_ms.median
        lines.append(f"latency    {median:.3f} ms median on one core ({engine.name})")
        versus = [
            f"{ratio.value:.1f}x {label}"
            for name, label in (
                ("ort-fp32", "ONNX Runtime fp32"),
                ("torch-fp32", "torch fp32"),
                ("lce:indirect", "LCE"),
            )
            if name in rows and (ratio := rows[name].ratio) is not None
        ]
        lines.append(f"faster     {', '.join(versus) or 'no peer was measured'}")
    lines.append(_parity_lines(bench)[0].replace("parity ", "parity     ", 1))
    return lines


def experiment_table(record: dict[str, Any]) -> Table:
    """Mean and standard deviation of every group of runs of an experiment's record."""
    table = Table(title=record["title"])
    for column in ("model", "method", "binarize"):
        table.add_column(column)
    for column in ("runs", "validation %", "test %"):
        table.add_column(column, justify="right")
    for row in record["means"]:
        figures = [row["validation_accuracy"], row["test_accuracy"]]
        shown = [f"{f['mean']:.2f} ± {f['std']:.2f}" for f in figures]
        names = [str(row[key]) for key in ("model", "method", "binarize", "runs")]
        table.add_row(*names, *shown)
    return table
