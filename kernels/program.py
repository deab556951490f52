"""The Program: the typed intermediate representation that every stage shares.

``pack`` writes one, the engine runs it, the exporters translate it and the parity check
compares all of them with :mod:`kernels.reference`. It is a list of ops in execution order;
an op names its inputs and its output carries the op's own name. No I/O here
(:mod:`kernels.container` does that), only data, shape inference and :func:`verify`.

Values are maps ``[H, W, C]`` (batch is implicit) of one of three kinds:

* ``u8``   pixels 0..255, only the program's input;
* ``f32``  fixed-point numbers carried in float32 (see :mod:`kernels.exact`);
* ``bits`` +1/-1, packed along C as in :mod:`kernels.bits`.

Arrays are NHWC / OHWI. Pads are four explicit numbers (top, left, bottom, right), never a
mode name: TensorFlow's SAME and PyTorch's ``padding=1`` differ at stride 2.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kernels import bits

Kind = Literal["u8", "f32", "bits"]
F32 = NDArray[np.float32]

INPUT = "input"
MAX_DIM = 1 << 16
MAX_ELEMENTS = 1 << 28
MAX_OPS = 4096


class FormatError(ValueError):
    """A model file, or a Program built by hand, that breaks the format; the text says where."""


@dataclass(frozen=True)
class ValueType:
    """Kind and shape ``(H, W, C)`` of one value."""

    kind: Kind
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window.

    Attributes:
        kernel: ``(kh, kw)``.
        stride: ``(sh, sw)``.
        pads: ``(top, left, bottom, right)``.
        dilation: ``(dh, dw)``.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Output ``(OH, OW)`` for an input map of ``height`` by ``width``; may be < 1."""
        top, left, bottom, right = self.pads
        reach_h = (self.kernel[0] - 1) * self.dilation[0] + 1
        reach_w = (self.kernel[1] - 1) * self.dilation[1] + 1
        return (
            (height + top + bottom - reach_h) // self.stride[0] + 1,
            (width + left + right - reach_w) // self.stride[1] + 1,
        )


@dataclass(frozen=True, eq=False)
class Threshold:
    """Epilogue to bits: +1 where the accumulator is at least ``level``, int32 ``[O]``.

    Levels lie in ``[-K, K + 1]`` with K the taps per output; -K is always +1, K + 1 always -1.
    """

    level: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Affine:
    """Epilogue to f32: ``y = mul * acc + add``, both float32 ``[O]``."""

    mul: F32
    add: F32


