"""``pipeline predict``: pictures through the engine, the likeliest classes with their scores."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.table import Table

from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.program import Preprocessing, Program, Softmax
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
        logit: what the network gave (an imported one perhaps the score itself).
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


def mapping_of(program: Program, limits: tuple[float, float] | None) -> Preprocessing | None:
    """How pixels become what ``program`` takes; None if it takes pixels.

    Args:
        program: the model.
        limits: what 0 and 255 become, if a person said so.

    Raises:
        UserError: the model takes floats and nothing says which, or it takes pixels and ``limits``
            are given.
    """
    if program.input_kind == "u8":
        if limits is not None:
            raise UserError("the model takes pixels 0..255, so leave out --range")
        return None
    if limits is not None:
        return Preprocessing.of_range(*limits, program.input_shape[2])
    if program.preprocessing is None:
        raise UserError(
            "the model takes floats, and its file does not say what pixels become: give their "
            "range, e.g. --range -1..1 for most of Larq's models, 0..1 for most of Brevitas'"
        )
    return program.preprocessing


def predict(
    engine: Engine,
    paths: Sequence[Path],
    top: int = TOP,
    progress: Progress = iter,
    mapping: Preprocessing | None = None,
) -> list[Prediction]:
    """Run pictures, one at a time; one that cannot be decoded is named in its answer.

    Args:
        engine: the model.
        paths: picture files.
        top: classes per picture, at most.
        progress: wraps the iterable of pictures.
        mapping: from :func:`mapping_of`.

    Raises:
        UserError: the model wants neither grey nor RGB.
    """
    pictures.require_channels(engine.input_shape[2])
    return [_answer(engine, paths[index], top, mapping) for index in progress(range(len(paths)))]


def _answer(engine: Engine, path: Path, top: int, mapping: Preprocessing | None) -> Prediction:
    try:
        if engine.program.dataset in ON_DISK:
            pixels = pictures.evaluated(path, engine.input_shape, pictures.PREDICTING)
        else:
            pixels = pictures.fitted(path, engine.input_shape)
    except UserError as error:
        return Prediction(str(path), (), str(error))
    image = pixels[None] if mapping is None else mapping.apply(pixels[None])
    given = engine.run(image)[0].astype(np.float64)
    shares = given
    if not isinstance(engine.program.ops[-1], Softmax):
        shares = np.exp(given - given.max())
        shares /= shares.sum()
    return Prediction(str(path), _best(given, shares, engine.classes, top))


def _best(
    logits: np.ndarray, shares: np.ndarray, classes: Sequence[str], top: int
) -> tuple[Guess, ...]:
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
