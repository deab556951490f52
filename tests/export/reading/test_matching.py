"""Graphs and what they become, each beside PyTorch's own operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

import frostbit as fb
from frostbit.export.reading.graph import (
    AvgPool,
    BitConv,
    Builder,
    Concat,
    Conv,
    Dense,
    Flatten,
    MaxPool,
    Mean,
    Mul,
    Node,
    Pad,
    Scale,
    Sign,
    Slice,
)
from frostbit.export.reading.imported import Imported
from frostbit.export.reading.match import to_program
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import Affine, Window

RNG = np.random.default_rng(5)


def f32(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def imported(shape: tuple[int, int, int], *nodes: Node) -> Imported:
    builder = Builder("x", shape, "made here", 1 << 20)
    for node in nodes:
        builder.add(node)
    return to_program(builder.graph(nodes[-1].name))


def kinds(found: Imported) -> Counter[str]:
    return Counter(type(op).__name__ for op in found.program.ops)


def check(found: Imported, wanted: Callable[[torch.Tensor], torch.Tensor], count: int = 2) -> None:
    """The Program beside a function of NCHW tensors."""
    images = f32(count, *found.program.input_shape)
    expected = wanted(torch.from_numpy(images).permute(0, 3, 1, 2)).flatten(1).numpy()
    got = reference.run(found.program, images)
    assert np.abs(got - expected).max() <= 1e-5 * max(1.0, float(np.abs(expected).max()))


def flat(source: str, channels_first: bool = False) -> Flatten:
    return Flatten(name="flat", inputs=(source,), layer="flat", channels_first=channels_first)


def conv(name: str, source: str, weights: np.ndarray, window: Window, groups: int = 1) -> Conv:
    return Conv(
        name=name, inputs=(source,), layer=f"conv '{name}'", window=window, weights=weights,
        add=f32(len(weights)), groups=groups,
    )  # fmt: skip


def scale(name: str, mul: np.ndarray) -> Scale:
    return Scale(name=name, inputs=("x",), layer=f"MUL '{name}'", mul=mul, add=f32(2))


def pool(window: Window) -> MaxPool:
    return MaxPool(name="y", inputs=("x",), layer="POOL 'y'", window=window)


def sign(name: str, *inputs: str) -> Sign:
    return Sign(name=name, inputs=inputs, layer=f"SIGN '{name}'")


def torch_conv(node: Conv, x: torch.Tensor) -> torch.Tensor:
    top, left, bottom, right = node.window.pads
    padded = functional.pad(x, (left, right, top, bottom))
    weights = torch.from_numpy(node.weights).permute(0, 3, 1, 2)
    return functional.conv2d(
        padded, weights, torch.from_numpy(node.add), node.window.stride,
        dilation=node.window.dilation, groups=node.groups,
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(3, 9), st.integers(3, 9)),
    kernel=st.tuples(st.integers(2, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    ends=st.tuples(st.booleans(), st.booleans(), st.booleans(), st.booleans()),
)
def test_averages_that_leave_out_padding(
    size: tuple[int, int], kernel: tuple[int, int], stride: tuple[int, int], ends: tuple[bool, ...]
) -> None:
    top, left, bottom, right = (
        int(end and side > 1) for end, side in zip(ends, (*kernel, *kernel), strict=True)
    )
    window = Window(kernel, stride, (top, left, bottom, right))
    average = AvgPool(name="pool", inputs=("x",), layer="pool", window=window, counts_pads=False)

    def wanted(x: torch.Tensor) -> torch.Tensor:
        sums, counts = (
            functional.avg_pool2d(
                functional.pad(each, (left, right, top, bottom)), kernel, stride, divisor_override=1
            )
            for each in (x, torch.ones_like(x))
        )
        return (sums / counts).permute(0, 2, 3, 1)

    check(imported((*size, 2), average, flat("pool")), wanted)


def test_an_average_that_no_ops_can_say_is_refused() -> None:
    window = Window((5, 5), (1, 1), (2, 2, 2, 2))
    average = AvgPool(
        name="p", inputs=("x",), layer="AVERAGE_POOL_2D 'p'", window=window, counts_pads=False
    )
    with pytest.raises(fb.FormatError, match=r"AVERAGE_POOL_2D 'p': .*more than one way"):
        imported((9, 9, 2), average, flat("p"))


def test_a_convolution_in_parts_is_one_in_groups() -> None:
    window = Window((3, 3), (2, 2), (1, 1, 1, 1))
    nodes: list[Node] = []
    for part in range(3):
        nodes.append(
            Slice(name=f"s{part}", inputs=("x",), layer="split", start=4 * part, stop=4 * part + 4)
        )
        nodes.append(conv(f"c{part}", f"s{part}", f32(2, 3, 3, 4), window))
    nodes.append(Concat(name="all", inputs=("c0", "c1", "c2"), layer="join"))
    found = imported((7, 7, 12), *nodes, flat("all"))
    assert kinds(found) == {"Conv": 1, "Flatten": 1}
    convs = [node for node in nodes if isinstance(node, Conv)]

    def wanted(x: torch.Tensor) -> torch.Tensor:
        parts = [torch_conv(each, part) for each, part in zip(convs, x.split(4, 1), strict=True)]
        return torch.cat(parts, 1).permute(0, 2, 3, 1)

    check(found, wanted)
    unequal = [*nodes[:-1], Concat(name="all", inputs=("c0", "c2", "c1"), layer="join")]
    assert kinds(imported((7, 7, 12), *unequal, flat("all")))["Conv"] == 3


@pytest.mark.parametrize("groups", [1, 6])
def test_two_values_a_row_on_signs_are_one_bit(groups: int) -> None:
    signs = sign("sign", "x")
    sizes = np.abs(f32(6, 1, 1, 1))
    weights = np.where(f32(6, 3, 3, 6 // groups) < 0, -sizes, sizes)
    node = conv("c", "sign", weights, Window((3, 3), (1, 2), (1, 0, 1, 1)), groups)
    found = imported((5, 6, 6), signs, node, flat("c"))
    assert kinds(found) == {"Sign": 1, "BinaryConv": 1, "Flatten": 1}
    assert [each.weights for each in found.restored] == [weights.size]

    def wanted(x: torch.Tensor) -> torch.Tensor:
        return torch_conv(node, torch.where(x >= 0, 1.0, -1.0)).permute(0, 2, 3, 1)

    check(found, wanted)
    weights[0, 0, 0, 0] *= np.float32(1.25)
    assert not imported(
        (5, 6, 6), signs, conv("c", "sign", weights, node.window, groups), flat("c")
    ).restored
    assert not imported(
        (5, 6, 6), conv("c", "x", np.sign(weights), node.window, groups), flat("c")
    ).restored


def test_padding_goes_into_the_window() -> None:
    pad = Pad(name="pad", inputs=("x",), layer="pad", pads=(1, 2, 0, 1))
    node = conv("c", "pad", f32(4, 3, 3, 2), Window((3, 3), (2, 2)))
    found = imported((6, 7, 2), pad, node, flat("c"))
    assert kinds(found) == {"Conv": 1, "Flatten": 1}
    check(found, lambda x: torch_conv(node, functional.pad(x, (2, 1, 1, 0))).permute(0, 2, 3, 1))
    low = Pad(name="pad", inputs=("x",), layer="pad", pads=(1, 1, 0, 0), value=-np.inf)
    peak = MaxPool(name="m", inputs=("pad",), layer="pool", window=Window((2, 2)))
    found = imported((5, 5, 2), low, peak, flat("m"))
    assert kinds(found) == {"MaxPool": 1, "Flatten": 1}

    def wanted(x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (1, 0, 1, 0), value=-torch.inf)
        return functional.max_pool2d(padded, 2, 1).permute(0, 2, 3, 1)

    check(found, wanted)


def test_padding_with_plus_one_of_signs_goes_into_the_window() -> None:
    signs = sign("sign", "x")
    pad = Pad(name="pad", inputs=("sign",), layer="pad", pads=(1, 1, 1, 1), value=1.0)
    weights = np.where(f32(4, 3, 3, 2) < 0, -1, 1)
    node = BitConv(
        name="c", inputs=("pad",), layer="conv", window=Window((3, 3)), words=bits.pack(weights),
        channels_in=2, groups=1, pad_value=0, epilogue=Affine(f32(4), f32(4)),
    )  # fmt: skip
    found = imported((4, 4, 2), signs, pad, node, flat("c"))
    assert kinds(found) == {"Sign": 1, "BinaryConv": 1, "Flatten": 1}

    def wanted(x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(torch.where(x >= 0, 1.0, -1.0), (1, 1, 1, 1), value=1.0)
        kernel = torch.from_numpy(weights.astype(np.float32)).permute(0, 3, 1, 2)
        sums = functional.conv2d(padded, kernel).permute(0, 2, 3, 1)
        return sums * torch.from_numpy(node.epilogue.mul) + torch.from_numpy(node.epilogue.add)

    check(found, wanted)


@pytest.mark.parametrize("value", [1.0, -0.75])
def test_padding_with_a_value_that_no_window_takes_up(value: float) -> None:
    def wanted(x: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(x, (2, 0, 1, 1), value=value)
        return padded.permute(0, 2, 3, 1).flatten(1)

    pad = Pad(name="pad", inputs=("x",), layer="pad", pads=(1, 2, 1, 0), value=value)
    check(imported((4, 4, 2), pad, flat("pad")), wanted)
    signs = sign("sign", "x")
    found = imported((4, 4, 2), signs, replace(pad, inputs=("sign",)), flat("pad"))
    assert kinds(found)["Pad"] == 1
    check(found, lambda x: wanted(torch.where(x >= 0, 1.0, -1.0)))
    with pytest.raises(fb.FormatError, match="pad: padding with inf that no window takes up"):
        imported((4, 4, 2), replace(pad, value=float("inf")), flat("pad"))


def test_a_row_that_is_flattened_channels_first() -> None:
    mul, add, weights = f32(24), f32(24), f32(5, 24)
    factor = Scale(name="scale", inputs=("flat",), layer="scale", mul=mul, add=add)
    signs = sign("sign", "scale")
    dense = Dense(name="y", inputs=("sign",), layer="dense", weights=weights, add=f32(5))
    found = imported((2, 3, 4), flat("x", channels_first=True), factor, signs, dense)

    def wanted(x: torch.Tensor) -> torch.Tensor:
        row = x.flatten(1) * torch.from_numpy(mul) + torch.from_numpy(add)
        return torch.where(row >= 0, 1.0, -1.0) @ torch.from_numpy(weights).T + torch.from_numpy(
            dense.add
        )

    check(found, wanted, count=8)
    with pytest.raises(fb.FormatError, match=r"the answer is a row .*channels first"):
        imported((2, 3, 4), flat("x", channels_first=True))


def test_constants_meet_those_of_their_neighbours() -> None:
    node = conv("c", "x", f32(4, 1, 1, 3), Window((1, 1)))
    mul, add, weights = f32(4), f32(4), f32(5, 4)
    scales = [
        Scale(name="a", inputs=("c",), layer="mul", mul=mul, add=np.zeros((), np.float32)),
        Scale(name="b", inputs=("a",), layer="add", mul=np.ones((), np.float32), add=add),
    ]
    mean = Mean(name="mean", inputs=("b",), layer="mean")
    dense = Dense(name="y", inputs=("mean",), layer="dense", weights=weights, add=f32(5))
    found = imported((3, 3, 3), node, *scales, mean, dense)
    assert kinds(found) == {"Conv": 1, "GlobalSum": 1, "Dense": 1}

    def wanted(x: torch.Tensor) -> torch.Tensor:
        y = torch_conv(node, x).permute(0, 2, 3, 1) * torch.from_numpy(mul) + torch.from_numpy(add)
        return y.mean((1, 2)) @ torch.from_numpy(weights).T + torch.from_numpy(dense.add)

    check(found, wanted)


def test_a_vector_times_a_map_in_either_order() -> None:
    mean = Mean(name="mean", inputs=("x",), layer="mean")
    for inputs in (("x", "mean"), ("mean", "x")):
        found = imported((3, 4, 2), mean, Mul(name="y", inputs=inputs, layer="mul"), flat("y"))
        check(found, lambda x: (x * x.mean((2, 3), keepdim=True)).permute(0, 2, 3, 1))


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([Mul(name="y", inputs=("x", "z"), layer="MUL 'y'")], "MUL 'y': reads 'z', which nothing"),
        ([sign("x", "x")], "SIGN 'x': gives 'x', which is there"),
        ([sign("y")], "SIGN 'y': has no input"),
        ([sign("y", "x")], r"SIGN 'y': the answer is a map \[3, 2, 2\]"),
        ([scale("y", f32(3, 2, 2)), flat("y")], "MUL 'y': a constant that differs from place to"),
        ([scale("y", f32(4))], r"MUL 'y': a constant \[4\] on a map \[3, 2, 2\]"),
        (
            [Slice(name="y", inputs=("x",), layer="SPLIT 'y'", start=1, stop=3)],
            "SPLIT 'y': channels 1 to 3",
        ),
        ([pool(Window((4, 1)))], "POOL 'y': a map of 0 x 2 x 2"),
        ([pool(Window((1, 1), (0, 1)))], r"POOL 'y': a window .* is impossible"),
    ],
)  # fmt: skip
def test_what_no_program_says_is_refused_by_layer(nodes: list[Node], why: str) -> None:
    with pytest.raises(fb.FormatError, match=why) as caught:
        imported((3, 2, 2), *nodes)
    assert len(str(caught.value).splitlines()) == 1


def test_weights_shared_without_end_are_refused() -> None:
    builder = Builder("x", (1, 1, 1000), "made here", file_bytes=4_004_000)
    weights, add = f32(1000, 1000), f32(1000)
    for number in range(8):
        name = f"y{number}"
        builder.add(Dense(name=name, inputs=("x",), layer="d", weights=weights, add=add))
    with pytest.raises(fb.FormatError, match="far more than the file holds"):
        builder.add(Dense(name="y", inputs=("x",), layer="d", weights=weights, add=add))
