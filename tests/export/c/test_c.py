"""C export: compiles without a warning and gives the same bits on every machine."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.export.c import calls
from frostbit.export.c import convert as to_c
from frostbit.export.c.runtime import CRuntime
from frostbit.export.errors import ExportError
from frostbit.export.parity import ParityReport, compare
from frostbit.export.runtimes import EngineRuntime
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import INPUT, OP_TYPES, BinaryConv, Program, Window
from tests.export.c.c_targets import (
    STRICT,
    TARGETS,
    assert_exact,
    assert_same,
    run_on,
)
from tests.kernels.programs import Builder, exact_programs, programs, random_images
from tests.needs import need
from tests.nets import every_op, images, imported

SAME = Window((3, 3), pads=(1, 1, 1, 1))
OPTIONS = {
    "plain": ("-O2",),
    "portable": ("-O1", "-DFROSTBIT_PORTABLE"),
    "fast": (
        "-O3", "-march=native", "-ffp-contract=fast",
        "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def gcc() -> None:
    need("gcc")


def mixed() -> Program:
    """Groups, dilation, all four pads, both paddings, residuals, convolutions of every kind."""
    b = Builder((9, 8, 3), seed=5)
    x = b.conv(INPUT, 48, Window((3, 2), (1, 1), (1, 0, 2, 1)))
    x = b.add(x, b.binary_conv(b.sign(x), 48, SAME, pad_value=0))
    s = b.sign(x)
    deep = b.binary_conv(s, 48, SAME, groups=48, pad_value=0, affine=False)
    wide = Window((2, 3), (2, 1), (1, 2, 0, 1), (1, 2))
    t = b.binary_conv(b.max_pool(deep, Window((2, 2))), 66, wide, groups=2, affine=False)
    b.global_sum(t)
    u = b.sign(b.conv(b.to_float(t), 5, Window((2, 2), (1, 1), (0, 1, 1, 0))))
    z = b.add(b.binary_conv(u, 6, SAME), b.conv(u, 6, SAME))
    return b.finish(b.max_pool(z, SAME), 7)


def reweighted(program: Program, name: str, weights: np.ndarray) -> Program:
    """``program`` with other weights in the full-precision op ``name``."""
    ops = tuple(
        dataclasses.replace(op, weights=weights.astype(np.float32)) if op.name == name else op
        for op in program.ops
    )
    return dataclasses.replace(program, ops=ops)


def test_every_op_has_a_rule() -> None:
    assert set(calls.RULES) == set(OP_TYPES.values())


@settings(deadline=None, max_examples=60)
@given(program=exact_programs(), options=st.sampled_from(sorted(OPTIONS)))
def test_random_programs_equal_the_reference(program: Program, options: str) -> None:
    assert_exact(program, OPTIONS[options])


def close(program: Program, batch: np.ndarray, options: str) -> ParityReport:
    runtime = CRuntime(program, compiler="gcc", options=(*STRICT, *OPTIONS[options]))
    try:
        return compare(program, [runtime], batch, must_vary=False)
    finally:
        runtime.close()


@settings(deadline=None, max_examples=15)
@given(program=programs(foreign=True), options=st.sampled_from(sorted(OPTIONS)))
def test_random_imported_programs_are_close(program: Program, options: str) -> None:
    report = close(program, random_images(program, 3), options)
    assert report.passed, report


@pytest.mark.parametrize("options", OPTIONS)
def test_what_imported_networks_have(options: str) -> None:
    program = imported()
    report = close(program, images(program, 6), options)
    assert report.passed, report
    assert report.comparisons[0].sign_bits_compared == 6 * 6 * 7 * 9


@pytest.mark.parametrize("target", ["sanitized", "cortex-m4"])
def test_other_machines_compute_what_imported_networks_have(target: str, tmp_path: Path) -> None:
    program = imported()
    batch = images(program, 3)
    printed = run_on(TARGETS[target], program, batch, tmp_path)
    logits = np.ascontiguousarray(printed[:, -5:]).view(np.float32)
    np.testing.assert_allclose(logits, reference.run(program, batch), atol=1e-6)


def test_a_float_image_is_not_overwritten_by_a_sum() -> None:
    b = Builder((3, 4, 2), kind="f32")
    x = b.add(b.add(b.conv(INPUT, 2, SAME), INPUT), INPUT)
    program = b.finish(b.add(INPUT, b.mul(x, x)))
    batch = b.images(4)
    runtime, before = CRuntime(program), batch.copy()
    expected = reference.run(program, batch)
    np.testing.assert_allclose(runtime.logits(batch), expected, rtol=1e-5, atol=1e-5)
    assert np.array_equal(batch, before)


def test_rounding_goes_to_the_even_step_at_every_half() -> None:
    b = Builder((1, 41, 1), kind="f32")
    x = b.quantize(INPUT, 0.25, -9.0, 8.0)
    b.flatten(x)
    program = b.program()
    image = (np.arange(-20, 21) / 8).astype(np.float32).reshape(1, 1, 41, 1)
    image = np.concatenate([image, image + np.float32(1e-3), image * 1e6])
    np.testing.assert_array_equal(CRuntime(program).logits(image), reference.run(program, image))


def test_a_file_for_other_images_is_refused() -> None:
    program = imported()
    pixels = dataclasses.replace(program, input_kind="u8", preprocessing=None)
    with pytest.raises(ExportError, match="another type of image"):
        CRuntime(program, to_c.convert(pixels))


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("make", [every_op, mixed])
def test_every_option_gives_the_same_bits(make: Callable[[], Program], options: str) -> None:
    assert_exact(make(), OPTIONS[options])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("make", [every_op, mixed])
def test_other_machines_give_the_same_bits(
    make: Callable[[], Program], target: str, tmp_path: Path
) -> None:
    program = make()
    batch = random_images(program, 3)
    assert_same(program, batch, run_on(TARGETS[target], program, batch, tmp_path))


@pytest.mark.parametrize("source", ["u8", "bits", "f32"])
@pytest.mark.parametrize(("channels", "out", "groups"), [(6, 6, 6), (6, 12, 3), (33, 33, 33)])
def test_grouped_convolutions(source: str, channels: int, out: int, groups: int) -> None:
    b = Builder((5, 6, channels if source == "u8" else 2), seed=out)
    x = INPUT
    if source != "u8":
        x = b.sign(b.conv(INPUT, channels, SAME))
        x = b.to_float(x) if source == "f32" else x
    y = b.conv(x, out, Window((3, 2), (1, 2), (1, 0, 2, 1)), groups)
    b.global_sum(b.conv(x, out, Window((2, 2), dilation=(2, 1)), groups))
    assert_exact(b.finish(b.sign(y)))


@pytest.mark.parametrize("groups", [1, 3, 36])
@pytest.mark.parametrize("pad_value", [0, 1])
@pytest.mark.parametrize("with_bits", [True, False])
def test_binary_weights_on_floats(groups: int, pad_value: int, with_bits: bool) -> None:
    """Beside binary convolutions of bits, and alone; one bit a weight in both."""
    b = Builder((6, 5, 2), seed=groups)
    x = b.conv(INPUT, 36, SAME)
    if with_bits:
        x = b.binary_conv(b.sign(x), 36, SAME, pad_value=1)
    x = b.clip(x)
    y = b.add(x, b.binary_conv(x, 36, SAME, groups=groups, pad_value=pad_value))
    program = b.finish(b.sign(y))
    assert b"fb_binary_real(fb_floats" in to_c.convert(program)
    assert_exact(program)


def test_channels_of_any_number() -> None:
    b = Builder((4, 3, 1))
    x = b.conv(INPUT, 1, SAME)
    for channels in (3, 31, 32, 33, 63, 64, 65, 128, 1):
        x = b.binary_conv(b.sign(x), channels, SAME, pad_value=channels % 2)
    assert_exact(b.finish(x))


@pytest.mark.parametrize("kind", ["bits", "f32"])
@pytest.mark.parametrize("channels", [(64, 32), (1, 31, 32), (33, 95, 3), (5,) * 20])
def test_joined_maps(kind: str, channels: tuple[int, ...], tmp_path: Path) -> None:
    """Under GCC's sanitizers."""
    b = Builder((4, 3, 1), seed=len(channels))
    parts = [b.conv(INPUT, count, SAME) for count in channels]
    both = b.concat(*[b.sign(part) if kind == "bits" else part for part in parts])
    y = b.binary_conv(both if kind == "bits" else b.sign(both), 9, SAME)
    x = b.global_sum(y)
    b.concat(b.dense(x, 3), b.dense(x, 2))
    program, batch = b.program(), b.images(3)
    assert_same(program, batch, run_on(TARGETS["sanitized"], program, batch, tmp_path))