@dataclass(frozen=True, eq=False)
class Op:
    """Base of all ops: ``name`` is also the name of the output value."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """Full-precision convolution of pixels or +-1 maps: ``y = sum(w * x) + add`` -> f32.

    Attributes:
        weights: float32 OHWI.
        add: float32 ``[O]``.
        pad_value: uint8 ``[I]``, what a padded tap holds (the zero point of the pixels; all 0
            for a ``bits`` or ``f32`` input).
    """

    window: Window
    weights: F32
    add: F32
    pad_value: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class BinaryConv(Op):
    """XNOR-popcount convolution of bits; a binary dense layer is one whose kernel is the map.

    Attributes:
        words: uint64 ``[O, kh, kw, ceil(I / 64)]`` packed weights, I the channels per group.
        channels_in: I, channels per group.
        groups: number of channel groups; the input has ``I * groups`` channels.
        pad_value: 0 (padded taps contribute nothing) or 1 (padded taps are +1).
        epilogue: :class:`Threshold` (output bits) or :class:`Affine` (output f32).
    """

    window: Window
    words: bits.Words
    channels_in: int
    groups: int
    pad_value: int
    epilogue: Threshold | Affine

    @property
    def channels_out(self) -> int:
        return int(self.words.shape[0])

    @property
    def taps(self) -> int:
        """K, the number of products per output element (padding included)."""
        return self.window.kernel[0] * self.window.kernel[1] * self.channels_in


@dataclass(frozen=True, eq=False)
class Sign(Op):
    """f32 -> bits: +1 where x >= 0, else -1."""


@dataclass(frozen=True, eq=False)
class ToFloat(Op):
    """bits -> f32 of +1.0 and -1.0."""


@dataclass(frozen=True, eq=False)
class Add(Op):
    """Element-wise sum of two f32 maps of the same shape."""


@dataclass(frozen=True, eq=False)
class MaxPool(Op):
    """Maximum over a window, f32 or bits (of +-1: the AND of the bits); pads never win."""

    window: Window


@dataclass(frozen=True, eq=False)
class AvgPool(Op):
    """Sum over a window divided by kh * kw, padded taps counting as 0; f32 only."""

    window: Window


@dataclass(frozen=True, eq=False)
class Repeat(Op):
    """Channel tiling, f32: output channel c is input channel ``c % C``; ``times`` copies."""

    times: int


@dataclass(frozen=True, eq=False)
class GlobalSum(Op):
    """Sum over H and W, f32 or bits -> f32 ``[1, 1, C]`` (a mean's division sits in Dense)."""


@dataclass(frozen=True, eq=False)
class Dense(Op):
    """Full-precision dense layer on f32 ``[1, 1, C]``: weights float32 ``[O, C]``, add ``[O]``."""

    weights: F32
    add: F32


OP_TYPES: dict[str, type[Op]] = {
    cls.__name__: cls
    for cls in (
        Conv, BinaryConv, Sign, ToFloat, Add, MaxPool, AvgPool, Repeat, GlobalSum, Dense
    )
}  # fmt: skip


@dataclass(frozen=True, eq=False)
class Program:
    """A whole network, from uint8 pixels to float32 logits.

    Attributes:
        input_shape: ``(H, W, C)`` of one image.
        ops: in execution order; the last one gives the logits, f32 ``[1, 1, classes]``.
        dataset: name of the data set it was trained on ("" if none).
        classes: one name per logit.
        settled_hash: SHA-256 (hex) of the settled torch weights it was packed from ("" if none).
    """

    input_shape: tuple[int, int, int]
    ops: tuple[Op, ...]
    dataset: str
    classes: tuple[str, ...]
    settled_hash: str = ""


def _fail(op: Op, what: str) -> FormatError:
    return FormatError(f"op '{op.name}' ({type(op).__name__}): {what}")


def _array(op: Op, field: str, value: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    """Check one array attribute: dtype, shape, and finiteness of floats."""
    if not isinstance(value, np.ndarray) or value.dtype != np.dtype(dtype):
        raise _fail(op, f"{field} must be an array of {np.dtype(dtype)}")
    if value.shape != shape:
        raise _fail(op, f"{field} has shape {value.shape}, expected {shape}")
    if value.dtype.kind == "f" and not np.isfinite(value).all():
        raise _fail(op, f"{field} contains NaN or infinity")


def _slide(op: Op, window: Window, source: ValueType, channels: int, kind: Kind) -> ValueType:
    """Output type of a windowed op; checks the geometry."""
    flat = (*window.kernel, *window.stride, *window.dilation)
    if min(flat) < 1 or min(window.pads) < 0 or max(*flat, *window.pads) > MAX_DIM:
        raise _fail(op, f"impossible geometry {window}")
    height, width = window.output(source.shape[0], source.shape[1])
    if height < 1 or width < 1:
        raise _fail(op, f"kernel {window.kernel} does not fit the map {source.shape[:2]}")
    return _sized(op, ValueType(kind, (height, width, channels)))


def _sized(op: Op, value: ValueType) -> ValueType:
    if not all(1 <= d <= MAX_DIM for d in value.shape):
        raise _fail(op, f"output shape {value.shape} is out of range")
    if value.shape[0] * value.shape[1] * value.shape[2] > MAX_ELEMENTS:
        raise _fail(op, f"output shape {value.shape} is too large")
    return value


def _conv(op: Conv, source: ValueType) -> ValueType:
    channels = source.shape[2]
    if op.weights.ndim != 4:
        raise _fail(op, "weights must have four axes (OHWI)")
    out = op.weights.shape[0]
    _array(op, "weights", op.weights, np.float32, (out, *op.window.kernel, channels))
    _array(op, "add", op.add, np.float32, (out,))
    _array(op, "pad_value", op.pad_value, np.uint8, (channels,))
    if source.kind != "u8" and op.pad_value.any():
        raise _fail(op, "pad_value must be 0 unless the input is pixels")
    return _slide(op, op.window, source, out, "f32")


def _binary_conv(op: BinaryConv, source: ValueType) -> ValueType:
    if op.words.ndim != 4:
        raise _fail(op, "words must have four axes (OHWI)")
    if op.groups < 1 or op.channels_in < 1 or op.pad_value not in (0, 1):
        raise _fail(op, "groups, channels_in or pad_value out of range")
    if source.shape[2] != op.channels_in * op.groups or op.channels_out % op.groups:
        raise _fail(
            op, f"{op.channels_in} channels x {op.groups} groups on an input of {source.shape[2]}"
        )
    out = op.channels_out
    per_tap = bits.words_for(op.channels_in)
    _array(op, "words", op.words, np.uint64, (out, *op.window.kernel, per_tap))
    if not bits.tail_is_clear(op.words, op.channels_in):
        raise _fail(op, "tail bits beyond channels_in must be 0")
    if isinstance(op.epilogue, Threshold):
        _array(op, "level", op.epilogue.level, np.int32, (out,))
        level = op.epilogue.level.astype(np.int64)
        if (level < -op.taps).any() or (level > op.taps + 1).any():
            raise _fail(op, f"threshold outside [-K, K+1] with K = {op.taps}")
        return _slide(op, op.window, source, out, "bits")
    _array(op, "mul", op.epilogue.mul, np.float32, (out,))
    _array(op, "add", op.epilogue.add, np.float32, (out,))
    return _slide(op, op.window, source, out, "f32")


def _dense(op: Dense, source: ValueType) -> ValueType:
    if source.shape[:2] != (1, 1) or op.weights.ndim != 2:
        raise _fail(op, f"needs a [1, 1, C] input and [O, C] weights, got {source.shape}")
    out = op.weights.shape[0]
    _array(op, "weights", op.weights, np.float32, (out, source.shape[2]))
    _array(op, "add", op.add, np.float32, (out,))
    return _sized(op, ValueType("f32", (1, 1, out)))


def output_type(op: Op, sources: tuple[ValueType, ...]) -> ValueType:
    """Type of ``op``'s output for inputs of the right kinds; FormatError if the op is wrong."""
    source = sources[0]
    match op:
        case Conv():
            return _conv(op, source)
        case BinaryConv():
            return _binary_conv(op, source)
        case Sign():
            return ValueType("bits", source.shape)
        case ToFloat():
            return ValueType("f32", source.shape)
        case Add():
            if sources[1].shape != source.shape:
                raise _fail(op, f"shapes {source.shape} and {sources[1].shape} differ")
            return source
        case MaxPool() | AvgPool():
            if max(op.window.pads) >= min(op.window.kernel):
                raise _fail(op, "pads must be smaller than the kernel")
            return _slide(op, op.window, source, source.shape[2], source.kind)
        case Repeat():
            if not 1 <= op.times <= MAX_DIM:
                raise _fail(op, "times out of range")
            height, width, channels = source.shape
            return _sized(op, ValueType("f32", (height, width, channels * op.times)))
        case GlobalSum():
            return ValueType("f32", (1, 1, source.shape[2]))
        case Dense():
            return _dense(op, source)
    raise _fail(op, "unknown op")


ACCEPTS: dict[type[Op], tuple[tuple[Kind, ...], ...]] = {
    Conv: (("u8", "bits", "f32"),),
    BinaryConv: (("bits",),),
    Sign: (("f32",),),
    ToFloat: (("bits",),),
    Add: (("f32",), ("f32",)),
    MaxPool: (("f32", "bits"),),
    AvgPool: (("f32",),),
    Repeat: (("f32",),),
    GlobalSum: (("f32", "bits"),),
    Dense: (("f32",),),
}


def infer_types(program: Program) -> dict[str, ValueType]:
    """Verify ``program`` and return the type of every value, ``"input"`` included.

    Raises:
        FormatError: naming the op that is wrong and how.
    """
    height, width, channels = program.input_shape
    if not all(1 <= d <= MAX_DIM for d in program.input_shape):
        raise FormatError(f"input shape {program.input_shape} is out of range")
    if height * width * channels > MAX_ELEMENTS:
        raise FormatError(f"input shape {program.input_shape} is too large")
    if not 1 <= len(program.ops) <= MAX_OPS:
        raise FormatError(f"a program has 1 to {MAX_OPS} ops, this one {len(program.ops)}")
    types = {INPUT: ValueType("u8", program.input_shape)}
    for op in program.ops:
        accepted = ACCEPTS.get(type(op))
        if accepted is None:
            raise _fail(op, "unknown op")
        if not op.name or op.name in types:
            raise _fail(op, "the name is empty or already taken")
        if len(op.inputs) != len(accepted):
            raise _fail(op, f"takes {len(accepted)} inputs, has {len(op.inputs)}")
        for source, kinds in zip(op.inputs, accepted, strict=True):
            if source not in types:
                raise _fail(op, f"input '{source}' is not computed before it")
            if types[source].kind not in kinds:
                raise _fail(op, f"input '{source}' is {types[source].kind}, needs {kinds}")
        types[op.name] = output_type(op, tuple(types[source] for source in op.inputs))
    last = types[program.ops[-1].name]
    if last.kind != "f32" or last.shape[:2] != (1, 1):
        raise FormatError(f"the last op must give f32 [1, 1, classes], gives {last}")
    if len(program.classes) != last.shape[2]:
        raise FormatError(f"{len(program.classes)} class names for {last.shape[2]} logits")
    return types


def verify(program: Program) -> None:
    """Raise :class:`FormatError` unless ``program`` is well formed."""
    infer_types(program)
