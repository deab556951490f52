"""The report's figures: profile, runtimes, confusion; the training picture is freeze_plot's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

OURS, OTHERS = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermillion
FULL = "#E69F00"
NAMED_CLASSES = 20
"""With more classes a confusion matrix shows no names and numbers."""


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def _log(axis: Axis) -> None:
    """Plain numbers at 1, 2, 5 of a logarithmic scale."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _point(axes: Axes, at: tuple[float, float], text: str, ours: bool) -> None:
    axes.scatter(*at, s=70 if ours else 40, color=OURS if ours else OTHERS, zorder=3)
    # a dollar would start a formula
    label = text.replace("$", r"\$")
    axes.annotate(label, at, (6, 4), textcoords="offset points", fontsize=8)


def profile(steps: Sequence[dict[str, Any]]) -> Figure:
    """Bars of microseconds, one a step, binary ones in another colour."""
    figure = _figure(8, 0.6 + 0.22 * len(steps))
    axes = figure.subplots()
    colours = [OURS if step["binary_macs"] else FULL for step in steps]
    axes.barh(range(len(steps)), [step["microseconds"] for step in steps], color=colours)
    axes.set_yticks(range(len(steps)), [str(step["name"]) for step in steps], fontsize=8)
    axes.invert_yaxis()
    axes.margins(y=0.01)
    axes.set_xlabel("median time (us); blue: binary convolutions, yellow: everything else")
    axes.grid(axis="x", alpha=0.3)
    return figure


def runtimes(rows: Sequence[dict[str, Any]]) -> Figure:
    """Latency and size of every runtime, its accuracy beside the name."""
    figure = _figure(8, 4.5)
    axes = figure.subplots()
    for row in rows:
        ours = str(row["name"]).startswith("engine")
        x, y = row["latency_ms"]["median"], row["size_bytes"] / 1024
        right = "" if row["accuracy"] is None else f" {row['accuracy']:.1f} %"
        _point(axes, (x, y), f"{row['name']}{right}", ours)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _log(axes.xaxis)
    _log(axes.yaxis)
    axes.margins(0.2)
    axes.set_xlabel("median latency (ms)")
    axes.set_ylabel("size (KiB)")
    axes.grid(which="both", alpha=0.25)
    return figure


def confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Heat map of ``counts`` ``[true, predicted]``; rows are shares of their class."""
    count = len(classes)
    figure = _figure(6.4, 5.6)
    axes = figure.subplots()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    mesh = axes.imshow(shares, cmap="cividis", vmin=0, vmax=1)
    figure.colorbar(mesh, ax=axes, label="share of the true class", pad=0.01)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if count <= NAMED_CLASSES:
        axes.set_xticks(range(count), classes, rotation=60, ha="right", fontsize=8)
        axes.set_yticks(range(count), classes, fontsize=8)
        for (i, j), value in np.ndenumerate(counts):
            if value:
                colour = "black" if shares[i, j] > 0.5 else "white"
                axes.text(j, i, str(value), ha="center", va="center", fontsize=7, color=colour)
    return figure


def compared(points: Sequence[tuple[str, float, float, bool]]) -> Figure:
    """Accuracy over latency of several models.

    Args:
        points: name, engine latency in ms, accuracy in percent, whether on the Pareto front.
    """
    figure = _figure(8, 4.8)
    axes = figure.subplots()
    front = sorted((x, y) for _, x, y, best in points if best)
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=OURS, alpha=0.5)
    for name, x, y, best in points:
        _point(axes, (x, y), name, best)
    axes.set_xscale("log")
    _log(axes.xaxis)
    axes.margins(0.2)
    axes.set_xlabel("engine, median latency (ms); blue: on the Pareto front")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
    axes.grid(which="both", alpha=0.25)
    return figure
