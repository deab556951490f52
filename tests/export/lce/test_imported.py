"""What imported networks have, through the LCE export and LCE's own interpreter."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from frostbit.export.errors import ExportError
from frostbit.export.lce import convert as to_lce
from frostbit.export.lce import tflite_reader
from frostbit.export.lce.graph import reach
from frostbit.export.lce.runtime import LceRuntime
from frostbit.export.lce.worker import KERNELS
from frostbit.export.parity import ParityReport, compare
from frostbit.kernels.ir.program import INPUT, NO_LIMIT, AvgPool, MaxPool, Program, Window
from tests.export.lce.lce_fixture import check, require_lce
from tests.kernels.programs import Builder, programs, random_images
from tests.nets import images, imported

SAME = Window((3, 3), pads=(1, 1, 1, 1))


@pytest.fixture(autouse=True, scope="module")
def _lce() -> None:
    require_lce()


def compared(program: Program, batch: object, kernels: tuple[str, ...]) -> ParityReport:
    runtimes = [LceRuntime(program, kernel) for kernel in kernels]
    try:
        return compare(program, runtimes, batch, must_vary=False)
    finally:
        for runtime in runtimes:
            runtime.close()


def test_every_op_in_every_kernel() -> None:
    program = imported()
    report = compared(program, images(program, 6), tuple(KERNELS))
    assert report.passed, report
    assert all(each.sign_bits_compared > 1000 for each in report.comparisons)
    assert "its input is float" in report.verdict


@settings(deadline=None, max_examples=8)
@given(programs(foreign=True))
def test_random_programs_are_close(program: Program) -> None:
    pools = [op for op in program.ops if isinstance(op, (MaxPool, AvgPool))]
    if any(reach(op.window) != op.window.kernel for op in pools):
        with pytest.raises(ExportError, match="pooling with dilation"):
            to_lce.convert(program)
        return
    report = compared(program, random_images(program, 3), ("indirect",))
    assert report.passed, report


LIMITS = {
    (0, NO_LIMIT): 1, (0, 999): 1, (-1, 1): 2, (0, 6): 3, (-NO_LIMIT, 999): 0,
    (-3, 5): None, (2, NO_LIMIT): None, (4, 4): None, (99, 100): None,
}  # fmt: skip
"""What sums of 63 products are clipped to, and LCE's number of such an activation."""


@pytest.mark.parametrize("pad_value", [0, 1])
def test_sums_are_clipped_before_the_factor(pad_value: int) -> None:
    """LCE refuses an activation where padded taps contribute nothing."""
    b = Builder((5, 6, 2), seed=3)
    bits = b.sign(b.conv(INPUT, 7, SAME))
    names = [b.binary_conv(bits, 9, SAME, pad_value=pad_value, limits=limits) for limits in LIMITS]
    b.sign(b.concat(*names))
    program = b.finish(b.concat(*names))
    check(program, random_images(program, 4))
    model = tflite_reader.read(to_lce.convert(program))
    found = [
        tflite_reader.custom_option(each, "fused_activation_function")
        for each in model.operators
        if each.name == "LceBconv2d"
    ]
    fused = [number or 0 for number in LIMITS.values()]
    assert found == (fused if pad_value else [0] * len(LIMITS))


@pytest.mark.parametrize("channels", [64, 35])
def test_bits_are_sliced_and_flattened(channels: int) -> None:
    b = Builder((3, 4, 2), seed=channels)
    bits = b.sign(b.conv(INPUT, channels, SAME))
    for start, stop in ((0, 32), (32, channels), (5, 20), (0, 33)):
        b.binary_conv(b.slice(bits, start, stop), 5, SAME)
    flat = b.flatten(bits)
    b.slice(flat, 32, 70)
    program = b.finish(b.binary_conv(b.flatten(flat), 6, Window((1, 1))))
    check(program, random_images(program, 4))


@pytest.mark.parametrize(
    ("limits", "operators"),
    [
        ((0.0, 6.0), ["RELU6"]), ((-1.0, 1.0), ["RELU_N1_TO_1"]),
        ((-0.5, 2.0), ["MAXIMUM", "MINIMUM"]),
    ],
)  # fmt: skip
def test_limits_are_activations_where_there_are_such(
    limits: tuple[float, float], operators: list[str]
) -> None:
    b = Builder((4, 4, 2))
    x = b.clip(b.conv(INPUT, 5, SAME), *limits)
    b.sign(b.add(x, x))
    program = b.finish(x)
    model = tflite_reader.read(to_lce.convert(program))
    known = {"RELU6", "RELU_N1_TO_1", "MAXIMUM", "MINIMUM"}
    assert [each.name for each in model.operators if each.name in known] == operators
    check(program, random_images(program, 4))
