"""Checks of a Program: op by op, shapes inferred on the way; every error names the op.

A Program from a file is verified before anything trusts it: dtypes, shapes, finiteness, tail
bits, threshold ranges, and limits on sizes so that nothing overflows later.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from frostbit.kernels.ir import bits, limits, overflow
from frostbit.kernels.ir.program import (
    INPUT,
    INPUT_LIMIT,
    MAX_DIM,
    MAX_ELEMENTS,
    MAX_OPS,
    MAX_PARTS,
    NO_BOUND,
    NO_LIMIT,
    Add,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    FormatError,
    GlobalSum,
    Kind,
    MaxPool,
    Mul,
    Op,
    Pad,
    PRelu,
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
    ValueType,
    Window,
)


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
    if op.groups < 1 or channels % op.groups or out % op.groups:
        raise _fail(op, f"{op.groups} groups on {channels} input and {out} output channels")
    per_group = channels // op.groups
    _array(op, "weights", op.weights, np.float32, (out, *op.window.kernel, per_group))
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
    limits.check_words(op.channels_out, op.taps, op.words[0].size, f"op '{op.name}'")
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
        if source.kind != "bits":
            raise _fail(op, "a threshold needs integer sums, so an input of bits")
        _array(op, "level", op.epilogue.level, np.int32, (out,))
        level = op.epilogue.level.astype(np.int64)
        if (level < -op.taps).any() or (level > op.taps + 1).any():
            raise _fail(op, f"threshold outside [-K, K+1] with K = {op.taps}")
        return _slide(op, op.window, source, out, "bits")
    _array(op, "mul", op.epilogue.mul, np.float32, (out,))
    _array(op, "add", op.epilogue.add, np.float32, (out,))
    low, high = op.epilogue.low, op.epilogue.high
    if not -NO_LIMIT <= low <= high <= NO_LIMIT:
        raise _fail(op, f"clips its sums to {low} .. {high}")
    if op.epilogue.is_clipped and source.kind != "bits":
        raise _fail(op, "clips its sums, which needs an input of bits")
    return _slide(op, op.window, source, out, "f32")


def _dense(op: Dense, source: ValueType) -> ValueType:
    if source.shape[:2] != (1, 1) or op.weights.ndim != 2:
        raise _fail(op, f"needs a [1, 1, C] input and [O, C] weights, got {source.shape}")
    out = op.weights.shape[0]
    _array(op, "weights", op.weights, np.float32, (out, source.shape[2]))
    _array(op, "add", op.add, np.float32, (out,))
    return _sized(op, ValueType("f32", (1, 1, out)))


def _concat(op: Concat, sources: tuple[ValueType, ...]) -> ValueType:
    first = sources[0]
    for name, source in zip(op.inputs, sources, strict=True):
        if source.kind != first.kind:
            raise _fail(op, f"joins {first.kind} '{op.inputs[0]}' and {source.kind} '{name}'")
        if source.shape[:2] != first.shape[:2]:
            raise _fail(op, f"'{op.inputs[0]}' is {first.shape[:2]}, '{name}' {source.shape[:2]}")
    channels = sum(source.shape[2] for source in sources)
    return _sized(op, ValueType(first.kind, (*first.shape[:2], channels)))


def _per_channel(op: Scale | PRelu, source: ValueType) -> ValueType:
    shape = (source.shape[2],)
    if isinstance(op, Scale):
        _array(op, "mul", op.mul, np.float32, shape)
        _array(op, "add", op.add, np.float32, shape)
    else:
        _array(op, "slope", op.slope, np.float32, shape)
    return ValueType("f32", source.shape)


def _mul(op: Mul, a: ValueType, b: ValueType) -> ValueType:
    if b.shape not in (a.shape, (1, 1, a.shape[2])):
        raise _fail(op, f"shapes {a.shape} and {b.shape}: the second must be equal or [1, 1, C]")
    return a


def _slice(op: Slice, source: ValueType) -> ValueType:
    if not 0 <= op.start < op.stop <= source.shape[2]:
        raise _fail(op, f"channels {op.start} to {op.stop} of {source.shape[2]}")
    return ValueType(source.kind, (*source.shape[:2], op.stop - op.start))


def _pad(op: Pad, source: ValueType) -> ValueType:
    if len(op.pads) != 4 or len(op.channels) != 2 or min(*op.pads, *op.channels) < 0:
        raise _fail(op, f"impossible pads {op.pads}, channels {op.channels}")
    top, left, bottom, right = op.pads
    height, width, channels = source.shape
    shape = (height + top + bottom, width + left + right, channels + sum(op.channels))
    return _sized(op, ValueType("f32", shape))


def _flatten(op: Flatten, source: ValueType) -> ValueType:
    height, width, channels = source.shape
    return _sized(op, ValueType(source.kind, (1, 1, height * width * channels)))


def _clip(op: Clip, source: ValueType) -> ValueType:
    if not -NO_BOUND <= op.low <= op.high <= NO_BOUND:
        raise _fail(op, f"clips to {op.low} .. {op.high}")
    return source


def _quantize(op: Quantize, source: ValueType) -> ValueType:
    whole = all(abs(end) < 2**24 and end == int(end) for end in (op.low, op.high))
    if not (2.0**-60 <= op.step <= 2.0**60 and whole and op.low <= op.high):
        raise _fail(op, f"impossible steps of {op.step}, {op.low} to {op.high}")
    return source


def _reordered(op: Op, source: ValueType) -> ValueType | None:
    """Output of the ops that only move or scale values; None of any other."""
    match op:
        case Scale() | PRelu():
            return _per_channel(op, source)
        case Slice():
            return _slice(op, source)
        case Pad():
            return _pad(op, source)
        case Flatten():
            return _flatten(op, source)
        case Clip():
            return _clip(op, source)
        case Quantize():
            return _quantize(op, source)
        case Sigmoid():
            return source
        case Softmax():
            if source.shape[:2] != (1, 1):
                raise _fail(op, f"needs a [1, 1, C] input, got {source.shape}")
            return source
    return None


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
        case Mul():
            return _mul(op, source, sources[1])
        case Add():
            if sources[1].shape != source.shape:
                raise _fail(op, f"shapes {source.shape} and {sources[1].shape} differ")
            return source
        case MaxPool() | AvgPool():
            result = _slide(op, op.window, source, source.shape[2], source.kind)
            if not op.window.pads_less_than_kernel():
                raise _fail(op, "pads must be smaller than the kernel")
            if isinstance(op, MaxPool) and not op.window.always_meets(*source.shape[:2]):
                raise _fail(op, "a window lies wholly in the padding")
            return result
        case Repeat():
            if not 1 <= op.times <= MAX_DIM:
                raise _fail(op, "times out of range")
            height, width, channels = source.shape
            return _sized(op, ValueType("f32", (height, width, channels * op.times)))
        case Concat():
            return _concat(op, sources)
        case GlobalSum():
            return ValueType("f32", (1, 1, source.shape[2]))
        case Dense():
            return _dense(op, source)
    moved = _reordered(op, source)
    if moved is None:
        raise _fail(op, "unknown op")
    return moved


ACCEPTS: dict[type[Op], tuple[tuple[Kind, ...], ...]] = {
    Conv: (("u8", "bits", "f32"),),
    BinaryConv: (("bits", "f32"),),
    Sign: (("f32",),),
    Clip: (("f32",),),
    ToFloat: (("bits",),),
    Add: (("f32",), ("f32",)),
    MaxPool: (("f32", "bits"),),
    AvgPool: (("f32",),),
    Repeat: (("f32",),),
    Concat: (("f32", "bits"),),
    GlobalSum: (("f32", "bits"),),
    Dense: (("f32",),),
    Mul: (("f32",), ("f32",)),
    Scale: (("u8", "f32"),),
    PRelu: (("f32",),),
    Quantize: (("f32",),),
    Sigmoid: (("f32",),),
    Softmax: (("f32",),),
    Slice: (("f32", "bits"),),
    Pad: (("f32",),),
    Flatten: (("f32", "bits"),),
}
"""Kinds that each input may have; those of a Concat are all as its first."""


def _check_inputs(op: Op, types: dict[str, ValueType]) -> None:
    accepted = ACCEPTS.get(type(op))
    if accepted is None:
        raise _fail(op, "unknown op")
    count = len(op.inputs)
    if isinstance(op, Concat):
        if not 2 <= count <= MAX_PARTS:
            raise _fail(op, f"takes 2 to {MAX_PARTS} inputs, has {count}")
        accepted = accepted * count
    if count != len(accepted):
        raise _fail(op, f"takes {len(accepted)} inputs, has {count}")
    for source, kinds in zip(op.inputs, accepted, strict=True):
        if source not in types:
            raise _fail(op, f"input '{source}' is not computed before it")
        if types[source].kind not in kinds:
            raise _fail(op, f"input '{source}' is {types[source].kind}, needs {kinds}")


def _check_preprocessing(program: Program) -> None:
    if program.input_kind not in ("u8", "f32"):
        raise FormatError(f"the input is {program.input_kind!r}, not u8 or f32")
    known = program.preprocessing
    if known is None:
        return
    if program.input_kind != "f32":
        raise FormatError("preprocessing is for a float input only")
    if not len(known.mul) == len(known.add) == program.input_shape[2]:
        raise FormatError("preprocessing needs a factor and an addend per input channel")
    if not all(abs(number) <= INPUT_LIMIT for number in (*known.mul, *known.add)):
        raise FormatError(f"a number of the preprocessing is beyond {INPUT_LIMIT:g}")


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
    _check_preprocessing(program)
    types = {INPUT: ValueType(program.input_kind, program.input_shape)}
    for op in program.ops:
        if not op.name or op.name in types:
            raise _fail(op, "the name is empty or already taken")
        _check_inputs(op, types)
        types[op.name] = output_type(op, tuple(types[source] for source in op.inputs))
    last = types[program.ops[-1].name]
    if last.kind != "f32" or last.shape[:2] != (1, 1):
        raise FormatError(f"the last op must give f32 [1, 1, classes], gives {last}")
    if len(program.classes) != last.shape[2]:
        raise FormatError(f"{len(program.classes)} class names for {last.shape[2]} logits")
    return types


def verify(program: Program) -> None:
    """Raise :class:`FormatError` unless ``program`` is well formed and cannot overflow."""
    overflow.check(program, infer_types(program))
