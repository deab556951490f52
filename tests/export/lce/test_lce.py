"""The LCE export against the reference, in LCE's own interpreter, on all of its kernels."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.export.errors import ExportError
from frostbit.export.lce import convert as to_lce
from frostbit.export.lce import graph, padding, tflite_reader
from frostbit.export.lce.runtime import LceRuntime
from frostbit.export.lce.summary import summarise_tflite
from frostbit.export.lce.worker import KERNELS
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import (
    INPUT,
    OP_TYPES,
    Add,
    Affine,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Dense,
    FormatError,
    GlobalSum,
    MaxPool,
    Op,
    Program,
    Repeat,
    Sign,
    Threshold,
    ToFloat,
    Window,
)
from tests.export.lce.lce_fixture import check, require_lce
from tests.export.lce.lce_nets import Net
from tests.kernels.programs import exact_programs, random_images
from tests.nets import imported

ONE = (1, 1)


@pytest.fixture(autouse=True, scope="module")
def _lce() -> None:
    require_lce()


def windows(size: tuple[int, int]) -> list[Window]:
    """Windows that fit a map of ``size``: kernels, strides, dilations, SAME and other pads."""
    pads = [(0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 0, 2, 3), (2, 2, 2, 2)]
    kernels = [(1, 1), (2, 3), (3, 3), (5, 2)]
    found = []
    for kernel, pad, stride, dilation in itertools.product(
        kernels, pads, [(1, 1), (2, 2), (1, 3)], [(1, 1), (2, 1)]
    ):
        window = Window(kernel, stride, pad, dilation)
        if min(window.output(*size)) >= 1:
            found.append(window)
    return found


@pytest.mark.parametrize(
    ("size", "channels"), [((7, 6), 35), ((7, 6), 96), ((2, 2), 6), ((1, 3), 34), ((3, 1), 64)]
)
def test_binary_conv_with_any_window(size: tuple[int, int], channels: int) -> None:
    net = Net(channels, *size)
    source = net.stem(channels)
    for index, window in enumerate(windows(size)):
        out = 9 + 24 * (index % 2)
        for pad_value in (0, 1):
            net.watch(net.binary(source, out, window, pad_value, to_bits=index % 3 > 0))
    check(net.program(), net.pixels(3))


@pytest.mark.parametrize(("groups", "per_group"), [(3, 1), (2, 5), (3, 32), (2, 64)])
def test_grouped_convolutions(groups: int, per_group: int) -> None:
    net = Net(groups, 5, 4)
    source = net.stem(groups * per_group)
    cases = itertools.product([(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 1)], (0, 1), (True, False))
    for pads, pad_value, to_bits in cases:
        for out in (groups, groups * 32):
            window = Window((3, 3), ONE, pads)
            net.watch(net.binary(source, out, window, pad_value, to_bits, groups))
    check(net.program(), net.pixels(3))


def test_bits_stay_right_through_a_chain_of_odd_widths() -> None:
    net = Net(7, 8, 9)
    source = net.stem(3)
    for index, channels in enumerate((31, 32, 33, 63, 65, 128, 1)):
        window = Window((3, 3), ONE, (1, 1, 1, 1))
        source = net.binary(source, channels, window, index % 2, to_bits=True)
    net.watch(source)
    check(net.program(), net.pixels(6))


@pytest.mark.parametrize("size", [(8, 8), (6, 7), (9, 8), (2, 2), (12, 4)])
def test_stride_two_grows_the_map_instead_of_correcting_its_border(size: tuple[int, int]) -> None:
    """TensorFlow's SAME starts half a step later than PyTorch's on even sizes."""
    net = Net(sum(size), *size)
    source = net.stem(36)
    cases = [((3, 3), (1, 1, 1, 1)), ((5, 5), (2, 2, 2, 2)), ((1, 3), (0, 1, 0, 1))]
    for kernel, pads in cases:
        window = Window(kernel, (2, 2), pads)
        for to_bits in (True, False):
            net.watch(net.binary(source, 20, window, 0, to_bits))
    check(net.program(), net.pixels(4))


@pytest.mark.parametrize(
    ("window", "size", "expected"),
    [
        (Window((3, 3), (2, 2), (1, 1, 1, 1)), (56, 56), (57, 57)),
        (Window((3, 3), (2, 2), (1, 1, 1, 1)), (7, 7), (7, 7)),
        (Window((3, 3), (1, 1), (1, 1, 1, 1)), (7, 8), (7, 8)),
        (Window((3, 3), (1, 1), (0, 0, 2, 2)), (7, 7), None),
        (Window((3, 3), (1, 1), (1, 1, 1, 1)), (2, 7), None),
        (Window((3, 3), (1, 1), (1, 1, 0, 0)), (7, 7), (7, 7)),
        (Window((5, 5), (2, 2), (2, 2, 2, 2)), (8, 8), None),
    ],
)
def test_grown_size(
    window: Window, size: tuple[int, int], expected: tuple[int, int] | None
) -> None:
    assert padding.grown_size(window, *size) == expected


@pytest.mark.parametrize("pad_value", [0, 1])
def test_every_threshold_from_always_to_never(pad_value: int) -> None:
    net = Net(1, 3, 3)
    source = net.stem(2)
    levels = np.arange(-18, 20, dtype=np.int32)
    window = Window((3, 3), ONE, (1, 1, 1, 1))
    name = net.binary(source, len(levels), window, pad_value, to_bits=True)
    net.ops[-1] = replace(net.ops[-1], epilogue=Threshold(levels))  # type: ignore[call-arg]
    net.watch(name)
    check(net.program(), net.pixels(16))


def test_binary_dense_is_a_kernel_as_large_as_the_map() -> None:
    net = Net(2, 4, 5)
    source = net.binary(net.stem(20), 40, Window((4, 5)), 1, to_bits=True)
    net.watch(net.binary(source, 33, Window(ONE), 1, to_bits=False))
    check(net.program(), net.pixels(8))


@pytest.mark.parametrize("pad_value", [(0, 0, 0), (7, 7, 7), (0, 128, 255)])
def test_pixels_are_padded_with_their_zero_point(pad_value: tuple[int, ...]) -> None:
    net = Net(3, 9, 8, channels=3)
    zero = np.array(pad_value, np.uint8)
    for window in (
        Window((3, 3), ONE, (1, 1, 1, 1)),
        Window((3, 3), (2, 2), (1, 1, 1, 1)),
        Window((7, 7), (2, 2), (3, 3, 3, 3)),
        Window((3, 2), (1, 2), (0, 2, 1, 0), (2, 1)),
        Window((3, 3)),
    ):
        net.watch(net.conv(INPUT, 6, window, zero))
    check(net.program(), net.pixels(4))


def test_full_precision_convolutions_of_bits_and_floats() -> None:
    net = Net(4, 6, 7)
    source = net.stem(37)
    floats = net.binary(source, 9, Window(ONE), 1, to_bits=False)
    for window in (Window(ONE, (2, 2)), Window((3, 3), (2, 2), (1, 1, 1, 1)), Window((2, 2))):
        net.watch(net.conv(source, 5, window))
        net.watch(net.conv(floats, 5, window))
    check(net.program(), net.pixels(4))


def test_pools_keep_pads_out_of_the_maximum_and_in_the_average() -> None:
    net = Net(5, 7, 6)
    source = net.stem(35)
    floats = net.conv(source, 7, Window(ONE))
    for pads in ((0, 0, 0, 0), (1, 1, 1, 1), (0, 0, 1, 1), (1, 0, 0, 1)):
        for kernel, stride in (((2, 2), (2, 2)), ((3, 3), (2, 2)), ((2, 4), (1, 1))):
            net.watch(net.put(MaxPool, source, window=Window(kernel, stride, pads)))
            net.watch(net.put(MaxPool, floats, window=Window(kernel, stride, pads)))
            if kernel != (3, 3):  # a ninth is no dyadic number
                net.watch(net.put(AvgPool, floats, window=Window(kernel, stride, pads)))
    check(net.program(), net.pixels(4))


@pytest.mark.parametrize(
    ("depths", "stays_packed"),
    [((64, 32), True), ((32, 5), True), ((96, 1, 32), False), ((9, 64), False), ((7, 7, 7), False)],
)
def test_joined_bits(depths: tuple[int, ...], stays_packed: bool) -> None:
    """As words where they end at whole words, else by way of floats; then read as bits."""
    net = Net(len(depths), 5, 6)
    source = net.stem(11)
    parts = [net.binary(source, depth, Window(ONE), 1, to_bits=True) for depth in depths]
    both = net.put(Concat, *parts)
    net.watch(both)
    net.watch(net.binary(both, 33, Window((3, 3), ONE, (1, 1, 1, 1)), 1, to_bits=True))
    model = tflite_reader.read(to_lce.convert(net.program()))
    (join,) = (each for each in model.operators if each.name == "CONCATENATION")
    assert (model.tensors[join.outputs[0]].type == tflite_reader.INT32) == stays_packed
    rows = {layer.name: layer for layer in summarise_tflite(to_lce.convert(net.program())).layers}
    assert rows[both].output == (5, 6, sum(depths))
    check(net.program(), net.pixels(4))


def mixed() -> Net:
    """A net with every op type, float residuals and a dense layer before the end."""
    net = Net(6, 8, 8, channels=3)
    zero = np.array([3, 99, 250], np.uint8)
    x = net.conv(INPUT, 8, Window((3, 3), ONE, (1, 1, 1, 1)), zero)
    y = net.binary(net.put(Sign, x), 8, Window((3, 3), (2, 2), (1, 1, 1, 1)), 0, to_bits=False)
    x = net.put(Add, net.put(AvgPool, x, window=Window((2, 2), (2, 2))), y)
    x = net.put(Repeat, x, times=3)
    z = net.binary(net.put(Sign, x), 24, Window((3, 3), ONE, (1, 1, 1, 1)), 1, to_bits=True)
    x = net.put(Add, x, net.put(ToFloat, z))
    both = net.put(Concat, z, net.put(Sign, x))
    x = net.put(Add, x, net.binary(both, 24, Window(ONE), 1, to_bits=False))
    x = net.put(MaxPool, x, window=Window((2, 2), (2, 2)))
    x = net.put(Clip, net.put(Add, x, net.binary(x, 24, Window(ONE), 1, to_bits=False)))
    head = net.put(
        Dense, net.put(GlobalSum, x), weights=np.eye(40, 24, dtype="f4"), add=net.small(40)
    )
    net.watch(net.binary(net.put(Sign, head), 7, Window(ONE), 1, to_bits=False))
    net.watch(net.put(Repeat, head, times=1))
    return net


def test_all_ops_together() -> None:
    net = mixed()
    ours = set(OP_TYPES.values()) - {type(op) for op in imported().ops}
    assert ours <= {type(op) for op in net.ops}
    check(net.program(), net.pixels(20))


@pytest.mark.parametrize(("groups", "per_group", "out"), [(6, 1, 6), (6, 1, 18), (2, 3, 10)])
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1), (1, 0, 0, 2)])
def test_grouped_float_convolutions(
    groups: int, per_group: int, out: int, pads: tuple[int, int, int, int]
) -> None:
    """Of pixels with a zero point per channel, of bits and of floats."""
    channels = groups * per_group
    net = Net(out, 7, 8, channels)
    bits_map = net.stem(channels)
    pixel_zero = net.rng.integers(0, 256, channels).astype(np.uint8)
    floats = net.binary(bits_map, channels, Window((3, 3)), 1, to_bits=False)
    for source in (INPUT, bits_map, floats):
        zero = pixel_zero if source == INPUT else None
        for stride, dilation in ((ONE, ONE), ((2, 2), ONE), (ONE, (2, 1))):
            window = Window((3, 2), stride, pads, dilation)
            net.watch(net.conv(source, out, window, zero, groups))
    check(net.program(), net.pixels(4))


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("pad_value", [0, 1])
def test_binary_weights_on_floats(groups: int, pad_value: int) -> None:
    net = Net(groups, 6, 7)
    floats = net.put(Clip, net.binary(net.stem(6), 6, Window(ONE), 1, to_bits=False))
    for pads, stride in (((1, 1, 1, 1), ONE), ((1, 0, 0, 2), (2, 2)), ((0, 0, 0, 0), (1, 2))):
        window = Window((3, 3), stride, pads)
        net.watch(net.binary(floats, 12, window, pad_value, False, groups))
    check(net.program(), net.pixels(4))


@settings(max_examples=25, deadline=None)
@given(exact_programs())
def test_the_random_programs_of_the_other_formats(program: Program) -> None:
    """The same strategy as ONNX, QONNX and C; what LCE cannot hold is refused by name."""
    images = random_images(program, 2)
    values = reference.trace(program, images)
    pools = [op for op in program.ops if isinstance(op, (MaxPool, AvgPool))]
    if any(graph.reach(op.window) != op.window.kernel for op in pools):
        with pytest.raises(ExportError, match="dilation"):
            to_lce.convert(program)
        return
    runtime = LceRuntime(program)
    try:
        signs = runtime.signs(images)
        assert set(signs) == {n for n, v in values.items() if v.dtype == np.int8}
        for name, words in signs.items():
            assert np.array_equal(words, bits.pack(values[name])), name
        assert np.array_equal(runtime.logits(images), values[program.ops[-1].name][:, 0, 0])
    finally:
        runtime.close()


def test_every_op_type_has_a_rule() -> None:
    assert set(to_lce.RULES) == set(OP_TYPES.values())


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    depth=st.integers(1, 5),
    kernel=st.sampled_from(sorted(KERNELS)),
)
def test_random_programs(seed: int, size: tuple[int, int], depth: int, kernel: str) -> None:
    net = Net(seed, *size, channels=int(seed % 4) + 1)
    zero = net.rng.integers(0, 256, net.input_shape[2]).astype(np.uint8)
    rng, current = net.rng, INPUT
    current = net.put(Sign, net.conv(INPUT, int(rng.integers(1, 80)), any_window(net, size), zero))
    for _ in range(depth):
        height, width, channels = net.type(current).shape
        window = any_window(net, (height, width))
        groups = 2 if channels % 2 == 0 and rng.random() < 0.3 else 1
        out = groups * int(rng.integers(1, 50))
        to_bits = bool(rng.random() < 0.5)
        value = net.binary(current, out, window, int(rng.integers(2)), to_bits, groups)
        net.watch(value)
        current = value if to_bits else net.put(Sign, value)
    check(net.program(), net.pixels(3), (kernel,))


def any_window(net: Net, size: tuple[int, int]) -> Window:
    """A random window that fits ``size``."""
    while True:
        draw = net.rng.integers
        kernel = (int(draw(1, 6)), int(draw(1, 6)))
        stride = (int(draw(1, 4)), int(draw(1, 4)))
        top, left, bottom, right = (int(draw(0, 4)) for _ in range(4))
        dilation = (int(draw(1, 3)), int(draw(1, 3)))
        window = Window(kernel, stride, (top, left, bottom, right), dilation)
        if min(window.output(*size)) >= 1:
            return window


@pytest.mark.parametrize(("pad_value", "pads"), [(1, 0), (0, 1), (0, 0)])
def test_floats_are_exact_up_to_the_last_bit_of_the_grid(pad_value: int, pads: int) -> None:
    """K|mul| + |add| just below 2^24 steps of the grid, shown without any further op."""
    net = Net(9, 3 - 2 * pads, 3 - 2 * pads)
    source = net.stem(64)
    window = Window((3, 3), ONE, (pads,) * 4)
    name = net.binary(source, 512, window, pad_value, to_bits=False)
    taps = 9 * 64
    mul = net.rng.integers(-(2**24 // taps), 2**24 // taps + 1, 512)
    add = (2**24 - taps * np.abs(mul)) * np.where(net.rng.random(512) < 0.5, -1, 1)
    step = 2.0**-12
    epilogue = Affine((mul * step).astype(np.float32), (add * step).astype(np.float32))
    net.ops[-1] = replace(net.ops[-1], epilogue=epilogue)  # type: ignore[call-arg]
    assert name == net.ops[-1].name
    program = Program(net.input_shape, tuple(net.ops), "", ("",) * 512)
    check(program, net.pixels(20))


def test_off_the_grid_the_comparison_does_see_a_difference() -> None:
    net = Net(10, 3, 3)
    net.binary(net.stem(64), 512, Window((3, 3)), 1, to_bits=False)
    thirds = Affine(np.full(512, 1 / 3, np.float32), np.full(512, 0.1, np.float32))
    net.ops[-1] = replace(net.ops[-1], epilogue=thirds)  # type: ignore[call-arg]
    program = Program(net.input_shape, tuple(net.ops), "", ("",) * 512)
    with pytest.raises(AssertionError):
        check(program, net.pixels(20))


def test_packed_weights_go_into_the_file_as_they_are() -> None:
    net = Net(11, 4, 4)
    net.watch(net.binary(net.stem(128), 8, Window((3, 3)), 1, to_bits=True))
    (op,) = (op for op in net.ops if isinstance(op, BinaryConv))
    assert op.words.astype("<u8").tobytes() in to_lce.convert(net.program())


def test_the_same_program_gives_the_same_bytes() -> None:
    first, second = (to_lce.convert(mixed().program()) for _ in range(2))
    assert first == second


def test_debug_form_adds_the_signs_in_op_order() -> None:
    program = mixed().program()
    names = to_lce.sign_names(program)
    order = [op.name for op in program.ops]
    assert names
    assert sorted(names, key=order.index) == list(names)
    assert len(to_lce.convert(program, debug=True)) > len(to_lce.convert(program))


@pytest.mark.parametrize("pool", [MaxPool, AvgPool])
def test_dilated_pooling_is_refused_by_name(pool: type[Op]) -> None:
    net = Net(12, 6, 6)
    floats = net.put(ToFloat, net.stem(4))
    name = net.put(pool, floats, window=Window((2, 2), dilation=(2, 2)))
    net.watch(name)
    with pytest.raises(ExportError, match=rf"'{name}' \({pool.__name__}\).*dilation"):
        to_lce.convert(net.program())


def test_an_op_without_a_rule_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    program = mixed().program()
    monkeypatch.delitem(to_lce.RULES, Repeat)
    with pytest.raises(ExportError, match=r"op 'Repeat\d+'.*no rule for Repeat"):
        to_lce.convert(program)


def test_a_malformed_program_is_refused() -> None:
    program = mixed().program()
    with pytest.raises(FormatError):
        to_lce.convert(replace(program, ops=program.ops[1:]))


def test_border_sums_count_the_taps_in_the_padding() -> None:
    ones = bits.pack(np.ones((1, 3, 3, 10), np.int8))
    op = BinaryConv(
        "c", (INPUT,), Window((3, 3), ONE, (1, 1, 1, 1)), ones, 10, 1, 0,
        Threshold(np.zeros(1, np.int32)),
    )  # fmt: skip
    expected = np.array([[5, 3, 5], [3, 0, 3], [5, 3, 5]]) * 10
    assert np.array_equal(padding.border_sums(op, 3, 3)[..., 0], expected)
