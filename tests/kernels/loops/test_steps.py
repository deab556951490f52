"""Single steps of the engine against the reference, where random Programs rarely look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.kernels import op_table as t
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import INPUT, Affine, BinaryConv, Conv, MaxPool, Program, Window
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.integers import HAS_INT16
from frostbit.kernels.plan import weight_layout
from frostbit.kernels.plan.arena import ALIGNMENT, Constants
from frostbit.kernels.plan.fusion import Step
from frostbit.kernels.plan.integer_layout import as_whole
from frostbit.kernels.plan.plan import make_plan
from frostbit.kernels.plan.schedule import schedule
from tests.kernels.programs import CHANNELS, Builder, random_images

SAME = Window((3, 3), pads=(1, 1, 1, 1))


def check(program: Program, count: int = 2) -> None:
    """Logits and bits equal the reference's."""
    images = random_images(program, count)
    want = reference.trace(program, images)
    for kernel in cpu.available():
        for name, words in Engine(program, keep=True, kernel=kernel).signs(images).items():
            np.testing.assert_array_equal(words, bits.pack(want[name]), err_msg=name)
        logits = Engine(program, kernel=kernel).run(images)  # without keep: values share memory
        np.testing.assert_array_equal(logits, want[program.ops[-1].name][:, 0, 0])


