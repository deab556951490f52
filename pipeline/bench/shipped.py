"""``pipeline bench --shipped``: the model in the package, on test images with stored answers.

Needs the base install only. The reference, which is NumPy, answers at once; the engine joins if it
was compiled before, since compiling takes longer than everything else here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostbit.export.runtimes import EngineRuntime, Images, Logits
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.file import load_program, program_hash
from frostbit.kernels.ir.program import Program
from frostbit.kernels.machine.jit import cache_folder
from frostbit.pipeline.bench import timing
from frostbit.pipeline.console import Bars
from frostbit.pipeline.errors import UserError

RECORDS = Path(str(resources.files("frostbit.pipeline") / "records"))
MODEL = RECORDS / "fashion-best.bnn"
ANSWERS = RECORDS / "fashion-best-answers.npz"
BATCH = 32
ROUNDS = 20
NOT_COMPILED = (
    "engine: not compiled here yet; once, about 25 s: pipeline bench --warm-cache; then this "
    "command times it"
)


@dataclass(frozen=True)
class Answers:
    """What lies beside the shipped model.

    Attributes:
        images: uint8 ``[N, H, W, C]``, the first of the test set.
        labels: int64 ``[N]``.
        logits: float32 ``[N, classes]``, what the reference gave when they were stored.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    logits: Logits


def load() -> tuple[Program, Answers]:
    """The shipped model and its answers.

    Raises:
        UserError: they are not there, or the answers are another model's.
    """
    try:
        program = load_program(MODEL)
        with np.load(ANSWERS, allow_pickle=False) as stored:
            answers = Answers(stored["images"], stored["labels"], stored["logits"])
            of = str(stored["program_sha256"])
    except (OSError, KeyError, ValueError) as error:
        raise UserError(f"the shipped model is not whole ({error}); install again") from error
    if of != program_hash(program):
        raise UserError(
            f"{ANSWERS.name} is of another model than {MODEL.name}: python -m tests.figures.answers"
        )
    return program, answers


def answer(program: Program, images: Images, bars: Bars) -> Logits:
    """What the reference gives, batch by batch."""
    starts = range(0, len(images), BATCH)
    return np.concatenate(
        [reference.run(program, images[at : at + BATCH]) for at in bars("reference")(starts)]
    )


def bench(echo: Callable[[str], None], bars: Bars) -> bool:
    """Say how reference and engine compare with the stored answers; whether all are equal."""
    program, stored = load()
    right = 100 * float((stored.logits.argmax(axis=1) == stored.labels).mean())
    echo(
        f"{MODEL.name}, {MODEL.stat().st_size:,} bytes: {len(stored.images)} test images of "
        f"Fashion-MNIST, stored answers {right:.1f} % right"
    )
    well = np.array_equal(answer(program, stored.images, bars), stored.logits)
    echo(_line("reference (NumPy)", well))
    folder = cache_folder()
    if folder is None or not any(folder.glob("*.nbc")):
        echo(NOT_COMPILED)
        return well
    runtime = EngineRuntime(program)
    equal = np.array_equal(runtime.logits(stored.images), stored.logits)
    (latency,) = timing.measure([(runtime, stored.images)], ROUNDS, 0, 1, bars("timing"), 0.0)
    runtime.close()
    echo(f"{_line(runtime.name, equal)}, {latency.median:.3f} ms an image (median, one thread)")
    return well and equal


def _line(name: str, equal: bool) -> str:
    return f"{name}: logits {'equal bit for bit' if equal else 'DIFFER'}"
