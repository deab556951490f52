"""Small Programs, exact by construction, shared by the tests."""

from dataclasses import replace

import numpy as np

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import (
    NO_BOUND,
    Add,
    Affine,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalSum,
    MaxPool,
    Mul,
    Op,
    Pad,
    PRelu,
    Preprocessing,
    Program,
    Quantize,
    Repeat,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    Threshold,
    ToFloat,
    Window,
)

PAD1 = (1, 1, 1, 1)


def grid(rng: np.random.Generator, *shape: int, step: float = 2.0**-6) -> np.ndarray:
    """Random float32 multiples of ``step`` in [-32 * step, 32 * step], never 0."""
    values = rng.integers(1, 33, shape) * rng.choice([-1, 1], shape)
    return (values * step).astype(np.float32)


def words(rng: np.random.Generator, out: int, kernel: int, channels: int) -> np.ndarray:
    """Random packed weights ``[O, k, k, ceil(C / 64)]``."""
    return bits.pack(rng.choice([-1, 1], (out, kernel, kernel, channels)))


def affine_conv(
    rng: np.random.Generator, name: str, source: str, shape: tuple[int, int], pad_value: int = 1
) -> BinaryConv:
    """3x3 binary convolution ``shape = (I, O)`` with a grid multiplier and addend."""
    channels, out = shape
    return BinaryConv(
        name, (source,), Window((3, 3), (1, 1), PAD1), words(rng, out, 3, channels),
        channels, 1, pad_value, Affine(grid(rng, out), grid(rng, out)),
    )  # fmt: skip


def threshold_conv(
    rng: np.random.Generator, name: str, source: str, shape: tuple[int, int], pad_value: int = 1
) -> BinaryConv:
    """3x3 binary convolution ``shape = (I, O)`` with thresholds, two of them constant."""
    channels, out = shape
    level = rng.integers(-6, 7, out).astype(np.int32)
    level[:2] = (-9 * channels, 9 * channels + 1)
    return BinaryConv(
        name, (source,), Window((3, 3), (1, 1), PAD1), words(rng, out, 3, channels),
        channels, 1, pad_value, Threshold(level),
    )  # fmt: skip


def _body(rng: np.random.Generator) -> tuple[Op, ...]:
    return (
        Conv(
            "stem", ("input",), Window((3, 3), (1, 1), PAD1), grid(rng, 9, 3, 3, 2),
            grid(rng, 9), np.array([17, 200], np.uint8),
        ),
        Sign("sign", ("stem",)),
        threshold_conv(rng, "conv0", "sign", (9, 33), pad_value=0),
        threshold_conv(rng, "conv1", "conv0", (33, 9)),
        ToFloat("float", ("conv1",)),
        affine_conv(rng, "conv2", "conv1", (9, 9)),
        Add("sum", ("conv2", "float")),
        Conv(
            "depth", ("conv1",), Window((3, 3), (1, 1), PAD1), grid(rng, 9, 3, 3, 1),
            grid(rng, 9), np.zeros(9, np.uint8), groups=9,
        ),
        Add("sum2", ("sum", "depth")),
        Clip("clip", ("sum2",)),
        affine_conv(rng, "weights_only", "clip", (9, 9), pad_value=0),
        Add("sum3", ("weights_only", "sum2")),
        AvgPool("mean", ("sum3",), Window((2, 2), (2, 2), (0, 0, 0, 1))),
        Repeat("twice", ("mean",), 2),
        Sign("sign2", ("twice",)),
        MaxPool("most", ("sign2",), Window((2, 2), (1, 1), (1, 0, 0, 1))),
        affine_conv(rng, "conv3", "most", (18, 18), pad_value=0),
    )  # fmt: skip


def _toy(ops: tuple[Op, ...]) -> Program:
    return Program((6, 7, 2), ops, "toy", tuple("abcde"), "0" * 64)


def toy(seed: int = 0) -> Program:
    """A network whose files are known byte for byte, uint8 6x7x2 -> 5 classes."""
    rng = np.random.default_rng(seed)
    ops = (
        *_body(rng),
        MaxPool("peak", ("conv3",), Window((3, 3), (2, 2), PAD1)),
        GlobalSum("total", ("peak",)),
        Dense("logits", ("total",), grid(rng, 5, 18), grid(rng, 5)),
    )
    return _toy(ops)


def every_op(seed: int = 0) -> Program:
    """A network with every op type, odd sizes and channel counts, uint8 6x7x2 -> 5 classes."""
    rng = np.random.default_rng(seed)
    ops = (
        *_body(rng),
        Concat("both", ("most", "sign2")),
        affine_conv(rng, "conv4", "both", (36, 7)),
        Concat("beside", ("conv4", "conv3")),
        MaxPool("peak", ("beside",), Window((3, 3), (2, 2), PAD1)),
        GlobalSum("total", ("peak",)),
        Dense("logits", ("total",), grid(rng, 5, 25), grid(rng, 5)),
    )
    return _toy(ops)


def imported(seed: int = 0) -> Program:
    """A network of the ops that only imported ones have, float32 6x7x2 -> 5 probabilities."""
    rng = np.random.default_rng(seed)
    clipped = affine_conv(rng, "clipped", "sign", (9, 9))
    ops = (
        Conv(
            "stem", ("input",), Window((3, 3), (1, 1), PAD1), grid(rng, 9, 3, 3, 2),
            grid(rng, 9), np.zeros(2, np.uint8),
        ),
        Scale("scale", ("stem",), grid(rng, 9), grid(rng, 9)),
        Quantize("steps", ("scale",), 0.125, -64.0, 63.0),
        Sign("sign", ("steps",)),
        replace(clipped, epilogue=replace(clipped.epilogue, low=0, high=12)),
        Add("sum", ("clipped", "scale")),
        PRelu("prelu", ("sum",), grid(rng, 9)),
        Slice("some", ("prelu",), 2, 7),
        Pad("wide", ("some",), (1, 0, 0, 2), (0, 4)),
        Clip("relu", ("wide",), 0.0, NO_BOUND),
        GlobalSum("total", ("relu",)),
        Dense("squeeze", ("total",), grid(rng, 9, 9) / 4, grid(rng, 9)),
        Sigmoid("gate", ("squeeze",)),
        Mul("gated", ("relu", "gate")),
        MaxPool("peak", ("gated",), Window((3, 3), (3, 3))),
        Flatten("flat", ("peak",)),
        Dense("logits", ("flat",), grid(rng, 5, 54) / 4, grid(rng, 5)),
        Softmax("probabilities", ("logits",)),
    )  # fmt: skip
    known = Preprocessing((1 / 128,) * 2, (-1.0,) * 2)
    return replace(_toy(ops), input_kind="f32", preprocessing=known)


def images(program: Program, count: int, seed: int = 1) -> np.ndarray:
    """Random images ``[count, H, W, C]``: uint8, or float32 if ``program`` takes those."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (count, *program.input_shape), dtype=np.uint8)
    return pixels if program.preprocessing is None else program.preprocessing.apply(pixels)
