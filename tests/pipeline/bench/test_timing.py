"""Statistics of the benchmark, on clocks that tell stated times."""

from __future__ import annotations

import math

import numpy as np
import pytest

from frostbit.export.runtimes import Images, Milliseconds
from frostbit.pipeline.bench import timing

ONE = np.zeros((3, 1, 1, 1), np.uint8)
ONE[:, 0, 0, 0] = range(3)


class Clock:
    """A runtime that takes stated times, for ever the last one, and notes when it was called."""

    def __init__(self, name: str, ms: list[float], log: list[tuple[str, int, int]]) -> None:
        self.name, self.ms, self.log = name, ms, log

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        self.log.append((self.name, repeats, int(image[0, 0, 0, 0])))
        ms = self.ms.pop(0) if len(self.ms) > 1 else self.ms[0]
        return np.full(repeats, ms * len(image))

    def close(self) -> None:
        pass


def test_runtimes_take_turns() -> None:
    log: list[tuple[str, int, int]] = []
    clocks = [(Clock("fast", [0.01], log), ONE), (Clock("slow", [25.0], log), ONE)]
    found = timing.measure(clocks, rounds=4, seed=0)
    turns = log[-8:]
    for turn in range(4):
        pair = turns[2 * turn : 2 * turn + 2]
        assert {name for name, _, _ in pair} == {"fast", "slow"}
        assert {image for _, _, image in pair} == {turn % 3}
    assert len({tuple(name for name, _, _ in turns[i : i + 2]) for i in range(0, 8, 2)}) == 2
    assert [latency.median for latency in found] == [0.01, 25.0]
    assert [latency.n for latency in found] == [4 * timing.MAX_REPEATS, 4]
    assert found[1].rounds == (25.0,) * 4


def test_a_batch_is_one_run() -> None:
    log: list[tuple[str, int, int]] = []
    found = timing.measure([(Clock("c", [2.0], log), ONE)], rounds=3, seed=0, batch=2)
    assert found[0].median == 4.0
    assert [image for _, _, image in log[-3:]] == [0, 2, 1]  # images 0 1, 2 0, 1 2


def test_warm_up_lasts_until_two_slots_agree() -> None:
    log: list[tuple[str, int, int]] = []
    typical, runs = timing.warm_up(Clock("c", [50.0, 40.0, 20.0, 10.0, 5.0, 5.01], log), ONE[:1])
    assert typical == 5.01
    assert len(log) == 6
    assert runs == sum(repeats for _, repeats, _ in log)


def test_warm_up_ends_on_a_machine_that_never_settles() -> None:
    log: list[tuple[str, int, int]] = []
    timing.warm_up(Clock("c", [1.0, 2.0] * 200, log), ONE[:1])
    assert len(log) == timing.WARM_SLOTS[1] + 1


def test_statistics() -> None:
    found = timing.summarise([np.arange(1.0, 52.0), np.arange(52.0, 102.0)], warm_up=7)
    assert (found.min, found.median, found.p90, found.p95, found.p99) == (1, 51, 91, 96, 100)
    assert (found.iqr, found.n, found.warm_up) == (50.0, 101, 7)
    assert (found.mean, found.std) == (51.0, pytest.approx(np.std(np.arange(1, 102))))
    assert found.rounds == (26.0, 76.5)


def latency(rounds: list[float]) -> timing.Latency:
    return timing.summarise([np.array([each]) for each in rounds])


ALLOWED = timing.COVERAGE * math.sqrt(2) * timing.PLACEMENT


def test_a_slow_spell_that_falls_on_both_leaves_the_ratio_alone() -> None:
    spell = [1.0] * 10 + [3.0] * 11
    found = timing.paired_ratio(latency([2 * each for each in spell]), latency(spell))
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2 * math.exp(-ALLOWED))
    assert found.high == pytest.approx(2 * math.exp(ALLOWED))
    assert str(found) == "2 (1.89 to 2.12)"


def test_a_runtime_over_itself_is_one() -> None:
    same = latency([1.0, 2.0, 3.0])
    assert str(timing.paired_ratio(same, same)) == "1"


def drifting(rng: np.random.Generator, count: int) -> list[float]:
    """Rounds of a machine whose speed wanders, and stays where it is for a while."""
    walk = np.cumsum(rng.standard_normal(count) * 0.003)
    return list(np.exp(0.02 * rng.standard_normal() + walk + 0.01 * rng.standard_normal(count)))


def test_the_interval_holds_on_a_machine_that_drifts() -> None:
    """Two runs of the same thing, 400 times; each has its own placement and its own drift."""
    rng = np.random.default_rng(0)
    pairs = [(drifting(rng, 50), drifting(rng, 50)) for _ in range(400)]
    found = [timing.ratio_of_runs(a, b) for a, b in pairs]
    assert 0.93 <= np.mean([ratio.low <= 1 <= ratio.high for ratio in found]) <= 0.995
    # and a change of a fifth is seen
    found = [timing.ratio_of_runs([1.2 * x for x in a], b) for a, b in pairs]
    assert np.mean([ratio.low > 1 for ratio in found]) > 0.8


def test_few_rounds_give_their_whole_range() -> None:
    assert timing.spread([3.0, 1.0, 2.0]) == 2.0
    assert timing.spread([4.0]) == 0.0
    normal = list(np.random.default_rng(0).standard_normal(4000))
    assert timing.spread([*normal, 1e9]) == pytest.approx(1, abs=0.05)


def test_a_careful_measurement_takes_its_time() -> None:
    log: list[tuple[str, int, int]] = []
    clocks = [(Clock("a", [25.0], log), ONE), (Clock("b", [25.0], log), ONE)]
    assert len(timing.measure(clocks, 3, 0, span_s=2.0)[0].rounds) == 40
    assert len(timing.measure(clocks, 60, 0, span_s=2.0)[0].rounds) == 60


def test_noise_is_the_quartiles_over_the_median() -> None:
    assert timing.noise(latency([1.0, 2.0, 3.0, 4.0, 5.0])) == pytest.approx(2 / 3)
    assert timing.noise(latency([2.0] * 5)) == 0.0
