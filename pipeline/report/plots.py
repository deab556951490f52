"""The report's figures: profile, runtimes, confusion; the training picture is freeze_plot's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

OURS, OTHERS = "#0072B2", "#D55E00"  # Okabe and Ito's blue and vermillion
FULL = "#B27400"
"""Their orange, darker: three times lighter or darker than white and than a dark page."""
PEERS = ("ort-fp32", "ort-int8", "torch-fp32")
"""Runtimes of the same architecture with random weights, which have no accuracy."""
DEEPEST = 0.75
"""Share of blue in the fullest cell of a confusion matrix: numbers stay readable in the page's ink,
light or dark."""
PREPARED = {"wide": "input widened", "groups": "groups set apart", "floats": "as floats"}
"""What a step before an op does, by the end of its name in a profile."""
WIDTH = 6.2
"""Inches of every figure: small, so that text keeps its size on a phone."""
NAMED_CLASSES = 20
"""With more classes a confusion matrix shows no names and numbers."""
MARGIN = 0.14
"""Free share of a scatter plot on each side of the points."""
Across: TypeAlias = Literal["center", "left", "right"]
Down: TypeAlias = Literal["center", "top", "bottom"]
LETTER, LINE, MARK = 0.0135, 0.06, 0.014
"""Width of a letter, height of a line, half a marker, as shares of a scatter plot."""
SIDES: tuple[tuple[int, int, Across, Down], ...] = (
    (0, 1, "center", "bottom"),
    (0, -1, "center", "top"),
    (1, 0, "left", "center"),
    (-1, 0, "right", "center"),
)
Box: TypeAlias = tuple[float, float, float, float]


class LatencyRow(TypedDict):
    """Milliseconds of a runtime, as in bench.json."""

    median: float
    p90: float


class RuntimeRow(TypedDict):
    """What is drawn of a runtime in bench.json."""

    name: str
    latency_ms: LatencyRow
    accuracy: float | None
    size_bytes: int


class StepRow(TypedDict):
    """What is drawn of a step of the profile in bench.json."""

    name: str
    binary_macs: int
    microseconds: float


@dataclass(frozen=True)
class Point:
    """A named point of a scatter plot; ``full``: filled, not hollow."""

    x: float
    y: float
    text: str
    colour: str
    full: bool = True


def _figure(height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH, height), layout="constrained")


def fitted(figure: Figure, height: float) -> Figure:
    """A figure made for a picture file, brought to the page's width; the page has its title."""
    figure.set_size_inches(WIDTH, height)
    figure.suptitle("")
    return figure


def _log(axis: Axis) -> None:
    """Plain numbers at 1, 2, 5 of a logarithmic scale."""
    from matplotlib.ticker import LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter("{x:g}")
    axis.set_minor_formatter(NullFormatter())


def _plain(text: str) -> str:
    """Text without a formula: a dollar would start one."""
    return text.replace("$", r"\$")


def _scatter(axes: Axes, points: Sequence[Point], log_y: bool) -> None:
    """Points with their names, each name where it covers no other name or point."""
    at = np.array([[p.x, p.y] for p in points])
    scaled = np.stack([np.log(at[:, 0]), np.log(at[:, 1]) if log_y else at[:, 1]], axis=1)
    spread = np.maximum(np.ptp(scaled, axis=0), 1e-9)
    places = (scaled - scaled.min(axis=0)) / spread * (1 - 2 * MARGIN) + MARGIN
    taken = [(x, y, MARK, MARK) for x, y in places]
    for (x, y), p in zip(places, points, strict=True):
        face = p.colour if p.full else "none"
        axes.scatter(p.x, p.y, s=48, facecolor=face, edgecolor=p.colour, linewidth=1.6, zorder=3)
        width = LETTER * len(p.text) / 2
        boxes = [(x + dx * (width + MARK), y + dy * LINE, width, LINE / 3) for dx, dy, *_ in SIDES]
        best = min(range(len(SIDES)), key=lambda i: _covered(boxes[i], taken))
        taken.append(boxes[best])
        dx, dy, ha, va = SIDES[best]
        axes.annotate(
            _plain(p.text), (p.x, p.y), xytext=(7 * dx, 8 * dy), textcoords="offset points",
            fontsize=8, ha=ha, va=va,
        )  # fmt: skip


def _covered(box: Box, taken: Sequence[Box]) -> float:
    """Area of ``box`` (centre, half width, half height) that others or the frame take."""
    x, y, w, h = box
    found = 10 * h * max(0.0, w - x, x + w - 1) + 10 * w * max(0.0, h - y, y + h - 1)
    for u, v, r, s in taken:
        across = min(x + w, u + r) - max(x - w, u - r)
        down = min(y + h, v + s) - max(y - h, v - s)
        found += max(0.0, across) * max(0.0, down)
    return found


def step_name(name: str) -> str:
    """A step of the profile in words: ``stem:wide`` -> ``stem, input widened``."""
    if name == "(call)":
        return "call from Python"
    op, _, what = name.rpartition(":")
    return f"{op}, {PREPARED[what]}" if op and what in PREPARED else name


