"""A network that float32 rounds: flips next to a threshold are counted, any other is a failure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from frostbit.export.inputs import random_images
from frostbit.export.parity import Comparison, ParityReport, compare
from frostbit.export.rounding import follows, lead, scales
from frostbit.export.runtimes import Images, Logits, ReferenceRuntime
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import INPUT, Conv, Preprocessing, Program, Scale, Window
from tests.kernels.programs import Builder
from tests.nets import imported

SAME = Window((3, 3), pads=(1, 1, 1, 1))


def rounded() -> Program:
    """Sums that are often 0, then thirds of them, two layers of signs."""
    b = Builder((8, 8, 1), seed=4)
    x = b.scale(b.conv(INPUT, 12, Window((1, 1))))
    y = b.binary_conv(b.sign(x), 12, SAME)
    program = b.finish(b.add(y, b.binary_conv(b.sign(y), 12, SAME)))
    weights = np.ones((12, 1, 1, 1), np.float32)
    add = -np.arange(40, 160, 10).astype(np.float32)
    third = np.full(12, 1 / 3, np.float32)
    ops = [
        replace(op, weights=weights, add=add) if isinstance(op, Conv)
        else replace(op, mul=third, add=0 * third) if isinstance(op, Scale) else op
        for op in program.ops
    ]  # fmt: skip
    return replace(program, ops=tuple(ops))


class Shifted(ReferenceRuntime):
    """The reference of a network whose first sums are smaller by ``shift``."""

    name = "shifted"

    def __init__(self, program: Program, shift: float, logits: float = 0.0) -> None:
        first = program.ops[0]
        moved = replace(first, add=first.add - np.float32(shift))  # type: ignore[attr-defined, call-arg]
        super().__init__(replace(program, ops=(moved, *program.ops[1:])))
        self.extra = np.float32(logits)

    def logits(self, images: Images) -> Logits:
        found = super().logits(images)
        found[0] += self.extra * np.abs(found[0]).max()
        return found


def compared(runtime: ReferenceRuntime) -> tuple[ParityReport, Comparison]:
    program = rounded()
    report = compare(program, [runtime], random_images(program, 0, 20))
    return report, report.comparisons[0]


def test_bits_next_to_their_threshold_are_counted_and_followed() -> None:
    report, each = compared(Shifted(rounded(), 2e-5))
    assert not report.promised
    assert each.sign_bits_differing == each.sign_bits_rounded > 10
    assert each.images_flipped > 5
    assert each.logits_max_rel_diff == 0.0
    assert report.passed
    assert f"{each.sign_bits_rounded:,} sign bits differ within 1e-05 of a threshold" in (
        report.verdict
    )


def test_bits_that_rounding_does_not_explain_fail() -> None:
    report, each = compared(Shifted(rounded(), 1.5))
    assert each.sign_bits_differing > each.sign_bits_rounded > 0
    assert each.first_difference == "sign2"
    assert not report.passed
    assert report.verdict.startswith("FAILED")


@pytest.mark.parametrize(("logits", "passed"), [(5e-5, True), (5e-4, False)])
def test_logits_are_compared_on_every_image(logits: float, passed: bool) -> None:
    report, each = compared(Shifted(rounded(), 2e-5, logits))
    assert each.sign_bits_differing == each.sign_bits_rounded > 10
    assert report.passed == passed


def test_a_later_bit_that_does_not_follow_from_the_flipped_ones_is_found() -> None:
    program = rounded()
    images = random_images(program, 0, 6)
    runtime = Shifted(program, 2e-5)
    signs, logits = runtime.signs(images), runtime.logits(images)
    largest = scales(program, reference.trace(program, images))
    assert follows(program, images, signs, logits, 1e-6).all()
    last = list(signs)[-1]
    signs[last][3, 2, 2, 0] ^= np.uint64(1)
    led = lead(program, images, signs, largest)
    assert led.first == last
    assert (led.differing - led.near).tolist() == [0, 0, 0, 1, 0, 0]
    assert (
        follows(program, images, signs, logits, 1.0).tolist() == [True] * 3 + [False] + [True] * 2
    )


def test_thresholds_of_whole_sums_have_no_excuse() -> None:
    b = Builder((6, 6, 2), seed=1)
    x = b.sign(b.scale(b.conv(INPUT, 7, SAME)))
    name = b.binary_conv(x, 9, SAME, affine=False)
    program = b.finish(name)
    images = random_images(program, 0, 3)
    values = reference.trace(program, images)
    signs = {n: bits.pack(v) for n, v in values.items() if v.dtype == np.int8}
    signs[name][0, 0, 0, 0] ^= np.uint64(1)
    led = lead(program, images, signs, scales(program, values))
    assert (led.differing.sum(), led.near.sum(), led.first) == (1, 0, name)


@pytest.mark.parametrize("known", [None, Preprocessing((0.5, 2.0), (-3.0, 1.0))])
def test_random_images_are_what_the_model_takes(known: Preprocessing | None) -> None:
    program = replace(imported(), preprocessing=known)
    images = random_images(program, 1, 50)
    assert images.dtype == np.float32
    low, high = images.min(axis=(0, 1, 2)), images.max(axis=(0, 1, 2))
    expected = ([-1, -1], [1, 1]) if known is None else ([-3, 1], [124.5, 511])
    np.testing.assert_allclose((low, high), expected, atol=0.1, rtol=0.02)
