"""Schedule and mask fields: pure functions, checked over their whole range."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.method.stompp import (
    FIELD_BITS,
    METHODS,
    RAMPS,
    Schedule,
    field,
    limit,
    refresh_,
    refresh_period,
)

schedules = st.builds(
    Schedule,
    order=st.sampled_from(["forward", "reverse", "global", "start"]),
    ramp=st.sampled_from(sorted(RAMPS)),
    layers=st.integers(1, 12),
    steps=st.integers(1, 400),
    warmup=st.floats(0, 0.6),
    settle=st.floats(0, 0.39),
    overlap=st.floats(1, 6),
)


@pytest.mark.parametrize("name", sorted(RAMPS))
def test_ramps_rise_from_0_to_1(name: str) -> None:
    values = [RAMPS[name](x / 100) for x in range(101)]
    assert values[0] == 0
    assert values[-1] == pytest.approx(1)
    assert all(a < b for a, b in itertools.pairwise(values))


def test_ramps_are_what_their_names_say() -> None:
    assert RAMPS["linear"](0.5) == 0.5
    assert RAMPS["quadratic"](0.5) == 0.25
    assert RAMPS["cubic"](0.5) == 0.125
    assert RAMPS["cosine"](1 / 3) == pytest.approx(0.25)


@settings(deadline=None)
@given(schedules)
def test_every_share_rises_and_ends_at_exactly_1(schedule: Schedule) -> None:
    for layer in range(schedule.layers):
        shares = [schedule.share(layer, step) for step in range(schedule.steps + 1)]
        assert all(0 <= a <= b <= 1 for a, b in itertools.pairwise(shares))
        assert shares[-1] == 1.0
        if schedule.order != "start":
            warm = math.floor(schedule.steps * schedule.warmup)
            assert shares[: warm + 1] == [0.0] * (warm + 1)
            settled = math.ceil(schedule.steps * (1 - schedule.settle) + 1e-6)
            assert all(share == 1.0 for share in shares[settled:])


@settings(deadline=None)
@given(schedules, st.data())
def test_orders(schedule: Schedule, data: st.DataObject) -> None:
    step = data.draw(st.integers(0, schedule.steps - 1))
    shares = [schedule.share(layer, step) for layer in range(schedule.layers)]
    if schedule.order == "forward":
        assert shares == sorted(shares, reverse=True)
    elif schedule.order == "reverse":
        assert shares == sorted(shares)
    else:
        assert len(set(shares)) == 1


def test_reverse_mirrors_forward() -> None:
    forward = Schedule("forward", "cubic", 5, 200, 0.1, 0.1, 2.0)
    reverse = Schedule("reverse", "cubic", 5, 200, 0.1, 0.1, 2.0)
    for layer, step in itertools.product(range(5), range(200)):
        assert forward.share(layer, step) == reverse.share(4 - layer, step)


def test_windows_follow_each_other_without_overlap() -> None:
    schedule = Schedule("forward", "linear", 6, 600, 0.1, 0.1, 1.0)
    assert schedule.steps_per_layer == pytest.approx(80)
    assert all(len(schedule.transition(step)) <= 1 for step in range(600))
    seen = {layer for step in range(600) for layer in schedule.transition(step)}
    assert seen == set(range(6))


def test_overlap_is_the_number_of_layers_in_transition() -> None:
    schedule = Schedule("forward", "linear", 10, 1300, overlap=4.0)
    assert max(len(schedule.transition(step)) for step in range(1300)) == 4


def test_float_never_freezes_and_ste_starts_frozen() -> None:
    never = Schedule(METHODS["float"].order, "linear", 3, 10)
    start = Schedule(METHODS["ste"].order, "linear", 3, 10, warmup=0.5)
    assert {never.share(layer, step) for layer in range(3) for step in range(11)} == {0.0}
    assert {start.share(layer, step) for layer in range(3) for step in range(11)} == {1.0}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"warmup": 0.6, "settle": 0.4}, "no time to freeze"),
        ({"ramp": "square"}, "unknown ramp"),
        ({"overlap": 0.5}, "overlap"),
        ({"overlap": math.nan}, "overlap"),
        ({"layers": 0}, "nothing to train"),
        ({"steps": 0}, "nothing to train"),
    ],
)
def test_impossible_schedules_are_refused(change: dict[str, float], word: str) -> None:
    fields = {"order": "forward", "ramp": "linear", "layers": 2, "steps": 10, **change}
    with pytest.raises(UserError, match=word):
        Schedule(**fields)  # type: ignore[arg-type]


def test_messages_name_the_layer() -> None:
    schedule = Schedule("forward", "linear", 4, 100, 0.2, 0.2)
    assert schedule.in_words(0) == "before the first layer froze"
    assert schedule.in_words(30) == "freezing layer 0"
    assert schedule.in_words(99) == "all layers frozen"


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    start=st.integers(0, 10**7),
    size=st.integers(1, 257),
    rate=st.sampled_from([0.0, 0.003, 0.01, 0.1, 0.4, 1.0]),
    first=st.integers(0, 5000),
    steps=st.integers(1, 40),
)
def test_refreshing_equals_computing_from_scratch(
    seed: int, start: int, size: int, rate: float, first: int, steps: int
) -> None:
    period = refresh_period(rate)
    values = field(seed, start, start + size, first, period)
    for step in range(first + 1, first + steps + 1):
        refresh_(values, seed, start, step, period)
        assert torch.equal(values, field(seed, start, start + size, step, period))


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 3), st.integers(0, 300))
def test_a_part_of_the_field_is_the_part_of_the_whole(seed: int, step: int) -> None:
    whole = field(seed, 0, 1000, step, 100)
    assert torch.equal(whole[313:771], field(seed, 313, 771, step, 100))


def test_each_step_redraws_exactly_its_share() -> None:
    before = field(3, 0, 10_000, 41, 100)
    after = field(3, 0, 10_000, 42, 100)
    changed = torch.nonzero(before != after).flatten()
    assert changed.tolist() == list(range(42, 10_000, 100))


def test_a_period_redraws_every_entry_once() -> None:
    before, after = field(3, 0, 5000, 10, 50), field(3, 0, 5000, 60, 50)
    assert int((before != after).sum()) == 5000


def test_fields_are_the_same_everywhere() -> None:
    """Fixed numbers: a change here would change every training run."""
    assert field(7, 100, 104, 0, 100).tolist() == GOLDEN[0]
    assert field(7, 100, 104, 500, 100).tolist() == GOLDEN[1]


GOLDEN = ([6286142, 13615693, 8632359, 8449050], [15416079, 6890034, 4541602, 4269783])


def test_fields_are_uniform_and_uncorrelated() -> None:
    n = 200_000
    fields = [
        field(seed, 0, n, step, 10).double() / (1 << FIELD_BITS)
        for seed, step in ((0, 0), (0, 10), (0, 20), (1, 0), (2, 0))
    ]
    for values in fields:
        counts = torch.histc(values, 64, 0, 1)
        chi2 = float(((counts - n / 64) ** 2 / (n / 64)).sum())
        assert 20 < chi2 < 120  # 63 degrees of freedom
        assert abs(float(torch.corrcoef(torch.stack([values[1:], values[:-1]]))[0, 1])) < 0.01
    matrix = torch.corrcoef(torch.stack(fields)) - torch.eye(len(fields), dtype=torch.float64)
    assert float(matrix.abs().max()) < 0.01


def test_limits() -> None:
    values = field(0, 0, 100_000, 0, 0)
    assert int((values < limit(0.0)).sum()) == 0
    assert int((values < limit(1.0)).sum()) == len(values)
    assert float((values < limit(0.3)).double().mean()) == pytest.approx(0.3, abs=0.006)
    assert values.dtype == torch.int32
    assert int(values.min()) >= 0


def test_refresh_periods() -> None:
    assert [refresh_period(rate) for rate in (0, 0.01, 0.1, 1)] == [0, 100, 10, 1]
