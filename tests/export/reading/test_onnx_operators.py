"""Operators of ONNX with unusual attributes, versions and axes: equal to ONNX Runtime."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.export.onnx.quantizers import DOMAINS
from frostbit.export.reading.onnx.constants import SIZES
from frostbit.export.reading.onnx.file import OPSETS
from frostbit.export.reading.onnx.read import RULES
from frostbit.kernels.ir.program import FormatError
from tests import ROOT
from tests.export.reading.networks import Arrays, assert_same, model, node, read

RNG = np.random.default_rng(2)


def real(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ended(
    nodes: Sequence[onnx.NodeProto], arrays: Arrays, shape: Sequence[int | str], opset: int = 18
) -> onnx.ModelProto:
    """A network that ends in the channels of the map ``m``."""
    end = [node("GlobalAveragePool", "m", "g"), node("Flatten", "g", "y")]
    return model([*nodes, *end], arrays, shape, opset)


CONVOLUTIONS = {
    "groups": (real(6, 2, 3, 3), {"group": 2, "pads": [0, 1, 2, 0]}),
    "depthwise": (real(4, 1, 3, 2), {"group": 4, "kernel_shape": [3, 2]}),
    "dilated": (real(5, 4, 2, 3), {"dilations": [3, 2], "strides": [2, 1]}),
    "same": (real(5, 4, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same-before": (real(5, 4, 4, 2), {"auto_pad": "SAME_LOWER", "strides": [2, 2]}),
    "valid": (real(5, 4, 3, 3), {"auto_pad": "VALID"}),
}


@pytest.mark.parametrize("form", CONVOLUTIONS)
def test_convolutions(form: str) -> None:
    weights, attributes = CONVOLUTIONS[form]
    arrays = {"w": weights, "b": real(len(weights))}
    assert_same(ended([node("Conv", "x w b", "m", **attributes)], arrays, (1, 4, 9, 8)))


POOLS = {
    "max-ceil": ("MaxPool", {"kernel_shape": [3, 2], "strides": [2, 3], "ceil_mode": 1}),
    "max-padded-ceil": (
        "MaxPool",
        {"kernel_shape": [2, 3], "strides": [3, 2], "pads": [1, 0, 1, 2], "ceil_mode": 1},
    ),
    "max-dilated": ("MaxPool", {"kernel_shape": [2, 2], "dilations": [2, 3]}),
    "max-same": (
        "MaxPool",
        {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "average": ("AveragePool", {"kernel_shape": [2, 3], "strides": [2, 1]}),
    "average-pads": (
        "AveragePool",
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "average-even-ceil": (
        "AveragePool",
        {"kernel_shape": [3, 2], "strides": [3, 2], "ceil_mode": 1},
    ),
}


@pytest.mark.parametrize("form", POOLS)
def test_pools(form: str) -> None:
    kind, attributes = POOLS[form]
    assert_same(ended([node(kind, "x", "m", **attributes)], {}, (1, 3, 9, 8)))


@settings(deadline=None, max_examples=40)
@given(
    st.tuples(*[st.integers(1, 4)] * 2),
    st.tuples(*[st.integers(1, 4)] * 2),
    st.tuples(*[st.integers(0, 3)] * 4),
    st.tuples(*[st.integers(1, 3)] * 2),
    st.booleans(),
)
def test_windows_of_any_size(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    pads: tuple[int, int, int, int],
    dilations: tuple[int, int],
    ceil: bool,
) -> None:
    """With pads smaller than the kernel; rounding up adds some at the end."""
    dilations = (1, 1) if ceil else dilations
    pads = tuple(min(pad, kernel[i % 2] - 1) for i, pad in enumerate(pads))
    window = {"kernel_shape": kernel, "strides": strides, "pads": pads, "dilations": dilations}
    reaches = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if any(reach > size for reach, size in zip(reaches, (9, 8), strict=True)):
        return
    assert_same(ended([node("MaxPool", "x", "m", ceil_mode=int(ceil), **window)], {}, (1, 2, 9, 8)))
    arrays = {"w": real(3, 2, *kernel)}
    assert_same(ended([node("Conv", "x w", "m", **window)], arrays, (1, 2, 9, 8)))


ELEMENTWISE = {
    "sub-from": [node("Sub", "c x", "m")],
    "div": [node("Div", "x row", "m")],
    "neg": [node("Neg", "x", "m")],
    "square": [node("Mul", "x x", "m")],
    "minus": [node("Relu", "x", "r"), node("Sub", "x r", "m")],
    "sum": [node("Relu", "x", "r"), node("Sum", "x r x", "m")],
    "clip": [node("Clip", "x minus _", "m")],
    "clip-above": [
        node("Sigmoid", "x", "s"),
        node("Clip", "s two four", "k"),
        node("Clip", "k minus one", "m"),
    ],
    "clip-infinite": [node("Clip", "x minus most", "m")],
    "clip-both": [node("Clip", "x minus one", "m")],
    "min-max": [node("Max", "x minus", "a"), node("Min", "one a", "m")],
    "leaky": [node("LeakyRelu", "x", "m", alpha=0.3)],
    "prelu": [node("PRelu", "x row", "m")],
    "sigmoid": [node("Sigmoid", "x", "m")],
    "hard-sigmoid": [node("HardSigmoid", "x", "m", alpha=0.3, beta=0.4)],
    "hard-swish": [node("HardSwish", "x", "m")],
    "squeeze-excite": [
        node("ReduceMean", "x axes", "p"),
        node("Sigmoid", "p", "s"),
        node("Mul", "x s", "m"),
    ],
    "identity": [
        node("Identity", "x", "a"),
        node("Cast", "a", "b", to=1),
        node("Dropout", "b", "m"),
    ],
    "norm": [node("BatchNormalization", "x row c2 row spread", "m", epsilon=0.01)],
}


@pytest.mark.parametrize("form", ELEMENTWISE)
def test_elementwise(form: str) -> None:
    arrays: Arrays = {
        "c": real(1, 3, 1, 1), "row": real(3, 1, 1), "one": 1.0, "minus": -0.5, "axes": [2, 3],
        "two": 2.0, "four": 4.0, "most": np.inf,
        "c2": real(3), "spread": np.abs(real(3)),
    }  # fmt: skip
    nodes = ELEMENTWISE[form]
    if form == "norm":
        arrays = {**arrays, "row": real(3)}
    assert_same(ended(nodes, arrays, (1, 3, 5, 4)))


def test_further_results_that_nothing_reads() -> None:
    """Masks and places of maxima, which exporters name."""
    nodes = [
        node("Dropout", "x", "d mask"),
        node("MaxPool", "d", "m places", kernel_shape=[2, 2]),
    ]
    assert_same(ended(nodes, {}, (1, 3, 5, 4)))
    nodes[1] = node("Where", "mask d d", "m")
    with pytest.raises(FormatError, match="Where 'm': reads 'mask', a further result"):
        read(ended(nodes, {}, (1, 3, 5, 4)))


MOVES = {
    "channels": [node("Slice", "x one two one", "m")],
    "channels-from-the-end": [node("Slice", "x minus far one", "m")],
    "every-second": [node("Slice", "x zeros far2 axes steps", "m")],
    "split": [node("Split", "x parts", "a b", axis=1), node("Concat", "b a b", "m", axis=-3)],
    "split-evenly": [
        node("Split", "x", "a b", axis=1, num_outputs=2),
        node("Concat", "b a", "m", axis=1),
    ],
    "pad": [node("Pad", "x pads value", "m")],
    "pad-axes": [node("Pad", "x pads2 _ axes", "m")],
    "pad-lowest": [
        node("Pad", "x around lowest", "p"),
        node("MaxPool", "p", "m", kernel_shape=[4, 4], strides=[2, 2]),
    ],
    "tile": [node("Tile", "x times", "m")],
    "there-and-back": [
        node("Transpose", "x", "t", perm=[0, 2, 3, 1]),
        node("Add", "t row", "u"),
        node("Transpose", "u", "m", perm=[0, 3, 1, 2]),
    ],
}


@pytest.mark.parametrize("form", MOVES)
def test_moves(form: str) -> None:
    arrays: Arrays = {
        "one": [1], "two": [2], "minus": [-2], "far": [1 << 40], "zeros": [0, 0],
        "far2": [1 << 40, 99], "axes": [2, 3], "steps": [2, 3], "parts": [1, 2],
        "pads": [0, 1, 2, 0, 0, 0, 1, 3], "pads2": [1, 0, 0, 2], "value": 0.75, "lowest": -np.inf,
        "around": [0, 0, 1, 0, 0, 0, 1, 1],
        "times": [1, 2, 1, 1], "row": real(3),
    }  # fmt: skip
    assert_same(ended(MOVES[form], arrays, (1, 3, 6, 5)))


FLATS = {
    "flatten": [node("Flatten", "x", "f")],
    "reshape": [node("Reshape", "x to", "f")],
    "reshape-zero": [node("Reshape", "x copied", "f")],
    "computed": [
        node("Shape", "x", "s"),
        node("Gather", "s zero", "count"),
        node("Unsqueeze", "count first", "u"),
        node("Concat", "u rest", "to2", axis=0),
        node("Reshape", "x to2", "f"),
    ],
}


@pytest.mark.parametrize("form", FLATS)
def test_rows_of_channels_first(form: str) -> None:
    """A dense layer reads them in the order of the file."""
    arrays = {
        "to": [1, -1], "copied": [0, -1], "zero": np.int64(0), "first": [0], "rest": [-1],
        "w": real(7, 60), "b": real(7), "mean": real(60), "spread": np.abs(real(60)),
    }  # fmt: skip
    nodes = [
        *FLATS[form],
        node("BatchNormalization", "f mean mean mean spread", "n"),
        node("Gemm", "n w b", "y", transB=1, alpha=0.5, beta=2.0),
    ]
    batch = "N" if form == "computed" else 1
    assert_same(model(nodes, arrays, (batch, 3, 5, 4)))


def test_input_with_channels_last() -> None:
    """As converters of TensorFlow's networks write it."""
    nodes = [
        node("Transpose", "x", "t", perm=[0, 3, 1, 2]),
        node("Conv", "t w", "c", pads=[1, 1, 1, 1]),
        node("Transpose", "c", "u", perm=[0, 2, 3, 1]),
        node("Reshape", "u to", "f"),
        node("MatMul", "f head", "a"),
        node("Add", "a b", "s"),
        node("Softmax", "s", "y"),
    ]
    arrays = {"w": real(2, 3, 3, 3), "to": [-1, 40], "head": real(40, 6), "b": real(6)}
    found = assert_same(model(nodes, arrays, (1, 5, 4, 3)), "NHWC")
    assert found.program.input_shape == (5, 4, 3)


