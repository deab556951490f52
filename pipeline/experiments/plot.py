"""The picture of an experiment: test accuracy over depth, with error bars, a line per method."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, and a marker each, so that lines differ without colour too.
STYLES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"),
    ("#E69F00", "v"), ("#56B4E9", "P"), ("#000000", "X"),
)  # fmt: skip
APART = 0.4
"""Binary layers between nets drawn side by side at one depth, so that no marker hides another."""


def depth(model: str) -> int:
    """Number in a model's name (``plain-24`` -> 24), 0 if it has none."""
    found = re.search(r"(\d+)", model)
    return int(found[1]) if found else 0


def label(row: dict[str, Any]) -> str:
    """Method of a row, and whether activations stay real."""
    suffix = " (binary weights only)" if row["binarize"] == "weights" else ""
    return str(row["method"]) + suffix


def draw(rows: Sequence[dict[str, Any]], title: str, classes: int | None) -> bytes:
    """PNG bytes; arguments as of :func:`figure`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    made = figure(rows, title, classes)
    FigureCanvasAgg(made)
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def figure(rows: Sequence[dict[str, Any]], title: str, classes: int | None) -> Figure:
    """The picture: a line per method, side by side; open markers for binary weights alone.

    Args:
        rows: as :func:`frostbit.pipeline.experiments.grid.means` gives them; error bars are one
            standard deviation over seeds.
        title: above the picture.
        classes: of the data set, for a line at chance; None leaves it out.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(9, 5.5), dpi=120, layout="constrained")
    axes = made.subplots()
    _lines(axes, rows)
    if classes is not None:
        chance = 100 / classes
        axes.axhline(chance, color="grey", linestyle=":", label=f"chance ({chance:g} %)")
    counts = sorted({row["runs"] for row in rows})
    seeds = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    axes.set_xlabel("binary layers (nets of as many are drawn side by side)")
    axes.set_xticks(sorted({depth(row["model"]) for row in rows}))
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(bottom=0)
    axes.set_title(f"{title}\n(mean and standard deviation, {seeds} seeds)", fontsize=11)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return made


def _lines(axes: Axes, rows: Sequence[dict[str, Any]]) -> None:
    """Means and spreads, and an entry of the legend per method."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    names = sorted(dict.fromkeys(label(row) for row in rows), key=lambda name: "(" in name)
    models = {name: {r["model"] for r in rows if label(r) == name} for name in names}
    names.sort(key=lambda name: len(models[name]) == 1)  # lines stand in the middle
    first = max(0, sum(len(each) > 1 for each in models.values()) - 1) / 2
    for place, name in enumerate(names):
        mine = sorted((r for r in rows if label(r) == name), key=lambda r: depth(r["model"]))
        colour, marker = STYLES[methods.index(mine[0]["method"]) % len(STYLES)]
        weights_only = mine[0]["binarize"] == "weights"
        axes.errorbar(
            [depth(r["model"]) + APART * (place - first) for r in mine],
            [r["test_accuracy"]["mean"] for r in mine],
            [r["test_accuracy"]["std"] for r in mine],
            label=None if weights_only else name,
            color=colour,
            marker=marker,
            markerfacecolor="white" if weights_only else colour,
            capsize=3,
        )
    if any(row["binarize"] == "weights" for row in rows):
        (key,) = axes.plot([], [], "o", color="grey", label="open: binary weights only")
        key.set_markerfacecolor("white")
