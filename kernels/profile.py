"""Where an engine's time goes: every step of the plan timed by itself.

The steps run one after the other on one image, as in a whole run, so each finds its inputs and
its caches as it would; a step shorter than ``SHORT`` is repeated within one call, and the time of
an empty call is taken off. More repeats would find warmer caches than a run does. Repeating is
harmless: a step never overwrites what it reads.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.macs import macs
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.micro.products import Products

Image = NDArray[np.uint8 | np.float32]
SHORT = 20e-6
"""Seconds: twenty times what reading the clock and a call cost."""
REPEATS = 4
WARM = 3
"""Whole runs before one is timed."""
CALL = "(call)"
"""Name under which the way from Python into compiled code and back is listed: a run of no step."""


@dataclass(frozen=True)
class StepTime:
    """One step of the plan.

    Attributes:
        name: the op whose work it is (of a helper that prepares its input: ``op:what``).
        op: type of that op; ``Prepare`` for a helper.
        seconds: median time for one image.
        binary_macs, float_macs: multiply-accumulates for one image.
        products: how it multiplies integers; None if it does not.
    """

    name: str
    op: str
    seconds: float
    binary_macs: int
    float_macs: int
    products: Products | None = None


def profile(engine: Engine, image: Image, rounds: int = 30) -> tuple[list[StepTime], float]:
    """Median time of every step, and of a whole run of the same image beside it.

    Args:
        engine: any.
        image: ``[H, W, C]``, uint8 or float32 as the Program takes it.
        rounds: how often each step is timed.

    Returns:
        The steps in order, then :data:`CALL`; and seconds of a whole run.

    Raises:
        ValueError: if ``image`` is wrong.
    """
    batch = np.repeat(image[None], REPEATS, axis=0)
    engine.run(batch)  # now the engine knows that a slice holds all of it
    repeats = [1] * len(engine.steps)
    times = np.zeros((rounds, len(engine.steps)))
    whole, calls = np.zeros(rounds), np.zeros(rounds)
    for turn in range(rounds + 1):
        empty = min(engine.time_steps(0, 0, batch[:1]) for _ in range(5))
        for index, count in enumerate(repeats):
            seconds = engine.time_steps(index, index + 1, batch[:count])
            times[turn - 1, index] = (seconds - empty) / count
            if turn == 0 and times[-1, index] < SHORT:
                repeats[index] = REPEATS
        for _ in range(WARM):  # single steps leave other things in the caches than runs do
            engine.run(batch[:1])
        start = time.perf_counter()
        engine.run(batch[:1])
        whole[turn - 1] = time.perf_counter() - start
        start = time.perf_counter()
        engine.time_steps(0, 0, batch[:1])
        calls[turn - 1] = time.perf_counter() - start
    ops, types = {op.name: op for op in engine.program.ops}, infer_types(engine.program)
    found = []
    for index, (name, median) in enumerate(
        zip(engine.steps, np.median(times, axis=0), strict=True)
    ):
        binary, real = macs(ops[name], types) if name in ops else (0, 0)
        kind = type(ops[name]).__name__ if name in ops else "Prepare"
        seconds = max(0.0, float(median))
        found.append(StepTime(name, kind, seconds, binary, real, engine.products(index)))
    found.append(StepTime(CALL, "Prepare", float(np.median(calls)), 0, 0))
    return found, float(np.median(whole))