def test_a_column_becomes_channels() -> None:
    nodes = [node("Reshape", "x to", "f"), node("ReduceSum", "f axes", "s", keepdims=0)]
    nodes += [node("Gemm", "s w", "y")]
    arrays = {"to": [0, 6, 1, 1], "axes": [2, 3], "w": real(6, 3)}
    assert_same(model(nodes, arrays, (1, 1, 6, 1)))


def test_rows_as_input() -> None:
    nodes = [
        node("Gemm", "x w b", "h"),
        node("Sign", "h", "t"),
        node("Add", "t half", "u"),
        node("Sign", "u", "s"),
        node("MatMul", "s v", "a"),
        node("Softmax", "a", "y", axis=1),
    ]
    weights = (0.3 * RNG.choice([-1, 1], (9, 4))).astype(np.float32)
    arrays = {"w": real(20, 9), "b": real(1, 9), "half": 0.5, "v": weights}
    found = assert_same(model(nodes, arrays, (1, 20), 11), "NC")
    assert len(found.restored) == 1


def test_operators_of_old_sets() -> None:
    nodes = [
        node("Clip", "x", "a", min=-0.5, max=0.25),
        node("Pad", "a", "b", pads=[0, 0, 1, 1, 0, 0, 2, 0], value=0.0),
        node("Slice", "b", "c", starts=[1], ends=[3], axes=[1]),
        node("Split", "c", "d e", axis=1),
        node("Concat", "e d", "f", axis=1),
        node("ReduceMean", "f", "m", axes=[2, 3], keepdims=0),
        node("Unsqueeze", "m", "u", axes=[2, 3]),
        node("Squeeze", "u", "v", axes=[2, 3]),
        node("Softmax", "v", "y"),
    ]
    assert_same(model(nodes, {}, (1, 3, 5, 4), 9))


def test_the_page_names_what_is_read() -> None:
    text = (ROOT / "docs" / "importing.md").read_text("utf-8")
    rows = [line.split("|")[1] for line in text.splitlines() if line.startswith("| `")]
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == set(RULES)
    constants = text.partition("and `Abs`")[2].partition("##")[0]
    named = {"Abs", *re.findall(r"`(\w+)`", constants)}
    assert named == {"Constant", *SIZES} - set(RULES)
    assert f"Operator sets {OPSETS[0]} to {OPSETS[-1]} of ONNX" in text
    assert all(f"`{domain}`" in text for domain in DOMAINS)
