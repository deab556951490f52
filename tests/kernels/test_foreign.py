"""What only imported networks have, in the engine: every op, float images, clipped sums."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.kernels import op_table as t
from frostbit.kernels.engine import Engine, run_plan
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import (
    INPUT,
    INPUT_LIMIT,
    NO_BOUND,
    NO_LIMIT,
    Affine,
    Program,
    Window,
)
from frostbit.kernels.machine import cpu
from frostbit.kernels.plan import weight_layout
from frostbit.kernels.plan.plan import make_plan
from frostbit.kernels.profile import profile
from tests.kernels.against import check_near
from tests.kernels.loops.test_steps import SAME, check, steps_of
from tests.kernels.programs import CHANNELS, Builder, programs, random_images
from tests.nets import imported

POINT = Window((1, 1))
Kind = Literal["u8", "f32"]


@settings(deadline=None, max_examples=100)
@given(program=programs(foreign=True))
def test_random_programs(program: Program) -> None:
    check_near(program)


def test_a_network_with_all_of_them() -> None:
    check_near(imported())


FUNCTIONS: dict[str, Callable[[Builder, str], str]] = {
    "relu": lambda b, x: b.clip(x, 0.0, NO_BOUND),
    "relu6": lambda b, x: b.clip(x, 0.0, 6.0),
    "clip to negative numbers": lambda b, x: b.clip(x, -2.0, -0.5),
    "square": lambda b, x: b.mul(x, x),
    "gate": lambda b, x: b.mul(x, b.sigmoid(b.global_sum(x))),
    "scale": lambda b, x: b.scale(x),
    "prelu": lambda b, x: b.prelu(x),
    "quantize": lambda b, x: b.quantize(x, 0.25, -8.0, 7.0),
    "quantize to negative steps": lambda b, x: b.quantize(x, 0.3, -9.0, -4.0),
    "sigmoid": lambda b, x: b.sigmoid(x),
    "slice": lambda b, x: b.slice(x, 0, (b.types[x].shape[2] + 1) // 2),
    "pad": lambda b, x: b.pad(x, (1, 0, 2, 3), (5, 30)),
    "flatten": lambda b, x: b.flatten(x),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("kind", ["u8", "f32"])
@pytest.mark.parametrize("channels", [1, 33, 64])
def test_a_function_of_a_map_and_of_the_image(function: str, kind: Kind, channels: int) -> None:
    """Also its signs, which spare lanes must not reach, and both where values share memory."""
    b = Builder((4, 5, channels), seed=channels, kind=kind)
    apply = FUNCTIONS[function]
    image = b.scale(INPUT) if kind == "u8" else INPUT
    y = b.add(*[b.conv(apply(b, x), 7, POINT) for x in (image, b.conv(image, channels, SAME))])
    z = apply(b, b.max_pool(b.conv(image, channels, SAME), SAME))
    y = b.add(b.global_sum(y), b.global_sum(b.binary_conv(b.sign(z), 7, POINT)))
    check_near(b.finish(y))


def test_every_kind_of_step_reads_the_image() -> None:
    b = Builder((4, 5, 3), kind="f32")
    x = b.add(INPUT, INPUT)
    x = b.concat(INPUT, x, b.clip(INPUT), b.mul(x, INPUT), b.mul(x, b.global_sum(INPUT)))
    x = b.concat(x, b.repeat(INPUT, 2), b.max_pool(INPUT, POINT), b.avg_pool(INPUT, POINT))
    s = b.binary_conv(b.sign(INPUT), 5, SAME)
    s = b.add(s, b.binary_conv(INPUT, 5, SAME, pad_value=0))
    s = b.add(s, b.binary_conv(INPUT, 5, SAME, pad_value=1))
    b.concat(b.dense(b.global_sum(b.concat(x, s)), 4), b.dense(b.flatten(INPUT), 2))
    check_near(b.program())


def test_an_image_of_one_pixel_is_a_dense_layer_s_input() -> None:
    b = Builder((1, 1, 70), kind="f32")
    b.softmax(b.dense(INPUT, 35))
    check_near(b.program())


@settings(deadline=None, max_examples=40)
@given(
    channels=CHANNELS,
    out=CHANNELS,
    pad_value=st.sampled_from([0, 1]),
    groups=st.sampled_from([1, 1, 1, 2]),
    low=st.integers(-40, 20),
    room=st.sampled_from([0, 3, 100, 2 * NO_LIMIT]),
    residual=st.sampled_from(["none", "floats", "bits"]),
)
def test_clipped_sums(
    channels: int, out: int, pad_value: int, groups: int, low: int, room: int, residual: str
) -> None:
    """Every bit and logit: alone, on a residual, and where only the sign is wanted."""
    channels, out = channels * groups, out * groups
    b = Builder((5, 7, 1), seed=out)
    x = b.sign(b.conv(INPUT, channels, SAME))
    high = min(low + room, NO_LIMIT)
    y = b.binary_conv(x, out, SAME, groups=groups, pad_value=pad_value, limits=(low, high))
    if residual != "none":
        other = b.conv(INPUT, out, SAME)
        y = b.add(y, b.to_float(b.sign(other)) if residual == "bits" else other)
    s = b.sign(y)
    check(b.finish(s if residual == "bits" else b.add(y, b.to_float(s)), 3))


def test_one_limit_is_enough() -> None:
    b = Builder((5, 7, 1))
    x = b.sign(b.conv(INPUT, 40, SAME))
    y = b.binary_conv(x, 70, SAME, limits=(-NO_LIMIT, 4))
    check(b.finish(b.binary_conv(b.sign(y), 70, SAME, limits=(-4, NO_LIMIT))))


def test_sums_without_limits_take_kernels_without() -> None:
    b = Builder((4, 4, 1))
    x = b.sign(b.conv(INPUT, 32, SAME))
    program = b.finish(b.binary_conv(b.sign(b.binary_conv(x, 32, SAME)), 32, SAME, limits=(0, 9)))
    table = make_plan(program, cpu.chosen_kernel()).table
    counted = table[(table[:, t.CODE] == t.CONVOLVE) & (table[:, t.MICRO] < t.INT16)]
    assert counted[:, t.HAS_LIMITS].tolist() == [0, 1]


def test_levels_are_where_the_sign_of_a_clipped_sum_changes() -> None:
    rng = np.random.default_rng(5)
    taps = 40
    mul, add = (rng.normal(size=200, scale=s).astype(np.float32) for s in (1.0, 9.0))
    acc = np.arange(-taps, taps + 1)[:, None]
    for low, high in ((0, NO_LIMIT), (-7, 5), (-NO_LIMIT, -3)):
        value = (np.clip(acc, low, high) * mul.astype(np.float64) + add).astype(np.float32)
        level, falls = weight_layout.sign_levels(Affine(mul, add, low, high), 1.0, taps)
        np.testing.assert_array_equal(value + np.float32(1) >= 0, (acc >= level) != falls)


@pytest.mark.parametrize("start", [0, 1, 31, 32, 40])
@pytest.mark.parametrize("count", [1, 31, 32, 33, 64])
@pytest.mark.parametrize("kind", ["bits", "f32"])
def test_places_of_a_slice(start: int, count: int, kind: str) -> None:
    b = Builder((3, 4, 1), seed=start)
    x = b.conv(INPUT, 110, SAME)
    y = b.slice(b.sign(x) if kind == "bits" else x, start, start + count)
    s = y if kind == "bits" else b.sign(y)
    z = b.binary_conv(s, 9, Window((2, 2), pads=(1, 0, 0, 1)))
    check(b.finish(b.binary_conv(b.sign(z), 4, POINT)))


@pytest.mark.parametrize("channels", [1, 5, 31, 32, 33, 64])
def test_flattened_bits(channels: int) -> None:
    b = Builder((3, 4, 1), seed=channels)
    x = b.flatten(b.sign(b.conv(INPUT, channels, SAME)))
    y = b.binary_conv(x, 40, POINT, affine=False)
    check(b.finish(y))


def last_bit(b: Builder, images: np.ndarray) -> None:
    """Logits within one unit in the last place of the reference's."""
    program = b.program()
    got, want = Engine(program).run(images), reference.run(program, images)
    np.testing.assert_array_max_ulp(got, want, 1)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-30, 80.0, -80.0, -104.0, 1000.0, -1000.0])
