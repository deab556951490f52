"""Exceptions raised in the middle of a call: what the next calls answer, and how soon they come.

A timer's signal handler raises at random moments, often a second time while the first exception
is on its way. ``worker`` runs in a process of its own, where nothing else is hit.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.engine import Engine
from tests import ROOT, nets
from tests.kernels.split import split

BATCH, LARGE = 48, 60_000
WAITS = 10


class Alarm(Exception):
    """What the handler raises."""


@dataclass
class Timer:
    """Raises :class:`Alarm` from a signal handler, ``left`` more times at most."""

    left: int = 0
    due: float = 0.0

    def _ring(self, *_: object) -> None:
        if self.left > 0:
            self.left -= 1
            raise Alarm

    def hits(self, call: Callable[[], object], delay: float, again: float = 0.0) -> bool:
        """Whether ``call`` was interrupted ``delay`` s after its start (and ``again`` s later)."""
        signal.signal(signal.SIGALRM, self._ring)
        self.left = 2 if again else 1
        self.due = time.perf_counter() + delay
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, delay, again)
                call()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except Alarm:
            self.left = 0  # no call before this: nothing can come up in between
            signal.setitimer(signal.ITIMER_REAL, 0)
            return True
        self.left = 0
        return False


@dataclass(frozen=True)
class Interrupts:
    """Result of :func:`interrupts`.

    Attributes:
        calls, hit: how many were tried, and how many an exception came out of.
        answers, wrong: logits computed afterwards, and those that differ from the right ones.
        waits: seconds from the signal to the exception in a batch of ``LARGE`` images.
    """

    calls: int
    hit: int
    answers: int
    wrong: int
    waits: list[float]


def worker(threads: int, calls: int, seed: int) -> Interrupts:
    """Interrupt ``calls`` calls of an engine with ``threads`` threads, all in every image."""
    program = nets.every_op()
    images = nets.images(program, BATCH)
    engine = split(program, threads)
    keeping = Engine(program, threads=threads, keep=True)
    want, signs = engine.run(images), keeping.signs(images[:4])
    whole = min(engine.time_steps(0, len(engine.steps), images) for _ in range(20))
    rng = np.random.default_rng(seed)
    timer, hit, answers, wrong = Timer(), 0, 0, 0
    kinds: list[Callable[[], object]] = [
        lambda: engine.run(images),
        lambda: engine.run(images),
        lambda: engine.run(images[:1]),
        lambda: engine.time_steps(0, len(engine.steps), images),
        lambda: keeping.signs(images[:4]),
    ]
    for _ in range(calls):
        call = kinds[rng.integers(len(kinds))]
        hit += timer.hits(call, rng.uniform(1e-6, whole), rng.choice([0.0, 2e-5]))
        first = int(rng.integers(BATCH))
        for stop in (first + 1, int(rng.integers(first, BATCH)) + 1):
            answers += stop - first
            different = engine.run(images[first:stop]) != want[first:stop]
            wrong += int(different.any(axis=1).sum())
        if call is kinds[-1]:
            again = keeping.signs(images[:4])
            wrong += sum(not np.array_equal(again[name], signs[name]) for name in signs)
    return Interrupts(calls, hit, answers, wrong, _waits(timer, threads, rng))


def _waits(timer: Timer, threads: int, rng: np.random.Generator) -> list[float]:
    """Seconds that an exception waits in a batch that takes a minute, some times."""
    program = synthetic("resnet18@32")
    engine = Engine(program, threads=threads)
    image = rng.integers(0, 256, program.input_shape).astype(np.uint8)
    large: NDArray[np.uint8] = np.broadcast_to(image, (LARGE, *program.input_shape))
    waits = []
    for _ in range(WAITS):
        assert timer.hits(lambda: engine.run(large), rng.uniform(0.01, 1.0))
        waits.append(time.perf_counter() - timer.due)
    return waits


def interrupts(threads: int, calls: int, seed: int) -> Interrupts:
    """:func:`worker` in a process of its own."""
    script = (
        "import dataclasses, json; from tests.reliability import interrupts; "
        f"found = interrupts.worker({threads}, {calls}, {seed}); "
        "print(json.dumps(dataclasses.asdict(found)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=dict(os.environ), capture_output=True,
        text=True, timeout=1200, check=True,
    )  # fmt: skip
    return Interrupts(**json.loads(done.stdout))