@pytest.mark.parametrize("source", ["u8", "bits", "f32", "dense"])
def test_weights_that_need_more_than_16_bits_stay_floats(source: str) -> None:
    b = Builder((3, 4, 1))
    x = b.conv(INPUT, 2, SAME)
    weights = np.tile([2.0**-18, 1.0, -0.5], 12).reshape(2, 3, 3, 2)
    if source == "u8":
        x = b.conv(INPUT, 2, Window((1, 2)))
        weights = np.array([40001.0, 8.0, 8.0, 40001.0]).reshape(2, 1, 2, 1) * 2.0**-16
    elif source == "dense":
        x = b.dense(b.global_sum(b.sign(x)), 2)
        weights = np.array([[1.0, 2.0**-18], [0.5, -0.5]])
    else:
        x = b.conv(b.sign(x) if source == "bits" else b.to_float(b.sign(x)), 2, SAME)
    program = reweighted(b.finish(b.sign(x), 2), x, weights)
    kernel = "dense_f32" if source == "dense" else f"conv_{source}_f32"
    assert f"    fb_{kernel}(".encode() in to_c.convert(program)
    assert_exact(program)


@pytest.mark.parametrize("source", ["u8", "bits", "f32", "dense"])
def test_weights_of_8_bits_take_a_byte(source: str) -> None:
    b = Builder((3, 4, 1))
    x = b.conv(INPUT, 3, SAME, bits=8)
    if source in ("bits", "f32"):
        x = b.conv(b.sign(x) if source == "bits" else b.to_float(b.sign(x)), 2, SAME, bits=8)
    program = b.finish(b.sign(x), 2, bits=8)
    text = to_c.convert(program).decode()
    kernel = "dense_i8" if source == "dense" else f"conv_{source}_i8"
    assert f"    fb_{kernel}(" in text
    assert "int16_t fb0_" not in text
    assert_exact(program)


