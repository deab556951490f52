"""Full-precision layers whose weights are whole numbers of 8 or 16 bits, against the reference."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels import op_table as t
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import bits, exact, reference
from frostbit.kernels.ir.program import INPUT, Conv, Dense, Program, Window
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.machine import cpu
from frostbit.kernels.micro.integers import HAS_INT16, INT8_KINDS
from frostbit.kernels.plan.integer_layout import as_whole
from frostbit.kernels.plan.plan import make_plan
from frostbit.kernels.plan.quads import QuadConv
from frostbit.kernels.plan.schedule import schedule
from tests.kernels.programs import Builder, random_images, windows

LARGE, POINT = 127, Window((1, 1))
THREADS = st.sampled_from([1, 2, 3, 7])


def check(program: Program, images: NDArray[np.uint8] | None = None, threads: int = 1) -> None:
    """Every bit and every logit is the reference's, on several threads too; it is exact."""
    verdict = exact.analyse(program)
    assert verdict.body_exact
    assert verdict.head_exact
    images = random_images(program, 2) if images is None else images
    want = reference.trace(program, images)
    engine = Engine(program, keep=True)
    for name, words in engine.signs(images).items():
        np.testing.assert_array_equal(words, bits.pack(want[name]), err_msg=name)
    logits = Engine(program).run(images)
    np.testing.assert_array_equal(logits, want[program.ops[-1].name][:, 0, 0])


def with_weights(b: Builder, small: NDArray[np.int64], scale: NDArray[np.float32]) -> None:
    """The last layer of ``b`` with other weights; its addend is as fine as they are."""
    op = b.ops[-1]
    assert isinstance(op, (Conv, Dense))
    weights = small * scale.reshape(-1, *[1] * (small.ndim - 1))
    add = b.rng.integers(-50, 50, len(small)) * scale
    b.ops[-1] = replace(op, weights=weights.astype(np.float32), add=add.astype(np.float32))


def filled(shape: tuple[int, ...], value: int) -> NDArray[np.int64]:
    """All ``value``, but one a channel is a little smaller, so that nothing divides them all."""
    small = np.full(shape, value)
    small.reshape(len(small), -1)[:, 0] -= np.sign(value)
    return small


def micro_of(program: Program, name: str) -> int:
    """The micro-kernel that computes op ``name``."""
    plan = make_plan(program, cpu.chosen_kernel())
    return int(plan.table[plan.ops.index(name), t.MICRO])


@settings(deadline=None, max_examples=60)
@given(
    data=st.data(),
    channels=st.sampled_from([1, 3, 4, 5, 31, 32, 33, 64, 70]),
    kind=st.sampled_from(["u8", "bits", "depthwise"]),
    out=st.sampled_from([1, 32, 33, 65]),
    shown=st.booleans(),
    threads=THREADS,
    seed=st.integers(0, 2**16),
)
def test_any_geometry(
    data: st.DataObject, channels: int, kind: str, out: int, shown: bool, threads: int, seed: int
) -> None:
    """Signs alone (a threshold on sums), and with ``shown`` floats too."""
    channels = min(channels, 5) if kind == "u8" else channels
    b = Builder((6, 7, channels if kind == "u8" else 2), seed=seed)
    x = INPUT if kind == "u8" else b.sign(b.conv(INPUT, channels, POINT))
    groups = channels if kind == "depthwise" else 1
    y = b.conv(x, channels if groups > 1 else out, data.draw(windows((6, 7))), groups)
    op = b.ops[-1]
    assert isinstance(op, Conv)
    small = b.rng.integers(-LARGE, LARGE + 1, op.weights.shape)
    small.reshape(len(small), -1)[:, 0] = LARGE
    scale = b.rng.integers(1, 4, len(small)) * np.float32(2.0 ** -data.draw(st.integers(0, 6)))
    with_weights(b, small, scale.astype(np.float32))
    signs = b.to_float(b.sign(y))
    last = b.to_float(b.sign(b.add(signs, y))) if shown else signs
    check(b.finish(last), threads=threads)


@pytest.mark.parametrize("channels", [256, 257, 1030, 2049])
@pytest.mark.parametrize("value", [LARGE, -LARGE])
def test_largest_sums_of_bits(channels: int, value: int) -> None:
    """Every product is as large as it gets: what is added in 16 bits must not saturate."""
    b = Builder((1, 2, 1), seed=channels)
    x = b.sign(b.conv(INPUT, channels, POINT))
    b.ops[-2] = replace(b.ops[-2], weights=np.ones((channels, 1, 1, 1), np.float32),
                        add=np.full(channels, -100, np.float32))  # fmt: skip
    y = b.conv(x, 33, Window((1, 2)))
    with_weights(b, filled((33, 1, 2, channels), value), np.ones(33, np.float32))
    expected = t.INT8 if "bits" in INT8_KINDS else None
    program = b.finish(b.sign(y))
    if expected is not None:
        assert micro_of(program, y) == expected
    check(program, np.array([[[[0], [255]]], [[[255], [255]]], [[[0], [0]]]], np.uint8))


