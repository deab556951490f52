"""The freeze picture, read back from matplotlib: every panel shows the numbers it was given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure

from frostbit.pipeline.run.metrics import Metrics
from frostbit.pipeline.run.recipe import Recipe
from frostbit.pipeline.training import freeze_plot

FROZEN = ((0, 0), (0.5, 0), (0.9, 0.25), (1, 0.5), (1, 0.75), (1, 1))
HISTORY = [
    Metrics(
        step=(index + 1) * 10 if index < 5 else 80,  # the last interval is longer
        epoch=0.5 * (index + 1),
        loss=3.0 - 0.25 * index,
        accuracy=10.0 * (index + 1),
        lr=0.01,
        frozen=frozen,
        flips=(0.2 / (index + 1), 0.0 if index == 5 else 0.0004 * index),
    )
    for index, frozen in enumerate(FROZEN)
]


@pytest.fixture(scope="module")
def figure() -> Figure:
    return freeze_plot.figure(HISTORY, Recipe(name="a $1 net", seed=7))


def labelled(figure: Figure, text: str) -> Axes:
    """The one axes with this label on its y axis."""
    (found,) = [axes for axes in figure.axes if axes.get_ylabel() == text]
    return found


def panels(figure: Figure) -> list[Axes]:
    """The panels of layer by time, from top to bottom."""
    found = [axes for axes in figure.axes if axes.get_ylabel().startswith("layer")]
    return sorted(found, key=lambda axes: axes.get_subplotspec().rowspan.start)  # type: ignore[union-attr]


def mesh(axes: Axes) -> QuadMesh:
    (found,) = [each for each in axes.collections if isinstance(each, QuadMesh)]
    return found


def test_the_frozen_share_of_every_layer_is_shown_over_time(figure: Figure) -> None:
    shown = mesh(panels(figure)[0])
    assert np.array_equal(shown.get_array(), np.array(FROZEN).T)
    assert shown.get_clim() == (0, 1)
    assert shown.get_coordinates()[0, :, 0].tolist() == [0, *(row.epoch for row in HISTORY)]
    assert labelled(figure, "frozen share").get_ylim() == (0, 1)


def test_sign_flips_are_shown_for_each_step(figure: Figure) -> None:
    steps = [10, 10, 10, 10, 10, 30]
    expected = np.array([row.flips for row in HISTORY]).T / np.array(steps)
    shown = np.asarray(mesh(panels(figure)[1]).get_array())
    none = expected == 0
    assert np.allclose(shown[~none], expected[~none])
    assert none.any()
    assert (shown[none] == shown.min()).all(), "a logarithm has no 0: the darkest colour"
    assert labelled(figure, "sign flips\n(share per step)") is not None


def test_loss_and_accuracy_are_drawn_thin_as_they_are_and_bold_as_means(figure: Figure) -> None:
    epochs = [row.epoch for row in HISTORY]
    for label, values in (
        ("training loss", [row.loss for row in HISTORY]),
        ("training accuracy (%)", [row.accuracy for row in HISTORY]),
    ):
        lines = labelled(figure, label).get_lines()
        thin, bold = [line for line in lines if len(line.get_xdata()) == len(HISTORY)]
        assert list(thin.get_xdata()) == list(bold.get_xdata()) == epochs
        assert list(thin.get_ydata()) == values
        assert np.allclose(bold.get_ydata(), freeze_plot.smooth(values))
        assert (thin.get_alpha() or 1) < (bold.get_alpha() or 1)
    assert labelled(figure, "training loss").get_ylim()[0] == 0
    assert labelled(figure, "training accuracy (%)").get_ylim() == (0, 100)


def test_bold_means_reach_over_seven_intervals() -> None:
    values = np.zeros(15)
    values[7] = 7.0
    assert np.allclose(freeze_plot.smooth(values), [0] * 4 + [1] * 7 + [0] * 4)


def test_a_grey_line_stands_where_a_layer_became_wholly_frozen(figure: Figure) -> None:
    assert freeze_plot.closings(HISTORY) == [2.0, 3.0]
    lines = labelled(figure, "training loss").get_lines()
    upright = [line.get_xdata()[0] for line in lines if len(set(line.get_xdata())) == 1]
    assert upright == [2.0, 3.0]
    nearly = [row for row in HISTORY if max(row.frozen) < 1]
    assert freeze_plot.closings(nearly) == []


def test_the_title_and_the_shared_axis_say_what_it_is(figure: Figure) -> None:
    assert figure.get_suptitle() == r"a \$1 net: bireal-4 on digits, method stompp, seed 7"
    assert [axes.get_xlabel() for axes in panels(figure)] == ["", "epoch"]
