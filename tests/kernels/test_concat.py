"""Joined maps: every kernel's bits against the reference, at every place within a word."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.kernels import op_table as t
from frostbit.kernels.ir import exact, reference
from frostbit.kernels.ir.program import INPUT, MAX_PARTS, FormatError, Program, Window
from frostbit.kernels.ir.verify import verify
from frostbit.kernels.plan import int16_streams
from frostbit.kernels.plan.plan import make_plan
from tests.kernels.against import check_near
from tests.kernels.loops.test_steps import SAME, check
from tests.kernels.programs import CHANNELS, Builder

POINT = Window((1, 1))
PADS = st.tuples(*[st.integers(0, 2)] * 4)


def part(b: Builder, kind: str, channels: int) -> str:
    """A map of the input's size."""
    x = b.conv(INPUT, channels, POINT)
    return b.sign(x) if kind == "bits" else x


@settings(deadline=None, max_examples=60)
@given(
    kind=st.sampled_from(["bits", "f32"]),
    channels=st.lists(CHANNELS, min_size=2, max_size=4),
    size=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    pads=st.tuples(PADS, PADS),
    pad_value=st.sampled_from([0, 1]),
)
def test_any_channels(
    kind: str,
    channels: list[int],
    size: tuple[int, int],
    pads: tuple[tuple[int, int, int, int], tuple[int, int, int, int]],
    pad_value: int,
) -> None:
    """Parts and whole have margins of their own where padded convolutions read them."""
    b = Builder((*size, 1), seed=sum(channels))
    parts = [part(b, kind, count) for count in channels]
    both = b.concat(*parts)
    signs = [both, parts[0]] if kind == "bits" else [b.sign(both), b.sign(parts[0])]
    for source, pad in zip(signs, pads, strict=True):
        y = b.binary_conv(source, 9, Window((1, 1), pads=pad), pad_value=pad_value)
        b.global_sum(y)
    check(b.finish(both, 3))


@pytest.mark.parametrize("channels", [(64, 64), (32, 96, 5), (1, 31, 32), (33, 31, 64), (3,) * 40])
def test_places_within_a_word(channels: tuple[int, ...]) -> None:
    b = Builder((3, 4, 2), seed=len(channels))
    both = b.concat(*[part(b, "bits", count) for count in channels])
    check(b.finish(b.binary_conv(both, 70, SAME, affine=False)))


def test_everything_that_reads_joined_bits() -> None:
    b = Builder((6, 5, 2), seed=3)
    x = b.conv(INPUT, 20, SAME)
    s = b.concat(b.sign(x), part(b, "bits", 22), b.sign(x))
    y = b.binary_conv(s, 62, SAME, groups=2, pad_value=0)
    y = b.add(y, b.to_float(s))
    b.global_sum(b.conv(s, 5, SAME))
    b.global_sum(s)
    z = b.concat(b.max_pool(s, SAME), b.sign(y), b.binary_conv(s, 7, SAME, affine=False))
    check(b.finish(b.concat(z, z)))


def test_a_map_beside_itself_is_a_repeat() -> None:
    b = Builder((3, 3, 1), seed=4)
    x = b.conv(INPUT, 21, SAME)
    twice, same = b.concat(x, x), b.repeat(x, 2)
    program = b.finish(b.concat(twice, same))
    values = reference.trace(program, b.images(2))
    np.testing.assert_array_equal(values[twice], values[same])
    check(program)


def test_spare_lanes_are_cleared() -> None:
    """Their memory held negative floats of another value, whose signs must not leak."""
    b = Builder((4, 4, 1), seed=1)
    x = b.max_pool(b.conv(INPUT, 32, SAME), POINT)
    both = b.concat(b.conv(x, 5, POINT), b.conv(x, 9, POINT))
    check(b.finish(b.binary_conv(b.sign(both), 8, SAME)), 3)


def test_logits_may_be_joined() -> None:
    b = Builder((4, 4, 1), seed=2)
    x = b.global_sum(b.sign(b.conv(INPUT, 8, SAME)))
    b.concat(b.dense(x, 3), b.dense(x, 2))
    check(b.program())