@pytest.mark.parametrize("value", [LARGE, -LARGE])
def test_largest_sums_of_pixels(value: int) -> None:
    b = Builder((9, 9, 3), seed=1)
    y = b.conv(INPUT, 33, Window((7, 7), (2, 2), (3, 3, 3, 3)))
    b.ops[-1] = replace(b.ops[-1], pad_value=np.array([255, 0, 255], np.uint8))
    with_weights(b, filled((33, 7, 7, 3), value), np.ones(33, np.float32))
    images = np.stack([np.full((9, 9, 3), level, np.uint8) for level in (0, 127, 128, 255)])
    check(b.finish(b.sign(y)), images)


@pytest.mark.skipif("u8" in INT8_KINDS or not HAS_INT16, reason="for AVX2 without VNNI")
@settings(deadline=None, max_examples=30)
@given(
    kernel=st.tuples(st.integers(5, 8), st.integers(5, 8)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    pads=st.tuples(*[st.integers(0, 3)] * 4),
    channels=st.integers(2, 7),
    out=st.sampled_from([1, 32, 33, 65]),
    largest=st.booleans(),
    threads=THREADS,
    seed=st.integers(0, 2**16),
)
def test_quads(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    size: tuple[int, int],
    pads: tuple[int, int, int, int],
    channels: int,
    out: int,
    largest: bool,
    threads: int,
    seed: int,
) -> None:
    """Four outputs at a time with fewer products give the bits of the plain sums."""
    height, width = (
        max(1, (2 * size[i] - 1) * stride[i] + kernel[i] - pads[i] - pads[i + 2]) for i in range(2)
    )
    b = Builder((height, width, channels), seed=seed)
    y = b.conv(INPUT, out, Window(kernel, stride, pads))
    op = b.ops[-1]
    assert isinstance(op, Conv)
    ends = [-LARGE, LARGE] if largest else range(-LARGE, LARGE + 1)
    small = b.rng.choice(ends, op.weights.shape)
    small.reshape(out, -1)[:, 0] = LARGE - 1
    with_weights(b, small, np.full(out, 2.0**-3, np.float32))
    program = b.finish(b.sign(y))
    even = all(side % 2 == 0 for side in b.types[y].shape[:2])
    assert micro_of(program, y) == (t.QUADS if even and _pays_in_quads(program) else t.INT16)
    images = random_images(program, 2)
    images[0] = 255 * b.rng.integers(0, 2, images[0].shape)
    check(program, images, threads)


def _pays_in_quads(program: Program) -> bool:
    steps = schedule(program, infer_types(program))
    return any(isinstance(step.op, QuadConv) for step in steps)


def test_the_standard_stem_is_computed_in_quads() -> None:
    program = synthetic("resnet18@224")
    expected = t.INT8 if "u8" in INT8_KINDS else t.QUADS if HAS_INT16 else t.FLOAT
    assert micro_of(program, "conv1") == expected


def test_sums_beyond_32_bits_are_not_summed_in_integers() -> None:
    """Twice such a sum would wrap around; the floats it is summed in round instead."""
    b = Builder((110, 110, 3), seed=2)
    y = b.conv(INPUT, 2, Window((110, 110)))
    with_weights(b, filled((2, 110, 110, 3), LARGE), np.ones(2, np.float32))
    op = b.ops[-1]
    assert isinstance(op, Conv)
    assert as_whole(op, "u8") is None
    b.sign(y)
    program = b.finish(y)
    assert micro_of(program, y) == t.FLOAT
    found = Engine(program).run(np.full((1, 110, 110, 3), 255, np.uint8))
    want = reference.trace(program, np.full((1, 110, 110, 3), 255, np.uint8))
    np.testing.assert_allclose(found, want[program.ops[-1].name][:, 0, 0], rtol=1e-3)


def test_depthwise_sums_beyond_16_bits_are_summed_in_floats() -> None:
    for side, micro in ((16, t.LANES16), (17, t.DEPTHWISE)):
        b = Builder((17, 17, 1), seed=3)
        x = b.sign(b.conv(INPUT, 32, POINT))
        y = b.conv(x, 32, Window((side, side)), 32)
        with_weights(b, filled((32, side, side, 1), LARGE), np.ones(32, np.float32))
        program = b.finish(b.sign(y))
        assert micro_of(program, y) == micro
        check(program, np.stack([np.full((17, 17, 1), level, np.uint8) for level in (0, 255)]))


@settings(deadline=None, max_examples=30)
@given(
    channels=st.integers(1, 80),
    out=st.integers(1, 70),
    clipped=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_dense_head(channels: int, out: int, clipped: bool, seed: int) -> None:
    b = Builder((3, 3, 2), seed=seed)
    y = b.dense(b.global_sum(b.sign(b.conv(INPUT, channels, POINT))), out)
    small = b.rng.integers(-LARGE, LARGE + 1, (out, channels))
    with_weights(b, small, (b.rng.integers(1, 4, out) / 64).astype(np.float32))
    if clipped:
        b.clip(y, 0.0)
    program = b.program()
    assert micro_of(program, y) == t.DENSE
    check(program)
