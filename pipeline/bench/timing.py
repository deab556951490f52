"""How latency is measured: interleaved slots, order statistics, intervals of ratios.

A *slot* is a few milliseconds of one runtime; a *round* is one slot of each, in a new random
order, so that a slow spell of the machine falls on all of them. Ratios are taken round by round.

The interval of a ratio says where the same measurement, made again, would find it in 19 of 20
cases. The usual interval of a median is far too narrow for that: it takes rounds for independent,
while a machine drifts for seconds and a process keeps the memory it was given. Tried on this
engine (``python -m tests.figures.overhead same``) it held the true ratio 1 in one case of three. So
uncertainties are combined as the Guide to the Expression of Uncertainty in Measurement does
(JCGM 100:2008, sections 4 to 6): the spread of single rounds, not divided by their number, and
:data:`PLACEMENT`, a stated allowance for what one process cannot see; coverage factor 2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.export.runtimes import Images, Timed
from frostbit.pipeline.console import Progress

SLOT_MS = 10.0
MAX_REPEATS = 200
WARM_SLOTS = (2, 40)
"""Warm-up takes at least and at most so many slots."""
WARM_MS = 3000.0
STABLE = 0.03
"""Warm-up ends when a slot's median differs from the one before by less than this share."""
COVERAGE = 2.0
"""Coverage factor of intervals: about 95 %."""
PLACEMENT = 0.02
"""Standard uncertainty, as a share, from where memory lies, which a process cannot see.

The standard deviation of the logarithm of 21 ratios of two benchmarks of the same model, over the
root of two (``records/2026-11-25-placement.json``).
"""
SPAN_S = 5.0
"""A careful measurement takes at least so long, so that it sees the machine's drift."""
FEW = 8
"""With fewer rounds than this their whole range stands for the standard deviation."""
MOST_ROUNDS = 2000
NORMAL_IQR = 1.349
"""Interquartile range of a normal distribution of standard deviation 1."""
NOISY = 0.05
"""Rounds that spread by more than this share of their median make a machine noisy."""


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one run of the batch.

    Attributes:
        min, median, p90, p95, p99: order statistics of all ``n`` runs.
        mean, std: of all runs too; a few slow ones move them.
        iqr: interquartile range, third quartile less first.
        n: number of runs.
        warm_up: runs before the first that counts.
        rounds: median of each round.
    """

    min: float
    median: float
    p90: float
    p95: float
    p99: float
    iqr: float
    mean: float
    std: float
    n: int
    warm_up: int
    rounds: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """A ratio of latencies and its 95 % interval: where another measurement would find it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.value:.3g}"
        return f"{self.value:.3g} ({self.low:.3g} to {self.high:.3g})"


def summarise(slots: Sequence[NDArray[np.float64]], warm_up: int = 0) -> Latency:
    """Statistics of the rounds' ``slots`` (milliseconds, one array a round)."""
    times = np.concatenate(slots)
    low, first, median, third, p90, p95, p99 = np.percentile(times, [0, 25, 50, 75, 90, 95, 99])
    rounds = tuple(float(np.median(slot)) for slot in slots)
    return Latency(
        min=float(low),
        median=float(median),
        p90=float(p90),
        p95=float(p95),
        p99=float(p99),
        iqr=float(third - first),
        mean=float(times.mean()),
        std=float(times.std()),
        n=len(times),
        warm_up=warm_up,
        rounds=rounds,
    )


def warm_up(runtime: Timed, images: Images) -> tuple[float, int]:
    """Run until two slots agree; returns milliseconds of a run and how many runs it took."""
    times = runtime.latency(images, 1)
    spent, runs = float(times[0]), 1
    before = math.inf
    for slot in range(WARM_SLOTS[1]):
        times = runtime.latency(images, _repeats(float(np.median(times))))
        spent, runs = spent + float(times.sum()), runs + len(times)
        median = float(np.median(times))
        stable = abs(median - before) <= STABLE * median
        if (stable and slot + 1 >= WARM_SLOTS[0]) or spent > WARM_MS:
            break
        before = median
    return median, runs


def _repeats(typical: float) -> int:
    """Runs that fill a slot."""
    return int(np.clip(SLOT_MS / max(typical, 1e-3), 1, MAX_REPEATS))


def measure(
    runtimes: Sequence[tuple[Timed, Images]],
    rounds: int,
    seed: int,
    batch: int = 1,
    progress: Progress = iter,
    span_s: float = 0.0,
) -> list[Latency]:
    """Time every runtime, interleaved.

    Args:
        runtimes: what to time, each with its images uint8 ``[N, H, W, C]``; each round uses
            the next ``batch`` of them.
        rounds: number of rounds, at least.
        seed: of the order within a round.
        batch: images in one run.
        progress: wraps the iterable of rounds.
        span_s: seconds that all rounds should take together; there are more of them if need be.

    Returns:
        Statistics in the order of ``runtimes``.
    """
    warm = [warm_up(runtime, _batch(images, 0, batch)) for runtime, images in runtimes]
    round_ms = sum(_repeats(each) * each for each, _ in warm)
    rounds = max(rounds, min(MOST_ROUNDS, math.ceil(1000 * span_s / round_ms)))
    rng = np.random.default_rng(seed)
    slots: list[list[NDArray[np.float64]]] = [[] for _ in runtimes]
    for turn in progress(range(rounds)):
        for index in rng.permutation(len(runtimes)):
            runtime, images = runtimes[index]
            repeats = _repeats(warm[index][0])
            slots[index].append(runtime.latency(_batch(images, turn, batch), repeats))
    return [summarise(each, runs) for each, (_, runs) in zip(slots, warm, strict=True)]


def _batch(images: Images, turn: int, batch: int) -> Images:
    """The ``turn``-th batch of ``images``, which begin again at their end."""
    return images[(np.arange(batch) + turn * batch) % len(images)]


def paired_ratio(a: Latency, b: Latency) -> Ratio:
    """``a`` over ``b``, both measured in the same rounds."""
    if a is b:
        return Ratio(1.0, 1.0, 1.0)
    logs = [math.log(x / y) for x, y in zip(a.rounds, b.rounds, strict=True)]
    return _ratio(float(np.median(logs)), spread(logs))


def ratio_of_runs(now: Sequence[float], before: Sequence[float]) -> Ratio:
    """Median of rounds ``now`` over that of ``before``, measured at different times."""
    logs = [[math.log(each) for each in rounds] for rounds in (now, before)]
    middle = float(np.median(logs[0]) - np.median(logs[1]))
    return _ratio(middle, math.hypot(spread(logs[0]), spread(logs[1])))


def _ratio(middle: float, deviation: float) -> Ratio:
    """From the logarithm of a ratio and the standard deviation of single rounds."""
    half = COVERAGE * math.sqrt(deviation**2 + 2 * PLACEMENT**2)
    return Ratio(*(math.exp(middle + part) for part in (0.0, -half, half)))


def spread(values: Sequence[float]) -> float:
    """Standard deviation of ``values`` from their quartiles, which outliers do not move."""
    if len(values) < FEW:
        return max(values) - min(values)
    first, third = np.percentile(values, [25, 75])
    return float(third - first) / NORMAL_IQR


def noise(latency: Latency) -> float:
    """Interquartile range of the rounds over their median."""
    first, median, third = np.percentile(latency.rounds, [25, 50, 75])
    return float((third - first) / median)
