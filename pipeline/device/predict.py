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
from frostbit.pipeline.data.datasets import ON_DISK
from frostbit.pipeline.errors import UserError

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
    """The likeliest classes of one picture, best first; or none, and the error that says why."""

    image: str
    guesses: tuple[Guess, ...]
    error: str = ""


def predict(
    engine: Engine, paths: Sequence[Path], top: int = TOP, progress: Progress = iter
) -> list[Prediction]:
    """Run pictures, one at a time; one that cannot be decoded is named in its answer.

    Raises:
        UserError: the model wants neither grey nor RGB.
    """
    pictures.require_channels(engine.input_shape[2])
    return [_answer(engine, paths[index], top) for index in progress(range(len(paths)))]


def _answer(engine: Engine, path: Path, top: int) -> Prediction:
    try:
        if engine.program.dataset in ON_DISK:
            pixels = pictures.evaluated(path, engine.input_shape, pictures.PREDICTING)
        else:
            pixels = pictures.fitted(path, engine.input_shape)
    except UserError as error:
        return Prediction(str(path), (), str(error))
    logits = engine.run(pixels[None])[0]
    return Prediction(str(path), _best(logits.astype(np.float64), engine.classes, top))


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
        if each.error:
            table.add_row(each.image, "not read", "", "")
        table.add_section()
    return table
