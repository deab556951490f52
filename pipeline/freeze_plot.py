"""training.png: loss and accuracy over time above a layer-by-time picture of the frozen share."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pipeline.recipe import Recipe

if TYPE_CHECKING:
    from matplotlib.axes import Axes

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
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.5), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    curves, freezing = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(
        f"{recipe.name}: {recipe.model} on {recipe.dataset}, method {recipe.method}, "
        f"seed {recipe.seed}",
        fontsize=12,
    )
    _curves(curves, history)
    _freezing(freezing, history)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


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


def _freezing(axes: Axes, history: Sequence[Metrics]) -> None:
    from matplotlib.ticker import MaxNLocator

    shares = np.array([row.frozen for row in history]).T
    edges = np.array([0.0, *(row.epoch for row in history)])
    mesh = axes.pcolormesh(
        edges, np.arange(len(shares) + 1) - 0.5, shares, cmap="cividis", vmin=0, vmax=1
    )
    axes.set_xlabel("epoch")
    axes.set_ylabel("layer (0 = input side)")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.figure.colorbar(mesh, ax=axes, label="frozen share", pad=0.01)