def test_sigmoid_and_softmax_far_from_0(value: float) -> None:
    """Without overflow."""
    b = Builder((1, 1, 40), kind="f32")
    both = b.concat(b.sigmoid(INPUT), b.softmax(INPUT))
    b.add(both, both)
    last_bit(b, np.linspace(-3, 3, 40, dtype=np.float32).reshape(1, 1, 1, 40) + np.float32(value))


@pytest.mark.parametrize("function", sorted(FUNCTIONS.keys() - {"pad"}))
def test_a_function_alone_to_the_last_bit(function: str) -> None:
    b = Builder((1, 1, 41), kind="f32")
    FUNCTIONS[function](b, INPUT)
    last_bit(b, b.rng.normal(scale=4, size=(9, 1, 1, 41)).astype(np.float32))


RELUS: dict[str, Callable[[Builder, str, str], str]] = {
    "convolution": lambda b, x, s: b.conv(x, 37, SAME),
    "depthwise": lambda b, x, s: b.conv(x, 40, SAME, groups=40),
    "grouped": lambda b, x, s: b.conv(x, 40, SAME, groups=2),
    "of bits": lambda b, x, s: b.conv(s, 37, SAME),
    "binary": lambda b, x, s: b.binary_conv(s, 70, SAME, pad_value=0),
    "binary on floats": lambda b, x, s: b.binary_conv(x, 37, SAME),
    "clipped sums": lambda b, x, s: b.binary_conv(s, 70, SAME, limits=(-9, 4)),
    "sum": lambda b, x, s: b.add(b.binary_conv(s, 40, SAME, limits=(0, 9)), x),
    "sum with bits": lambda b, x, s: b.add(b.to_float(s), b.binary_conv(s, 40, SAME)),
    "dense": lambda b, x, s: b.dense(b.global_sum(x), 37),
}


