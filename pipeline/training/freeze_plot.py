"""training.png: loss and accuracy over time, above two pictures of layer by time.

Grey lines mark where a layer became binary; between them the loss rises and falls, a sawtooth.
The first picture shows the frozen share, the second how many binary weights changed their sign.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from frostbit.pipeline.run.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import QuadMesh
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    from frostbit.pipeline.run.metrics import Metrics

# Okabe and Ito's blue and vermillion: distinct for every kind of colour vision.
LOSS_COLOUR, ACCURACY_COLOUR = "#0072B2", "#D55E00"


def draw(history: Sequence[Metrics], recipe: Recipe) -> bytes:
    """The picture as PNG bytes.

    Args:
        history: at least one interval.
        recipe: named in the title.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    made = figure(history, recipe)
    FigureCanvasAgg(made)
    buffer = io.BytesIO()
    made.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def figure(history: Sequence[Metrics], recipe: Recipe) -> Figure:
    """The picture as a figure that has no canvas yet; arguments as of :func:`draw`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8.5), dpi=120, layout="constrained")
    curves, freezing, flipping = figure.subplots(3, 1, sharex=True, height_ratios=(3, 2, 2))
    title = f"{recipe.name}: {recipe.model} on {recipe.dataset}, method {recipe.method}, "
    title = f"{title}seed {recipe.seed}".replace("$", r"\$")  # a dollar would start a formula
    figure.suptitle(title, fontsize=12)
    _curves(curves, history)
    _freezing(freezing, history)
    _flipping(flipping, history)
    flipping.set_xlabel("epoch")
    return figure


SMOOTHED = 7
"""Intervals averaged for the bold lines: each holds few images, and the teeth are shallow."""


def smooth(values: Sequence[float], width: int = SMOOTHED) -> NDArray[np.float64]:
    """Mean of the ``width`` (odd) values around each one, of fewer at the ends."""
    ones, reach = np.ones(len(values)), width // 2
    kernel = np.ones(width)
    sums = np.convolve(np.asarray(values, np.float64), kernel)[reach : reach + len(values)]
    found: NDArray[np.float64] = sums / np.convolve(ones, kernel)[reach : reach + len(values)]
    return found


def closings(history: Sequence[Metrics]) -> list[float]:
    """Epochs at which a layer became fully frozen while training went on."""
    counts = [sum(share == 1 for share in row.frozen) for row in history]
    rose = [after > before for before, after in itertools.pairwise(counts)]
    return [row.epoch for row, there in zip(history[1:], rose, strict=True) if there]


def _curves(axes: Axes, history: Sequence[Metrics]) -> None:
    epochs = [row.epoch for row in history]
    losses, right = [row.loss for row in history], axes.twinx()
    accuracies = [row.accuracy for row in history]
    axes.plot(epochs, losses, color=LOSS_COLOUR, alpha=0.3)
    right.plot(epochs, accuracies, color=ACCURACY_COLOUR, alpha=0.3)
    (loss,) = axes.plot(epochs, smooth(losses), color=LOSS_COLOUR, label="loss")
    closed = None
    for epoch in closings(history):
        closed = axes.axvline(epoch, color="grey", linewidth=0.8, label="a layer is binary")
    axes.set_ylabel("training loss")
    axes.set_ylim(bottom=0)
    (accuracy,) = right.plot(
        epochs, smooth(accuracies), color=ACCURACY_COLOUR, linestyle="--", label="accuracy"
    )
    right.set_ylabel("training accuracy (%)")
    right.set_ylim(0, 100)
    handles = [loss, accuracy, *([] if closed is None else [closed])]
    above = (0.5, 1.0)
    axes.legend(handles=handles, loc="lower center", bbox_to_anchor=above, ncols=3, frameon=False)


def _map(
    axes: Axes, history: Sequence[Metrics], values: NDArray[np.float64], scale: Normalize
) -> QuadMesh:
    """A layer-by-time picture of ``values`` ``[layers, intervals]``."""
    from matplotlib.ticker import MaxNLocator

    edges = np.array([0.0, *(row.epoch for row in history)])
    mesh = axes.pcolormesh(
        edges, np.arange(len(values) + 1) - 0.5, values, cmap="cividis", norm=scale, rasterized=True
    )
    axes.set_ylabel("layer (0 = input side)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return mesh


def _freezing(axes: Axes, history: Sequence[Metrics]) -> None:
    from matplotlib.colors import Normalize

    shares = np.array([row.frozen for row in history]).T
    mesh = _map(axes, history, shares, Normalize(0, 1))
    axes.figure.colorbar(mesh, ax=axes, label="frozen share", pad=0.01)


def _flipping(axes: Axes, history: Sequence[Metrics]) -> None:
    """Sign flips per step, so that runs of other lengths compare, in orders of magnitude."""
    from matplotlib.colors import LogNorm

    steps = np.diff([0, *(row.step for row in history)])
    flips = np.array([row.flips for row in history]).T / steps
    mesh = _map(axes, history, np.maximum(flips, 1e-6), LogNorm(1e-6, 1e-1))
    axes.figure.colorbar(mesh, ax=axes, label="sign flips\n(share per step)", pad=0.01)
