"""``pipeline predict``: pictures through the engine, the likeliest classes with their scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from frostbit.kernels.engine import Engine
from frostbit.pipeline.console import Progress
from frostbit.pipeline.data import pictures

PHOTOGRAPHS = ("folder", "imagenet")
"""Data sets whose pictures are evaluated with a margin; see :mod:`..data.pictures`."""
TOP = 5


@dataclass(frozen=True)
class Guess:
    """One class of one picture.

    Attributes:
        name: the class.
        logit: what the network gave.
        score: softmax over all classes, 0..1; not calibrated to be a probability.
    """

    name: str
    logit: float
    score: float


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one picture, best first."""

    image: str
    guesses: tuple[Guess, ...]


def predict(
    engine: Engine, paths: Sequence[Path], top: int = TOP, progress: Progress = iter
) -> list[Prediction]:
    """Run pictures, one at a time.

    Raises:
        UserError: a picture cannot be decoded, or the model wants neither grey nor RGB.
    """
    found = []
    height, width, _ = engine.input_shape
    photographs = engine.program.dataset in PHOTOGRAPHS and height == width
    for index in progress(range(len(paths))):
        path = paths[index]
        if photographs:
            pixels = pictures.evaluated(path, height, pictures.PREDICTING)
        else:
            pixels = pictures.fitted(path, engine.input_shape)
        logits = engine.run(pixels[None])[0]
        found.append(Prediction(str(path), _best(logits.astype(np.float64), engine.classes, top)))
    return found


def _best(logits: np.ndarray, classes: Sequence[str], top: int) -> tuple[Guess, ...]:
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    order = np.argsort(-logits, kind="stable")[:top]
    return tuple(Guess(classes[i], float(logits[i]), float(shares[i])) for i in order)


def to_json(predictions: Iterable[Prediction]) -> str:
    """One object a picture."""
    return json.dumps([asdict(each) for each in predictions], indent=2) + "\n"


def prediction_table(predictions: Sequence[Prediction]) -> Table:
    """Table for the terminal."""
    table = Table()
    for column in ("image", "class", "score", "logit"):
        table.add_column(column, justify="left" if column in ("image", "class") else "right")
    for each in predictions:
        for place, guess in enumerate(each.guesses):
            score = f"{100 * guess.score:.1f} %"
            table.add_row("" if place else each.image, guess.name, score, f"{guess.logit:.4g}")
        table.add_section()
    return table