@pytest.mark.parametrize("limits", [(0.0, NO_BOUND), (-0.5, 2.0), (1.0, 3.0)])
@pytest.mark.parametrize("kind", RELUS)
def test_a_relu_is_part_of_the_step_before(kind: str, limits: tuple[float, float]) -> None:
    b = Builder((5, 7, 2), seed=3)
    x = b.conv(INPUT, 40, SAME)
    y = RELUS[kind](b, x, b.sign(x))
    z = b.clip(y, *limits)
    program = b.finish(b.binary_conv(b.sign(z), 3, POINT))
    assert z not in {step.op.name for step in steps_of(program)}
    check_near(program)
    b.ops.pop(), b.ops.pop()
    check_near(b.finish(b.concat(z, z)))


def test_a_clip_of_its_own() -> None:
    """Where something else reads what is clipped, and where spare lanes would become negative."""
    b = Builder((5, 7, 2))
    x, y = b.conv(INPUT, 37, SAME), b.conv(INPUT, 37, SAME)
    relu, below = b.clip(x, 0.0, NO_BOUND), b.clip(y, -3.0, -1.0)
    z = b.add(x, b.add(relu, below))
    program = b.finish(b.binary_conv(b.sign(below), 37, SAME))
    assert {relu, below} <= {step.op.name for step in steps_of(program)}
    b.ops.pop(), b.ops.pop()
    check_near(b.finish(b.add(z, b.binary_conv(b.sign(below), 37, SAME))))


@pytest.mark.parametrize("channels", [1, 15, 16, 17, 32, 48, 49])
@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5)])
def test_float_convolutions_of_parts_of_a_tile_and_of_a_group(
    channels: int, size: tuple[int, int]
) -> None:
    b = Builder((*size, 3), kind="f32")
    x = b.max_pool(b.conv(INPUT, channels, POINT), POINT)
    x = b.conv(x, channels, SAME, groups=channels)
    check_near(b.finish(b.binary_conv(b.sign(x), 5, POINT)))


# ---------------------------------------------------------------- float images in the engine


def test_pixels_and_floats_need_one_compiled_form() -> None:
    for program in (imported(), replace(imported(), input_kind="u8", preprocessing=None)):
        Engine(program).run(random_images(program, 1))
    assert len(run_plan.signatures) == 1  # type: ignore[attr-defined]


def test_float_images_of_any_memory_order_in_threads_and_slices(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = imported()
    images = random_images(program, 50)
    want = np.concatenate([Engine(program).run(image[None]) for image in images])
    monkeypatch.setattr("frostbit.kernels.engine.SLICE_SECONDS", 1e-9)
    engine = Engine(program, threads=3)
    frozen = images.copy()
    frozen.flags.writeable = False
    for each in (images, np.asfortranarray(images), frozen, images[::-1][::-1]):
        np.testing.assert_array_equal(engine.run(each), want)


@pytest.mark.parametrize("clone", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_a_copy_of_an_engine_for_float_images(clone: Callable[[Engine], Engine]) -> None:
    program = imported()
    images = random_images(program, 4)
    engine = Engine(program, threads=2)
    np.testing.assert_array_equal(clone(engine).run(images), engine.run(images))


def test_a_profile_with_float_images() -> None:
    program = imported()
    steps, whole = profile(Engine(program), random_images(program, 1)[0], rounds=2)
    assert {"Scale", "PRelu", "Slice", "Pad", "Softmax"} <= {step.op for step in steps}
    assert whole > 0


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 6, 7, 2), np.uint8), "float32"),
        (np.zeros((1, 6, 7, 2), np.float64), "float32"),
        (np.full((1, 6, 7, 2), np.nan, np.float32), "NaN"),
        (np.full((1, 6, 7, 2), np.inf, np.float32), "infinity"),
        (np.full((1, 6, 7, 2), -2 * INPUT_LIMIT, np.float32), "beyond"),
    ],
)
def test_other_images_are_refused(images: np.ndarray, message: str) -> None:
    engine = Engine(imported(), keep=True)
    for call in (engine.run, engine.signs, lambda x: engine.time_steps(0, 1, x)):
        with pytest.raises(ValueError, match=message):
            call(images)