def profile(steps: Sequence[StepRow]) -> Figure:
    """Bars of microseconds, one a step, binary ones in another colour."""
    figure = _figure(0.7 + 0.19 * len(steps))
    axes = figure.subplots()
    colours = [OURS if step["binary_macs"] else FULL for step in steps]
    bars = axes.barh(range(len(steps)), [step["microseconds"] for step in steps], color=colours)
    axes.bar_label(bars, fmt="%.2f", padding=3, fontsize=7)
    axes.set_yticks(
        range(len(steps)), [_plain(step_name(str(step["name"]))) for step in steps], fontsize=8
    )
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.01)
    axes.set_xlabel("median time (µs); blue: binary convolutions, orange: everything else")
    _bare(axes)
    return figure


def _bare(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)


def latencies(rows: Sequence[RuntimeRow]) -> Figure:
    """Bars of median latency, logarithmic, fastest first, each with its value.

    A line goes from the median to the 90th percentile.
    """
    ordered = sorted(rows, key=lambda row: float(row["latency_ms"]["median"]))
    medians = [float(row["latency_ms"]["median"]) for row in ordered]
    figure = _figure(0.8 + 0.3 * len(rows))
    axes = figure.subplots()
    colours = [OURS if _ours(row) else OTHERS for row in ordered]
    places = range(len(ordered))
    bars = axes.barh(places, medians, color=colours, height=0.7)
    late = [float(row["latency_ms"]["p90"]) - m for row, m in zip(ordered, medians, strict=True)]
    ends = ([0.0] * len(late), [max(0.0, each) for each in late])
    axes.errorbar(medians, places, xerr=ends, fmt="none", color=FULL, linewidth=1.5)
    for bar, median, extra in zip(bars, medians, late, strict=True):
        text, at = f"{median:.4g}", (median + max(0.0, extra), bar.get_y() + 0.35)
        axes.annotate(text, at, (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(places, [_plain(_label(row)) for row in ordered], fontsize=9)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(min(medians) / 2, 2.5 * max(m + e for m, e in zip(medians, ends[1], strict=True)))
    _log(axes.xaxis)
    axes.set_xlabel("median latency (ms, logarithmic), line: to the 90th percentile")
    _bare(axes)
    return figure


def _ours(row: RuntimeRow) -> bool:
    return str(row["name"]).startswith("engine")


def _label(row: RuntimeRow) -> str:
    return f"{row['name']}, {row['accuracy']:.1f} %" if row["accuracy"] is not None else row["name"]


def runtimes(rows: Sequence[RuntimeRow]) -> Figure:
    """Latency and size of every runtime, its accuracy beside the name."""
    figure = _figure(3.9)
    axes = figure.subplots()
    points = [
        Point(
            row["latency_ms"]["median"],
            row["size_bytes"] / 1024,
            _label(row),
            OURS if _ours(row) else OTHERS,
            row["name"] not in PEERS,
        )
        for row in rows
    ]
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.margins(MARGIN / (1 - 2 * MARGIN))
    _scatter(axes, points, log_y=True)
    _log(axes.xaxis)
    _log(axes.yaxis)
    peers = any(row["name"] in PEERS for row in rows)
    hollow = "; hollow: same architecture, random weights" if peers else ""
    axes.set_xlabel(f"median latency (ms){hollow}")
    axes.set_ylabel("size (KiB)")
    axes.grid(which="both", alpha=0.2)
    return figure


def confusion(counts: NDArray[np.int64], classes: Sequence[str]) -> Figure:
    """Heat map of ``counts`` ``[true, predicted]``; the deeper, the larger the share of its row.

    An empty cell is transparent, so that the page's own colour shows, light or dark.
    """
    from matplotlib.colors import LinearSegmentedColormap, to_rgb

    count = len(classes)
    figure = _figure(5.4)
    axes = figure.subplots()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    ramp = LinearSegmentedColormap.from_list("share", [(*to_rgb(OURS), a) for a in (0.0, DEEPEST)])
    # the root makes rare mistakes visible
    axes.imshow(np.sqrt(shares), cmap=ramp, vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if count <= NAMED_CLASSES:
        names = [_plain(name) for name in classes]
        axes.set_xticks(range(count), names, fontsize=8)
        if max(map(len, classes)) > 3:
            for label in axes.get_xticklabels():
                label.set(rotation=45, ha="right")
        axes.set_yticks(range(count), names, fontsize=8)
        for (i, j), value in np.ndenumerate(counts):
            if value:
                axes.text(j, i, str(value), ha="center", va="center", fontsize=8)
    return figure


def compared(points: Sequence[tuple[str, float, float, bool]]) -> Figure:
    """Accuracy over latency of several models.

    Args:
        points: name, engine latency in ms, accuracy in percent, whether on the Pareto front.
    """
    figure = _figure(4.0)
    axes = figure.subplots()
    front = sorted((x, y) for _, x, y, best in points if best)
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=OURS, alpha=0.5)
    named = [Point(x, y, name, OURS if best else OTHERS) for name, x, y, best in points]
    axes.set_xscale("log")
    _log(axes.xaxis)
    axes.margins(MARGIN / (1 - 2 * MARGIN))
    if named:
        _scatter(axes, named, log_y=False)
    axes.set_xlabel("engine, median latency (ms); blue: on the Pareto front")
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(top=min(100.0, axes.get_ylim()[1]))
    axes.grid(which="both", alpha=0.25)
    return figure
