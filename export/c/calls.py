"""One rule per op: from a step to its call in ``frostbit_run`` and the constants that it reads.

Full-precision weights are stored in 8 bits where they fit, with a scale per output channel, or in
16 as multiples of a power of two. Pixels and bits are then summed as integers where 32 bits hold
the sums; exact either way.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from frostbit.export.c import text as c_text
from frostbit.export.c.functions import PATCHES
from frostbit.export.c.steps import BIT_WORD, Places, words_for
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.integer_weights import LARGEST, as_int8, as_int16, fits_int32
from frostbit.kernels.ir.program import (
    Add,
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
    Quantize,
    Repeat,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    Threshold,
    ToFloat,
    ValueType,
    Window,
)
from frostbit.kernels.plan.fusion import Step

PAIR = 2
"""Least words in an array that is read in pairs: GCC warns of smaller ones, though never read."""


@dataclass
class CFile:
    """A C file under construction.

    Attributes:
        types: type of every value.
        places: where values lie.
        pointers: C expression of the values outside the arenas.
        level_type: NumPy type that holds every threshold.
        masked: whether a binary convolution pads with 0.
        constants, calls: C text so far.
        kernels: names of the functions called.
        scratch: elements of each scratch array, by name without ``fb_``.
        constant_bytes, binary_bytes: size of all constants, and of the binary weights.
    """

    types: dict[str, ValueType]
    places: Places
    pointers: dict[str, str]
    level_type: type[np.int16] | type[np.int32]
    masked: bool
    constants: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    kernels: set[str] = field(default_factory=set)
    scratch: dict[str, int] = field(default_factory=dict)
    constant_bytes: int = 0
    binary_bytes: int = 0

    def pointer(self, name: str | None) -> str:
        """C expression of the start of a value; ``NULL`` for None."""
        if name is None:
            return "NULL"
        if name in self.pointers:
            return self.pointers[name]
        arena = "fb_words" if self.types[name].kind == "bits" else "fb_floats"
        return f"{arena} + {self.places.offsets[name]}"

    def array(self, name: str, values: NDArray[np.generic]) -> str:
        """Add a constant array; returns its name."""
        self.constants.append(c_text.array(name, values))
        self.constant_bytes += values.nbytes
        return name

    def scratch_for(self, name: str, count: int) -> None:
        """Make the scratch array ``name`` at least ``count`` elements long."""
        self.scratch[name] = max(self.scratch.get(name, 0), count)

    def call(self, kernel: str, *arguments: str | int) -> None:
        """Add a call of ``kernel``."""
        self.kernels.add(kernel)
        line = f"fb_{kernel}({', '.join(map(str, arguments))});"
        self.calls.append(
            textwrap.fill(
                line, 96, initial_indent="    ", subsequent_indent="        ",
                break_long_words=False, break_on_hyphens=False,
            )
        )  # fmt: skip


def _ends(file: CFile, step: Step) -> tuple[str, str, str]:
    """Arguments ``residual, out, signs``."""
    return file.pointer(step.residual), file.pointer(step.out), file.pointer(step.bits)


def _size(file: CFile, name: str) -> tuple[int, int]:
    """``(pixels, channels)`` of a value."""
    height, width, channels = file.types[name].shape
    return height * width, channels


def _window(file: CFile, step: Step, prefix: str, window: Window, extra: str = "") -> str:
    """Add the geometry of a layer; returns its address."""
    source, out = file.types[step.source].shape, file.types[step.op.name].shape
    kernel, stride, dilation = window.kernel, window.stride, window.dilation
    file.constants.append(
        f"static const fb_window {prefix}_window = {{\n"
        f"    .in_height = {source[0]}, .in_width = {source[1]}, .in_channels = {source[2]},\n"
        f"    .out_height = {out[0]}, .out_width = {out[1]}, .out_channels = {out[2]},\n"
        f"    .kernel_height = {kernel[0]}, .kernel_width = {kernel[1]},\n"
        f"    .stride_y = {stride[0]}, .stride_x = {stride[1]},\n"
        f"    .top = {window.pads[0]}, .left = {window.pads[1]},\n"
        f"    .dilation_y = {dilation[0]}, .dilation_x = {dilation[1]},{extra}\n"
        "};\n"
    )
    file.constant_bytes += 16 * 4
    return f"&{prefix}_window"


def _values(
    file: CFile, prefix: str, weights: NDArray[np.float32], kind: str
) -> tuple[str, str, str]:
    """Add full-precision weights ``[O, taps]``: their number type, array name and scale."""
    few = as_int8(weights)
    if few is not None and (kind not in LARGEST or fits_int32(few[0], LARGEST[kind])):
        stored = file.array(f"{prefix}_weights", few[0])
        return "i8", stored, file.array(f"{prefix}_scale", few[1])
    small = as_int16(weights, LARGEST.get(kind, 1))
    if small is None:
        return "f32", file.array(f"{prefix}_weights", weights), c_text.number(1.0)
    steps, exponent = small
    return "i16", file.array(f"{prefix}_weights", steps), c_text.number(2.0**-exponent)


def conv(file: CFile, step: Step, op: Conv, prefix: str) -> None:
    kind = file.types[step.source].kind
    out = op.weights.shape[0]
    rows = op.weights.reshape(out, -1)
    extra = f"\n    .groups = {op.groups}, .zero_pad = 1,"
    window = _window(file, step, prefix, op.window, extra)
    stored, weights, scale = _values(file, prefix, rows, kind)
    pad = [file.array(f"{prefix}_pad", op.pad_value)] if kind == "u8" else []
    add = file.array(f"{prefix}_add", op.add)
    file.scratch_for(f"values_{PATCHES[kind]}", rows.shape[1])
    file.scratch_for("row", out)
    source = file.pointer(step.source)
    ends = _ends(file, step)
    file.call(f"conv_{kind}_{stored}", source, window, *pad, weights, scale, add, *ends)


def packed_rows(op: BinaryConv) -> NDArray[np.uint32]:
    """Weights ``[O, ceil(K / 32)]``: the K bits of an output channel in a row, tail bits 0."""
    negative = bits.unpack(op.words, op.channels_in).reshape(op.channels_out, -1) < 0
    padded = np.zeros((op.channels_out, words_for(op.taps) * BIT_WORD), np.bool_)
    padded[:, : op.taps] = negative
    return np.packbits(padded, axis=1, bitorder="little").view("<u4").astype(np.uint32)


def binary_conv(file: CFile, step: Step, op: BinaryConv, prefix: str) -> None:
    zero_pad = int(op.pad_value == 0 and any(op.window.pads))
    extra = f"\n    .groups = {op.groups}, .zero_pad = {zero_pad},"
    window = _window(file, step, prefix, op.window, extra)
    rows = packed_rows(op)
    words = max(PAIR, rows.shape[1])
    stored = np.pad(rows.reshape(-1), (0, max(0, PAIR - rows.size)))
    file.binary_bytes += stored.nbytes
    weights = file.array(f"{prefix}_weights", stored)
    source = file.pointer(step.source)
    real = file.types[step.source].kind == "f32"
    if real:
        file.scratch_for("values_f32", op.taps)
    else:
        file.kernels.add("accumulate_masked" if file.masked else "accumulate")
        file.scratch_for("patch", words)
        file.scratch_for("sums", op.channels_out)
        if zero_pad:
            file.scratch_for("mask", words)
    if isinstance(op.epilogue, Threshold):
        level = file.array(f"{prefix}_level", op.epilogue.level.astype(file.level_type))
        file.call("binary_threshold", source, window, weights, level, file.pointer(step.bits))
        return
    file.scratch_for("row", op.channels_out)
    mul = file.array(f"{prefix}_mul", op.epilogue.mul)
    add = file.array(f"{prefix}_add", op.epilogue.add)
    ends = _ends(file, step)
    if op.epilogue.is_clipped:
        limits = op.epilogue.limits(op.taps)
        file.call("binary_clipped", source, window, weights, mul, add, *limits, *ends)
        return
    kernel = "binary_real" if real else "binary_affine"
    file.call(kernel, source, window, weights, mul, add, *ends)


def pointwise(file: CFile, step: Step, op: Add | Sign, prefix: str) -> None:
    sizes = _size(file, step.source)
    file.call("pointwise", file.pointer(step.source), *sizes, *_ends(file, step))


def clip(file: CFile, step: Step, op: Clip, prefix: str) -> None:
    sizes = _size(file, step.source)
    limits = c_text.number(op.low), c_text.number(op.high)
    file.call("clip", file.pointer(step.source), *sizes, *limits, file.pointer(step.out))


def to_float(file: CFile, step: Step, op: ToFloat, prefix: str) -> None:
    sizes = _size(file, step.source)
    file.call("to_float", file.pointer(step.source), *sizes, file.pointer(step.out))


def max_pool(file: CFile, step: Step, op: MaxPool, prefix: str) -> None:
    window = _window(file, step, prefix, op.window)
    kind = file.types[op.name].kind
    file.call(f"max_{kind}", file.pointer(step.source), window, file.pointer(op.name))


def avg_pool(file: CFile, step: Step, op: AvgPool, prefix: str) -> None:
    window = _window(file, step, prefix, op.window)
    file.call("average", file.pointer(step.source), window, file.pointer(step.out))


def repeat(file: CFile, step: Step, op: Repeat, prefix: str) -> None:
    sizes = _size(file, step.source)
    file.call("repeat", file.pointer(step.source), *sizes, op.times, file.pointer(step.out))


def concat(file: CFile, step: Step, op: Concat, prefix: str) -> None:
    kind = file.types[op.name].kind
    at, total = 0, file.types[op.name].shape[2]
    for name in op.inputs:
        sizes = _size(file, name)
        file.call(f"join_{kind}", file.pointer(name), *sizes, file.pointer(op.name), at, total)
        at += sizes[1]


def global_sum(file: CFile, step: Step, op: GlobalSum, prefix: str) -> None:
    kind, sizes = file.types[step.source].kind, _size(file, step.source)
    file.call(f"sum_{kind}", file.pointer(step.source), *sizes, file.pointer(step.out))


def dense(file: CFile, step: Step, op: Dense, prefix: str) -> None:
    stored, weights, scale = _values(file, prefix, op.weights, "f32")
    add = file.array(f"{prefix}_add", op.add)
    outputs, inputs = op.weights.shape
    source, out = file.pointer(step.source), file.pointer(step.out)
    file.call(f"dense_{stored}", source, inputs, weights, scale, add, outputs, out)


def mul(file: CFile, step: Step, op: Mul, prefix: str) -> None:
    sizes, by = _size(file, step.source), op.inputs[1]
    per_channel = int(_size(file, by)[0] == 1)
    pointers = file.pointer(step.source), file.pointer(by)
    file.call("mul", pointers[0], *sizes, pointers[1], per_channel, file.pointer(step.out))


def scale(file: CFile, step: Step, op: Scale, prefix: str) -> None:
    kind, sizes = file.types[step.source].kind, _size(file, step.source)
    constants = file.array(f"{prefix}_mul", op.mul), file.array(f"{prefix}_add", op.add)
    source, out = file.pointer(step.source), file.pointer(step.out)
    file.call(f"scale_{kind}", source, *sizes, *constants, out)


def prelu(file: CFile, step: Step, op: PRelu, prefix: str) -> None:
    sizes, slope = _size(file, step.source), file.array(f"{prefix}_slope", op.slope)
    file.call("prelu", file.pointer(step.source), *sizes, slope, file.pointer(step.out))


def quantize(file: CFile, step: Step, op: Quantize, prefix: str) -> None:
    sizes = _size(file, step.source)
    numbers = [c_text.number(value) for value in (float(np.float32(op.step)), op.low, op.high)]
    file.call("quantize", file.pointer(step.source), *sizes, *numbers, file.pointer(step.out))


def curve(file: CFile, step: Step, op: Sigmoid | Softmax, prefix: str) -> None:
    kernel, sizes = type(op).__name__.lower(), _size(file, step.source)
    file.call(kernel, file.pointer(step.source), *sizes, file.pointer(step.out))


def some(file: CFile, step: Step, op: Slice, prefix: str) -> None:
    kind, sizes = file.types[op.name].kind, _size(file, step.source)
    channels = op.start, op.stop - op.start
    source, out = file.pointer(step.source), file.pointer(op.name)
    file.call(f"slice_{kind}", source, *sizes, *channels, out)


def pad(file: CFile, step: Step, op: Pad, prefix: str) -> None:
    before, after = file.types[step.source].shape, file.types[op.name].shape
    place = (*op.pads[:2], op.channels[0])
    file.call("pad", file.pointer(step.source), *before, *place, file.pointer(step.out), *after)


def flatten(file: CFile, step: Step, op: Flatten, prefix: str) -> None:
    kind, sizes = file.types[op.name].kind, _size(file, step.source)
    file.call(f"flatten_{kind}", file.pointer(step.source), *sizes, file.pointer(op.name))


RULES: dict[type[Op], Callable[..., None]] = {
    Conv: conv,
    BinaryConv: binary_conv,
    Sign: pointwise,
    Clip: clip,
    ToFloat: to_float,
    Add: pointwise,
    MaxPool: max_pool,
    AvgPool: avg_pool,
    Repeat: repeat,
    Concat: concat,
    GlobalSum: global_sum,
    Dense: dense,
    Mul: mul,
    Scale: scale,
    PRelu: prelu,
    Quantize: quantize,
    Sigmoid: curve,
    Softmax: curve,
    Slice: some,
    Pad: pad,
    Flatten: flatten,
}