def test_a_stream_that_is_joined_stays_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams in 16 bits are for sums that convolutions alone read."""
    monkeypatch.setattr(int16_streams, "SMALLEST_MAP", 0)
    monkeypatch.setattr(int16_streams, "pays", lambda kernel: True)
    b = Builder((5, 7, 1))
    first = b.binary_conv(part(b, "bits", 33), 33, POINT)
    second = b.add(b.binary_conv(b.sign(first), 33, POINT), first)
    third = b.add(b.binary_conv(b.sign(second), 33, POINT), second)
    program = b.finish(b.concat(third, second))
    table = make_plan(program, "xnor").table
    rows = table[(table[:, t.CODE] == t.CONVOLVE) & (table[:, t.MICRO] < t.INT16)]
    assert rows[:, t.OUT_KIND].tolist() == [t.I16, t.F32, t.F32]
    check(program)


def copies(program: Program) -> int:
    """How many parts the engine copies."""
    table = make_plan(program, "xnor").table
    return int(table[table[:, t.CODE] == t.JOIN, t.PARTS].sum())


@settings(deadline=None, max_examples=40)
@given(
    channels=st.lists(st.sampled_from([32, 64, 32, 31, 96]), min_size=2, max_size=4),
    seed=st.integers(0, 1000),
    pads=PADS,
)
def test_maps_within_maps(channels: list[int], seed: int, pads: tuple[int, int, int, int]) -> None:
    """Each part, the whole and a whole of the whole are written and read by every kind of step."""
    b = Builder((5, 6, 1), seed=seed)
    parts = [part(b, "f32", count) for count in channels]
    parts[0] = b.max_pool(parts[0], POINT)
    parts[-1] = b.binary_conv(b.sign(parts[0]), channels[-1], SAME)
    parts[-1] = b.add(parts[-1], b.conv(parts[0], channels[-1], SAME))
    inner = b.concat(*parts)
    outer = b.concat(inner, b.binary_conv(b.sign(inner), 32, SAME), inner, parts[0])
    read = [b.add(b.binary_conv(b.sign(outer), b.types[outer].shape[2], SAME), outer)]
    for x in (parts[0], inner, b.slice(outer, 32, 64)):
        count = b.types[x].shape[2]
        read.append(b.avg_pool(x, Window((2, 2))))
        read.append(b.binary_conv(b.sign(b.add(x, b.clip(x))), 9, SAME))
        read.append(b.repeat(x, 2))
        read.append(b.conv(x, 7, Window((2, 2), pads=pads)))
        read.append(b.conv(x, count, SAME, groups=count))
    b.dense(b.concat(*[b.global_sum(x) for x in read]), 5)
    check_near(b.program())


def test_what_is_copied() -> None:
    """Nothing, but what is joined twice, and what is no whole block."""
    b = Builder((4, 4, 1))
    x, y = part(b, "f32", 32), part(b, "f32", 64)
    inner = b.concat(x, y)
    outer = b.concat(inner, part(b, "f32", 96))
    assert copies(b.finish(b.slice(outer, 64, 128))) == 0
    assert copies(b.finish(b.slice(outer, 64, 97))) == 1
    assert copies(b.finish(b.concat(outer, x))) == 2
    assert copies(b.finish(b.concat(outer, outer))) == 4
    assert copies(b.finish(b.concat(outer, part(b, "f32", 5)))) == 6


@pytest.mark.parametrize("around", [(64, 0), (0, 32), (32, 64), (40, 24), (0, 0)])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("order", [0, 1])
def test_sums_with_a_map_of_few_channels(around: tuple[int, int], late: bool, order: int) -> None:
    """As MeliusNet has them; ``late`` reads the features once more after they were corrected."""
    b = Builder((5, 6, 1), seed=sum(around))
    x = part(b, "f32", 32)
    if any(around):
        x = b.concat(x, b.binary_conv(b.sign(b.scale(x)), sum(around), SAME))
    y = x
    for _ in range(2):
        before = y
        few = b.pad(b.binary_conv(b.sign(b.scale(y)), 32, SAME), (0, 0, 0, 0), around)
        y = b.add(*((y, few) if order else (few, y)))
        y = b.concat(y, b.binary_conv(b.sign(b.scale(y)), 32, SAME))
        around = (around[0], around[1] + 32)
    read = [b.global_sum(b.binary_conv(b.sign(y), 32, SAME)), b.global_sum(y)]
    if late:
        read += [b.global_sum(before), b.global_sum(b.conv(x, 5, SAME))]
    b.dense(b.concat(*read), 4)
    check_near(b.program())
    is_whole = all(count % 32 == 0 for count in around)
    assert (copies(b.program()) <= 1) == (is_whole and not late)


@st.composite
def block_programs(draw: st.DrawFn) -> Program:
    """Maps of whole blocks, cut out, joined, corrected and read again in any order."""
    b = Builder((3, 4, 1), seed=draw(st.integers(0, 1000)))
    maps = [part(b, "f32", draw(st.sampled_from([32, 64]))) for _ in range(3)]
    for _ in range(draw(st.integers(2, 9))):
        x, y = draw(st.sampled_from(maps)), draw(st.sampled_from(maps))
        channels, others = b.types[x].shape[2], b.types[y].shape[2]
        cut = 32 * draw(st.integers(0, channels // 32 - 1))
        match draw(st.sampled_from(["join", "replace", "correct", "slice", "layer", "scale"])):
            case "join" if channels + others <= 256:
                maps.append(b.concat(x, y))
            case "replace" if cut and others <= 64:
                maps.append(b.concat(b.slice(x, 0, cut), y))
            case "correct" if others < channels:
                few = b.pad(y, (0, 0, 0, 0), (channels - others, 0))
                maps.append(b.add(x, few))
            case "slice":
                maps.append(b.slice(x, cut, channels))
            case "layer":
                few = b.binary_conv(b.sign(x), 32, SAME)
                rest = (cut, channels - 32 - cut)
                maps.append(b.add(b.pad(few, (0, 0, 0, 0), rest), x))
            case _:
                maps.append(b.scale(x))
    seen = [b.global_sum(x) for x in draw(st.lists(st.sampled_from(maps), min_size=1, max_size=3))]
    b.dense(b.concat(*seen, b.global_sum(maps[-1])), 4)
    return b.program()


@settings(deadline=None, max_examples=150)
@given(program=block_programs())
def test_what_lies_within_another_is_never_lost(program: Program) -> None:
    check_near(program, 1)


def test_what_was_made_before_the_map_that_it_goes_into() -> None:
    """Its maker would write over it."""
    b = Builder((3, 4, 1))
    y, x = part(b, "f32", 32), part(b, "f32", 64)
    check_near(b.finish(b.concat(b.slice(x, 0, 32), y)))


# ---------------------------------------------------------------- what is proved and refused


def test_bounds_stand_in_the_order_of_the_inputs() -> None:
    b = Builder((3, 3, 1))
    fine, coarse = part(b, "f32", 3), b.to_float(part(b, "bits", 2))
    program = b.finish(b.concat(coarse, fine))
    found = exact.grids(program)
    joined = found[program.ops[-3].name]
    assert joined.exponent == found[fine].exponent > found[coarse].exponent == 0
    np.testing.assert_array_equal(joined.bound, [1, 1, *found[fine].bound])
    assert joined.exact


@pytest.mark.parametrize("place", [0, 1])
def test_one_inexact_part_makes_the_whole_inexact(place: int) -> None:
    b = Builder((3, 3, 1))
    good, bad = part(b, "f32", 3), b.avg_pool(part(b, "f32", 2), Window((3, 3), pads=(1, 1, 1, 1)))
    order = (bad, good) if place == 0 else (good, bad)
    joined = b.concat(*order)
    assert not exact.grids(b.finish(joined))[joined].exact


@pytest.mark.parametrize("place", [0, 1])
def test_the_largest_part_counts_for_overflow(place: int) -> None:
    b = Builder((3, 3, 1))
    small, large = part(b, "f32", 3), part(b, "f32", 2)
    order = (large, small) if place == 0 else (small, large)
    last = b.conv(b.concat(*order), 2, POINT)
    program = b.finish(last)
    verify(program)
    ops = tuple(
        dataclasses.replace(op, weights=np.full_like(op.weights, 1e18))  # type: ignore[attr-defined]
        if op.name in (large, last)
        else op
        for op in program.ops
    )
    with pytest.raises(FormatError, match=f"op '{last}': its values could overflow"):
        verify(dataclasses.replace(program, ops=ops))


def joined(*inputs: str) -> Program:
    """A join of ``inputs``: two of bits, two of f32, one of another size."""
    b = Builder((4, 4, 1))
    x = b.conv(INPUT, 3, POINT)
    names = {"f32": x, "bits": b.sign(x), "pooled": b.max_pool(x, Window((2, 2), (2, 2)))}
    names |= {"pixels": INPUT, "nobody": "nobody"}
    both = b.concat(names["f32"], names["f32"])
    program = b.finish(both)
    ops = tuple(
        dataclasses.replace(op, inputs=tuple(names[name] for name in inputs))
        if op.name == both
        else op
        for op in program.ops
    )
    return dataclasses.replace(program, ops=ops)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "takes 2 to 256 inputs, has 0"),
        (("f32",), "takes 2 to 256 inputs, has 1"),
        (("f32",) * (MAX_PARTS + 1), "has 257"),
        (("f32", "bits"), "joins f32 'conv0' and bits 'sign1'"),
        (("bits", "f32"), "joins bits 'sign1' and f32 'conv0'"),
        (("pixels", "pixels"), "'input' is u8"),
        (("f32", "pooled"), r"'conv0' is \(4, 4\), 'max2' \(2, 2\)"),
        (("f32", "nobody"), "'nobody' is not computed before"),
    ],
)
def test_what_cannot_be_joined_is_refused_by_name(inputs: tuple[str, ...], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        verify(joined(*inputs))
    assert str(caught.value).startswith("op 'concat3' (Concat): ")


def test_too_many_channels_are_refused() -> None:
    b = Builder((1, 1, 1))
    x = part(b, "f32", 300)
    with pytest.raises(FormatError, match=r"output shape .* out of range"):
        verify(b.finish(b.concat(*[x] * 256)))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_padded_part_leaves_what_lies_beside_it(before: bool, first: bool) -> None:
    """A Pad clears its map; joined in place, it would clear the parts beside it too."""
    b = Builder((6, 5, 3), seed=3)
    inner = b.max_pool(b.conv(INPUT, 32, POINT), Window((3, 3)))
    other = b.max_pool(b.conv(INPUT, 64, POINT), POINT) if before else ""
    padded = b.pad(inner, (1, 1, 1, 1), (0, 0))
    other = other or b.max_pool(b.conv(INPUT, 64, POINT), POINT)
    both = b.concat(*((padded, other) if first else (other, padded)))
    b.sign(both)
    check(b.finish(both, 3))