@settings(deadline=None, max_examples=40)
@given(
    channels=CHANNELS,
    out=CHANNELS,
    pads=st.tuples(*[st.integers(0, 4)] * 4),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pad_value=st.sampled_from([0, 1]),
    affine=st.booleans(),
)
def test_binary_convolution_geometry(
    channels: int,
    out: int,
    pads: tuple[int, int, int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    pad_value: int,
    affine: bool,
) -> None:
    b = Builder((7, 8, 1), seed=channels)
    x = b.sign(b.conv(INPUT, channels, Window((1, 1))))
    window = Window((3, 2), stride, pads, dilation)
    y = b.binary_conv(x, out, window, pad_value=pad_value, affine=affine)
    check(b.finish(y, 3))


@pytest.mark.parametrize("groups", [2, 4, 36])
@pytest.mark.parametrize("pad_value", [0, 1])
def test_groups(groups: int, pad_value: int) -> None:
    b = Builder((6, 5, 2), seed=groups)
    x = b.sign(b.conv(INPUT, 36, SAME))
    y = b.binary_conv(x, 36, SAME, groups=groups, pad_value=pad_value, affine=False)
    z = b.binary_conv(y, 72, SAME, groups=groups, pad_value=pad_value)
    check(b.finish(z))


@pytest.mark.parametrize("classes", [1, 10, 33])
@pytest.mark.parametrize("kernel", [(1, 1), (5, 3), (7, 7)])
def test_stem_and_dense(classes: int, kernel: tuple[int, int]) -> None:
    b = Builder((9, 11, 3))
    x = b.conv(INPUT, 20, Window(kernel, (2, 1), (3, 1, 2, 4)))
    check(b.finish(b.sign(x), classes))


def test_convolution_of_bits_and_of_floats() -> None:
    b = Builder((6, 7, 2))
    x = b.sign(b.conv(INPUT, 35, SAME))
    y = b.conv(x, 9, Window((3, 2), (1, 2), (1, 0, 2, 1)))
    z = b.conv(b.max_pool(b.to_float(x), Window((2, 2))), 40, SAME)
    w = b.conv(b.to_float(x), 3, Window((2, 2)))
    b.global_sum(y)
    b.global_sum(w)
    check(b.finish(z))


@pytest.mark.parametrize("kind", ["pixels", "bits", "f32"])
@pytest.mark.parametrize(
    ("channels", "out", "groups"),
    [
        (35, 35, 35), (64, 64, 64), (6, 12, 3), (32, 32, 4), (32, 64, 8), (40, 20, 5), (96, 96, 3),
        (6, 66, 2), (10, 50, 10), (34, 38, 2),
    ],
)  # fmt: skip
def test_grouped_convolution(kind: str, channels: int, out: int, groups: int) -> None:
    """Depthwise, and groups of several channels that share registers, with pads and without."""
    b = Builder((6, 7, channels if kind == "pixels" else 2), seed=groups)
    x = INPUT
    if kind != "pixels":
        x = b.sign(b.conv(INPUT, channels, SAME))
        x = b.to_float(x) if kind == "f32" else x
    y = b.conv(x, out, Window((3, 2), (1, 2), (1, 0, 2, 1)), groups)
    b.global_sum(b.conv(x, out, Window((2, 2), dilation=(2, 1)), groups))
    check(b.finish(b.sign(y)))


@pytest.mark.parametrize("groups", [1, 3, 36])
@pytest.mark.parametrize("pad_value", [0, 1])
def test_binary_weights_on_floats(groups: int, pad_value: int) -> None:
    b = Builder((6, 5, 2), seed=groups)
    x = b.clip(b.conv(INPUT, 36, SAME))
    y = b.binary_conv(x, 36, SAME, groups=groups, pad_value=pad_value)
    z = b.binary_conv(b.add(x, y), 5, Window((3, 2)))
    check(b.finish(b.sign(z)))


def test_clip() -> None:
    b = Builder((4, 4, 1))
    x = b.max_pool(b.conv(INPUT, 37, SAME), Window((1, 1)))
    check(b.finish(b.add(b.clip(x), x)))


def test_average_over_nine() -> None:
    """The quotient is not on the grid, but the sum is: both sides round once."""
    b = Builder((7, 7, 1))
    x = b.conv(INPUT, 33, SAME)
    y = b.avg_pool(x, Window((3, 3), (2, 2), (1, 1, 1, 1)))
    check(b.finish(b.sign(y)))


@pytest.mark.parametrize("kind", ["bits", "f32"])
def test_max_pool_ignores_pads(kind: str) -> None:
    b = Builder((5, 6, 1))
    x = b.conv(INPUT, 37, SAME)
    x = b.sign(x) if kind == "bits" else x
    y = b.max_pool(x, Window((3, 3), (2, 2), (1, 2, 2, 1)))
    assert isinstance(b.ops[-1], MaxPool)
    check(b.finish(y))


@pytest.mark.parametrize("kind", ["max of bits", "max", "mean"])
def test_dilated_pools(kind: str) -> None:
    b = Builder((9, 8, 1))
    x = b.conv(INPUT, 37, SAME)
    window = Window((2, 4), (2, 1), (1, 1, 1, 0), (3, 2))
    if kind == "mean":
        y = b.avg_pool(x, window)
    else:
        y = b.max_pool(b.sign(x) if kind == "max of bits" else x, window)
    check(b.finish(y))


def test_spare_lanes_of_a_repeat_are_cleared() -> None:
    """Its memory held negative floats of another value, whose signs must not leak."""
    b = Builder((4, 4, 1), seed=1)
    x = b.max_pool(b.conv(INPUT, 32, SAME), Window((1, 1)))
    r = b.repeat(b.conv(x, 5, Window((1, 1))), 3)
    check(b.finish(b.binary_conv(b.sign(r), 8, SAME)), 3)


def test_a_program_of_one_value_added_to_itself() -> None:
    b = Builder((4, 4, 1))
    x = b.binary_conv(b.sign(b.conv(INPUT, 34, SAME)), 34, SAME)
    check(b.finish(b.add(x, x)))


def test_result_that_is_a_conversion() -> None:
    b = Builder((4, 4, 1))
    s = b.sign(b.conv(INPUT, 7, Window((4, 4))))
    b.to_float(s)
    check(b.program())


def steps_of(program: Program) -> list[Step]:
    return schedule(program, infer_types(program))


def test_fusion_of_a_residual_block() -> None:
    """Sign, convolution, Add and the next Sign: one step, with residual and both outputs."""
    b = Builder((8, 8, 1))
    x = b.conv(INPUT, 32, SAME)
    y = b.add(b.binary_conv(b.sign(x), 32, SAME), x)
    z = b.add(b.to_float(b.sign(y)), b.binary_conv(b.sign(y), 32, SAME))
    program = b.finish(b.sign(z))
    fused = [step for step in steps_of(program) if isinstance(step.op, BinaryConv)]
    assert [(step.residual, step.out) for step in fused] == [(x, y), ("sign4", None)]
    assert [step.bits for step in fused] == ["sign4", "sign9"]
    check(program)


def test_equal_constants_are_stored_once() -> None:
    constants = Constants()
    first = constants.add(np.arange(40, dtype=np.float32))
    other = constants.add(np.arange(3, dtype=np.int32))
    assert constants.add(np.arange(40, dtype=np.float32)) == first
    block = constants.block()
    assert block.ctypes.data % ALIGNMENT == 0
    assert first % ALIGNMENT == 0
    assert other % ALIGNMENT == 0
    assert block.size == 192 + 64
    np.testing.assert_array_equal(block[other : other + 12].view(np.int32), [0, 1, 2])


@settings(deadline=None, max_examples=40)
@given(
    channels=st.integers(1, 70),
    kind=st.sampled_from(["pixels", "bits"]),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    fine=st.booleans(),
)
def test_full_precision_convolution_geometry(
    channels: int,
    kind: str,
    kernel: tuple[int, int],
    pads: tuple[int, int, int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    fine: bool,
) -> None:
    """In integers, and, with one weight too fine for 16 bits, in floats: both exact."""
    b = Builder((6, 7, channels if kind == "pixels" else 1), seed=channels)
    x = INPUT if kind == "pixels" else b.sign(b.conv(INPUT, channels, Window((1, 1))))
    window = Window(kernel, stride, pads, dilation)
    y = b.conv(x, 33, window)
    op = b.ops[-1]
    assert isinstance(op, Conv)
    op.weights[...] = np.clip(op.weights * 64, -100, 100).round() / 64
    op.add[...] = np.round(op.add)
    if fine:
        op.weights[0, 0, 0, 0] = 2.0**-9 * (1 + 2.0**-4)
        op.weights[1, 0, 0, 0] = 4.0 if kind == "bits" else 0.5
    whole = as_whole(op, "u8" if kind == "pixels" else "bits")
    assert (whole is not None) == (HAS_INT16 and not (fine and kind == "bits"))
    check(b.finish(b.sign(y)))


@settings(deadline=None, max_examples=40)
@given(
    channels=CHANNELS,
    pad_value=st.sampled_from([0, 1]),
    groups=st.sampled_from([1, 1, 1, 2]),
    seed=st.integers(0, 1000),
)
def test_sign_of_a_sum_with_bits(channels: int, pad_value: int, groups: int, seed: int) -> None:
    """Only the sign is wanted, so the engine compares counts: also where ``mul`` is 0 or falls."""
    channels = channels if groups == 1 else 2 * channels
    b = Builder((5, 7, 1), seed=seed)
    x = b.sign(b.conv(INPUT, channels, SAME))
    y = b.binary_conv(x, channels, SAME, groups=groups, pad_value=pad_value, affine=True)
    op = b.ops[-1]
    assert isinstance(op, BinaryConv)
    assert isinstance(op.epilogue, Affine)
    mul = b.rng.integers(-3, 4, channels) * np.float32(2.0 ** -b.rng.integers(0, 9))
    add = b.rng.integers(-8, 9, channels) * np.float32(0.25)
    b.ops[-1] = replace(op, epilogue=Affine(mul.astype(np.float32), add.astype(np.float32)))
    program = b.finish(b.sign(b.add(y, b.to_float(x))))
    codes = make_plan(program, cpu.chosen_kernel()).table[:, t.MUL]
    assert t.SWITCH in codes
    check(program)


def test_levels_are_where_the_sign_changes() -> None:
    """Every accumulator, with numbers that round: as the reference rounds them."""
    rng = np.random.default_rng(5)
    taps = 40
    mul = np.concatenate([rng.normal(size=60), [0.0, -0.0, 1e-30, -1e-30]]).astype(np.float32)
    add = np.concatenate([rng.normal(scale=9, size=60), [0.0, -1.0, 1.0, 0.5]]).astype(np.float32)
    acc = np.arange(-taps, taps + 1)[:, None]
    for shift in (1.0, -1.0, 0.0):
        value = (acc * mul.astype(np.float64) + add).astype(np.float32) + np.float32(shift)
        level, falls = weight_layout.sign_levels(Affine(mul, add), shift, taps)
        np.testing.assert_array_equal(value >= 0, (acc >= level) != falls)
