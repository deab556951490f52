"""The files of other tool chains that lie in ``tests/data/foreign``."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tests import ROOT

FOLDER = ROOT / "tests" / "data" / "foreign"
TFLITE = tuple(sorted(path.stem for path in FOLDER.glob("*.tflite")))


@dataclass(frozen=True, eq=False)
class Answers:
    """Images float32 ``[N, H, W, C]`` and what the source gives for them, ``[N, classes]``."""

    images: np.ndarray
    output: np.ndarray
    keras: np.ndarray


def tflite(name: str) -> bytes:
    return (FOLDER / f"{name}.tflite").read_bytes()


def answers(name: str) -> Answers:
    with np.load(FOLDER / f"{name}.npz") as found:
        return Answers(found["input"], found["output"], found["keras"])


def far(got: np.ndarray, wanted: np.ndarray) -> float:
    """Largest difference as a share of the spread of the logits (of probabilities: their logs)."""
    if wanted.min() >= 0:
        got, wanted = (np.log(np.maximum(each.astype(np.float64), 1e-30)) for each in (got, wanted))
    spread = wanted.max(axis=1) - wanted.min(axis=1)
    return float((np.abs(got - wanted).max(axis=1) / spread).max())
