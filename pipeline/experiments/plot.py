"""The picture of an experiment: test accuracy over depth, with error bars, a line per method."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

# Okabe and Ito's colours, and a marker each, so that lines differ without colour too.
STYLES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"),
    ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"),
)  # fmt: skip
ASIDE = 0.5
"""Nets of binary weights alone are drawn this far to the right, with open markers."""


def depth(model: str) -> int:
    """Number in a model's name (``plain-24`` -> 24), 0 if it has none."""
    found = re.search(r"(\d+)", model)
    return int(found[1]) if found else 0


def label(row: dict[str, Any]) -> str:
    """Method of a row, and whether activations stay real."""
    suffix = " (binary weights only)" if row["binarize"] == "weights" else ""
    return str(row["method"]) + suffix


def draw(rows: Sequence[dict[str, Any]], title: str) -> bytes:
    """PNG bytes.

    Args:
        rows: as :func:`frostbit.pipeline.experiments.grid.means` gives them; error bars are one
            standard deviation over seeds.
        title: above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    methods = list(dict.fromkeys(row["method"] for row in rows))
    for name in dict.fromkeys(label(row) for row in rows):
        mine = sorted((r for r in rows if label(r) == name), key=lambda r: depth(r["model"]))
        colour, marker = STYLES[methods.index(mine[0]["method"]) % len(STYLES)]
        weights_only = mine[0]["binarize"] == "weights"
        axes.errorbar(
            [depth(r["model"]) + ASIDE * weights_only for r in mine],
            [r["test_accuracy"]["mean"] for r in mine],
            [r["test_accuracy"]["std"] for r in mine],
            label=name,
            color=colour,
            marker=marker,
            markerfacecolor="white" if weights_only else colour,
            capsize=4,
        )
    counts = sorted({row["runs"] for row in rows})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    axes.set_xlabel("binary layers")
    axes.set_xticks(sorted({depth(row["model"]) for row in rows}))
    axes.set_ylabel("test accuracy (%)")
    axes.set_title(f"{title}\n(mean and standard deviation, {seeds} seeds)", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
