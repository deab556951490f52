"""How latency is measured: interleaved slots, order statistics, intervals of ratios.

A *slot* is a few milliseconds of one runtime; a *round* is one slot of each, in a new random
order, so that a slow spell of the machine falls on all of them. Ratios are taken round by round
and their interval is that of a median by order statistics, which assumes no distribution:
Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2 (quantiles).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from export.runtimes import Images, Timed

SLOT_MS = 10.0
MAX_REPEATS = 200
WARM_SLOTS = (2, 40)
"""Warm-up takes at least and at most so many slots."""
WARM_MS = 3000.0
STABLE = 0.03
"""Warm-up ends when a slot's median differs from the one before by less than this share."""
CONFIDENCE = 0.95
NOISY = 0.05
"""Rounds that spread by more than this share of their median make a machine noisy."""
Progress: TypeAlias = Callable[[Iterable[int]], Iterable[int]]


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
    """A ratio of latencies and its 95 % interval."""

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
) -> list[Latency]:
    """Time every runtime, interleaved.

    Args:
        runtimes: what to time, each with its images uint8 ``[N, H, W, C]``; each round uses
            the next ``batch`` of them.
        rounds: number of rounds.
        seed: of the order within a round.
        batch: images in one run.
        progress: wraps the iterable of rounds.

    Returns:
        Statistics in the order of ``runtimes``.
    """
    warm = [warm_up(runtime, _batch(images, 0, batch)) for runtime, images in runtimes]
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


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Interval of the median of ``values``: two order statistics, by the binomial distribution.

    Fewer than six values cannot give 95 %: then the interval is all of them.
    """
    ordered = sorted(values)
    n = len(ordered)
    below, cut = 0.0, 0
    while cut < n // 2:
        below += math.comb(n, cut) / 2.0**n
        if below > (1 - confidence) / 2:
            break
        cut += 1
    first = max(cut - 1, 0)
    return ordered[first], ordered[n - 1 - first]


def paired_ratio(a: Latency, b: Latency) -> Ratio:
    """``a`` over ``b``, both measured in the same rounds."""
    ratios = [x / y for x, y in zip(a.rounds, b.rounds, strict=True)]
    return Ratio(float(np.median(ratios)), *median_interval(ratios))


def ratio_of_runs(now: Sequence[float], before: Sequence[float]) -> Ratio:
    """Median of rounds ``now`` over that of ``before``, measured at different times.

    Each median gets a wider interval so that both hold together.
    """
    joint = 1 - (1 - CONFIDENCE) / 2
    (low, high), (old_low, old_high) = median_interval(now, joint), median_interval(before, joint)
    value = float(np.median(now)) / float(np.median(before))
    return Ratio(value, low / old_high, high / old_low)


def noise(latency: Latency) -> float:
    """Interquartile range of the rounds over their median."""
    first, median, third = np.percentile(latency.rounds, [25, 50, 75])
    return float((third - first) / median)