def test_sums_of_8_bits_that_overflow_32_are_not_taken_in_32() -> None:
    """260 x 260 taps of 127 on pixels of 255 come to 2.19 * 10**9."""
    b = Builder((260, 260, 1))
    x = b.conv(INPUT, 1, Window((260, 260)))
    weights = np.full((1, 260, 260, 1), 127.0)
    weights[0, 0, 0, 0] = 126.0  # else they were 1, times a scale of 127
    program = reweighted(b.finish(x, 1), x, weights)
    assert b"fb_conv_u8_f32(" in to_c.convert(program)
    images = np.full((1, 260, 260, 1), 255, np.uint8)
    expected = reference.run(program, images)
    for runtime in (CRuntime(program), EngineRuntime(program)):
        assert np.allclose(runtime.logits(images), expected, rtol=1e-4, atol=0)


def test_thresholds_beyond_16_bits() -> None:
    b = Builder((6, 6, 1))
    s = b.sign(b.conv(INPUT, 1024, Window((1, 1))))
    program = b.finish(b.binary_conv(s, 3, Window((6, 6)), affine=False))
    conv = program.ops[2]
    assert isinstance(conv, BinaryConv)
    assert np.abs(conv.epilogue.level).max() < 2**15
    level = np.array([0, conv.taps + 1, -conv.taps], np.int32)
    ops = list(program.ops)
    ops[2] = dataclasses.replace(conv, epilogue=type(conv.epilogue)(level))
    assert_exact(dataclasses.replace(program, ops=tuple(ops)))


def test_a_sum_does_not_overwrite_what_a_window_still_reads() -> None:
    b = Builder((5, 5, 1))
    x = b.to_float(b.sign(b.conv(INPUT, 3, SAME)))
    y = b.add(b.conv(x, 3, SAME), x)
    assert_exact(b.finish(b.add(y, y)))


def test_a_program_without_signs() -> None:
    b = Builder((5, 5, 1))
    program = b.finish(b.conv(INPUT, 3, SAME))
    batch = random_images(program, 4)
    runtime = CRuntime(program)
    assert runtime.signs(batch) == {}
    np.testing.assert_array_equal(runtime.logits(batch), reference.run(program, batch))


def test_the_last_op_may_be_a_sum() -> None:
    b = Builder((2, 2, 1))
    total = b.global_sum(b.conv(INPUT, 3, SAME))
    b.add(b.conv(total, 4, Window((1, 1))), b.dense(total, 4))
    program = b.program()
    batch = random_images(program, 4)
    np.testing.assert_array_equal(CRuntime(program).logits(batch), reference.run(program, batch))
