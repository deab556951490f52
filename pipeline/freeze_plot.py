"""training.png: loss and accuracy over time, above two pictures of layer by time.

The first shows the frozen share, the second how many binary weights changed their sign.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from pipeline.metrics import Metrics

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


def _curves(axes: Axes, history: Sequence[Metrics]) -> None:
    epochs = [row.epoch for row in history]
    (loss,) = axes.plot(epochs, [row.loss for row in history], color=LOSS_COLOUR, label="loss")
    axes.set_ylabel("training loss", color=LOSS_COLOUR)
    axes.set_ylim(bottom=0)
    axes.grid(axis="x", alpha=0.3)
    right = axes.twinx()
    (accuracy,) = right.plot(
        epochs,
        [row.accuracy for row in history],
        color=ACCURACY_COLOUR,
        linestyle="--",
        label="accuracy",
    )
    right.set_ylabel("training accuracy (%)", color=ACCURACY_COLOUR)
    right.set_ylim(0, 100)
    axes.legend(handles=[loss, accuracy], loc="center right")


def _map(axes: Axes, history: Sequence[Metrics], values: NDArray[np.float64], **scale: Any) -> Any:
    """A layer-by-time picture of ``values`` ``[layers, intervals]``."""
    from matplotlib.ticker import MaxNLocator

    edges = np.array([0.0, *(row.epoch for row in history)])
    mesh = axes.pcolormesh(
        edges, np.arange(len(values) + 1) - 0.5, values, cmap="cividis", rasterized=True, **scale
    )
    axes.set_ylabel("layer (0 = input side)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return mesh


def _freezing(axes: Axes, history: Sequence[Metrics]) -> None:
    shares = np.array([row.frozen for row in history]).T
    mesh = _map(axes, history, shares, vmin=0, vmax=1)
    axes.figure.colorbar(mesh, ax=axes, label="frozen share", pad=0.01)


def _flipping(axes: Axes, history: Sequence[Metrics]) -> None:
    """Sign flips per step, so that runs of other lengths compare, in orders of magnitude."""
    from matplotlib.colors import LogNorm

    steps = np.diff([0, *(row.step for row in history)])
    flips = np.array([row.flips for row in history]).T / steps
    mesh = _map(axes, history, np.maximum(flips, 1e-6), norm=LogNorm(1e-6, 1e-1))
    axes.figure.colorbar(mesh, ax=axes, label="sign flips\n(share per step)", pad=0.01)
