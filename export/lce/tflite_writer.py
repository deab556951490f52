"""A small writer of TFLite flatbuffers, with PyPI ``flatbuffers`` and numpy only.

Layout (``tensorflow/compiler/mlir/lite/schema/schema.fbs``): a Model holds operator codes, one
subgraph (tensors, operators, inputs, outputs) and buffers. Buffer 0 is empty and stands for "no
data"; a constant tensor points to a buffer of its own. The file identifier is ``TFL3``, the schema
version 3, and buffer data lies at multiples of 16 bytes so that a runtime can use it in place. Only
the operators that :mod:`frostbit.export.lce.convert` emits are known here, all at version
1. The bytes depend on nothing but the calls made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import flatbuffers
import numpy as np
from flatbuffers import flexbuffers
from numpy.typing import DTypeLike, NDArray

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
ALIGNMENT = 16
ABSENT = -1
"""Tensor index of an optional input that is left out."""

SAME, VALID = 0, 1
"""Values of the ``padding`` field."""

TENSOR_TYPES: dict[np.dtype[np.generic], int] = {
    np.dtype(np.float32): 0, np.dtype(np.int32): 2, np.dtype(np.int8): 9,
}  # fmt: skip
CUSTOM = 32
BUILTIN_OPERATORS = {
    "ADD": 0,
    "AVERAGE_POOL_2D": 1,
    "CONCATENATION": 2,
    "CONV_2D": 3,
    "DEPTHWISE_CONV_2D": 4,
    "DEQUANTIZE": 6,
    "FULLY_CONNECTED": 9,
    "LOGISTIC": 14,
    "MAX_POOL_2D": 17,
    "MUL": 18,
    "RELU": 19,
    "RELU_N1_TO_1": 20,
    "RELU6": 21,
    "RESHAPE": 22,
    "SOFTMAX": 25,
    "PAD": 34,
    "DIV": 42,
    "PRELU": 54,
    "MAXIMUM": 55,
    "MINIMUM": 57,
    "PADV2": 60,
    "SLICE": 65,
    "SUM": 74,
    "ROUND": 116,
}

# Per operator: its type in the schema's BuiltinOptions union, and the slot and kind of each
# field that we set. Fields left out keep the schema's default (no activation, dilation 1).
_POOL = {
    "padding": (0, "Int8"),
    "stride_w": (1, "Int32"),
    "stride_h": (2, "Int32"),
    "filter_width": (3, "Int32"),
    "filter_height": (4, "Int32"),
}
_CONV = {
    "padding": (0, "Int8"),
    "stride_w": (1, "Int32"),
    "stride_h": (2, "Int32"),
    "dilation_w_factor": (4, "Int32"),
    "dilation_h_factor": (5, "Int32"),
}
_DEPTHWISE = {
    "padding": (0, "Int8"),
    "stride_w": (1, "Int32"),
    "stride_h": (2, "Int32"),
    "depth_multiplier": (3, "Int32"),
    "dilation_w_factor": (5, "Int32"),
    "dilation_h_factor": (6, "Int32"),
}
OPTIONS: dict[str, tuple[int, dict[str, tuple[int, str]]]] = {
    "CONV_2D": (1, _CONV),
    "DEPTHWISE_CONV_2D": (2, _DEPTHWISE),
    "AVERAGE_POOL_2D": (5, _POOL),
    "MAX_POOL_2D": (5, _POOL),
    "FULLY_CONNECTED": (8, {}),
    "CONCATENATION": (10, {"axis": (0, "Int32")}),
    "ADD": (11, {}),
    "RESHAPE": (17, {}),
    "PAD": (22, {}),
    "SUM": (27, {"keep_dims": (0, "Bool")}),
    "PADV2": (43, {}),
    "SLICE": (48, {}),
    "SOFTMAX": (9, {"beta": (0, "Float32")}),
    "MUL": (21, {}),
    "DIV": (29, {}),
    "MAXIMUM": (39, {}),
    "MINIMUM": (39, {}),
    "DEQUANTIZE": (38, {}),
    **dict.fromkeys(("LOGISTIC", "PRELU", "RELU", "RELU_N1_TO_1", "RELU6", "ROUND"), (0, {})),
}


@dataclass(frozen=True)
class Tensor:
    """One tensor: static shape, numpy dtype, buffer index (0 for values computed), name.

    ``scale`` holds what one step of an int8 tensor is worth, along the axis ``channel_axis``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    buffer: int
    name: str
    scale: tuple[float, ...] = ()
    channel_axis: int = 0


@dataclass(frozen=True)
class Operator:
    """One node; a name outside BUILTIN_OPERATORS is a custom operator."""

    code: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, float]


class GraphWriter:
    """Collects tensors and operators in execution order, then writes the file."""

    def __init__(self) -> None:
        self._tensors: list[Tensor] = []
        self._operators: list[Operator] = []
        self._codes: list[str] = []
        self._buffers: dict[bytes, int] = {b"": 0}
        self._names: set[str] = set()

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Shape of a tensor by its index."""
        return self._tensors[tensor].shape

    def tensor(self, name: str, shape: Sequence[int], dtype: DTypeLike) -> int:
        """Add a computed tensor (or graph input) and return its index."""
        return self._add(name, shape, np.dtype(dtype), 0)

    def constant(self, name: str, values: NDArray[np.generic]) -> int:
        """Add a constant float32 or int32 tensor; equal bytes share one buffer."""
        return self._add(name, values.shape, values.dtype, self._buffer(values))

    def quantized(
        self, name: str, values: NDArray[np.int8], scale: NDArray[np.float32], channel_axis: int
    ) -> int:
        """Add a constant int8 tensor with a scale for each entry of an axis."""
        steps = tuple(scale.tolist())
        buffer = self._buffer(values)
        return self._add(name, values.shape, values.dtype, buffer, steps, channel_axis)

    def _buffer(self, values: NDArray[np.generic]) -> int:
        dtype = values.dtype
        data = np.ascontiguousarray(values.astype(dtype.newbyteorder("<"), copy=False)).tobytes()
        return self._buffers.setdefault(data, len(self._buffers))

    def _add(
        self,
        name: str,
        shape: Sequence[int],
        dtype: np.dtype[np.generic],
        buffer: int,
        scale: tuple[float, ...] = (),
        channel_axis: int = 0,
    ) -> int:
        if dtype not in TENSOR_TYPES:
            raise ValueError(f"tensor '{name}': no TFLite type for {dtype}")
        while name in self._names:  # tools find tensors by name
            name += "_"
        self._names.add(name)
        sizes = tuple(int(d) for d in shape)
        self._tensors.append(Tensor(sizes, dtype, buffer, name, scale, channel_axis))
        return len(self._tensors) - 1

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: Mapping[str, float] | None = None,
    ) -> None:
        """Add an operator.

        Args:
            name: a key of BUILTIN_OPERATORS, or the name of a custom operator.
            inputs: tensor indices, ABSENT for an optional input left out.
            outputs: tensor indices.
            options: builtin fields by name, or all the integers of a custom operator.
        """
        if name not in self._codes:
            self._codes.append(name)
        code = self._codes.index(name)
        self._operators.append(Operator(code, name, tuple(inputs), tuple(outputs), options or {}))

    def finish(self, inputs: Sequence[int], outputs: Sequence[int], description: str) -> bytes:
        """The whole file, deterministic."""
        builder = flatbuffers.Builder(1 << 16)
        buffers = [_buffer(builder, data) for data in self._buffers]
        graph = _table(
            builder,
            5,
            _offset(0, _offsets(builder, [_tensor(builder, t) for t in self._tensors])),
            _offset(1, _ints(builder, inputs)),
            _offset(2, _ints(builder, outputs)),
            _offset(3, _offsets(builder, [_operator(builder, o) for o in self._operators])),
            _offset(4, builder.CreateString("main")),
        )
        model = _table(
            builder,
            8,
            (0, "Uint32", SCHEMA_VERSION),
            _offset(1, _offsets(builder, [_operator_code(builder, n) for n in self._codes])),
            _offset(2, _offsets(builder, [graph])),
            _offset(3, builder.CreateString(description)),
            _offset(4, _offsets(builder, buffers)),
        )
        builder.Finish(model, FILE_IDENTIFIER)
        return bytes(builder.Output())


Slot = tuple[int, str, float]


def _offset(slot: int, position: int) -> Slot:
    return slot, "UOffsetTRelative", position


def _table(builder: flatbuffers.Builder, slots: int, *fields: Slot) -> int:
    """Write a table; every field given is stored, also where it equals the schema's default."""
    builder.StartObject(slots)
    for slot, kind, value in fields:
        getattr(builder, f"Prepend{kind}")(value)
        builder.Slot(slot)
    return int(builder.EndObject())


def _vector(builder: flatbuffers.Builder, values: Sequence[int], put: Callable[[int], None]) -> int:
    builder.StartVector(4, len(values), 4)
    for value in reversed(values):
        put(int(value))
    return int(builder.EndVector())


def _ints(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return _vector(builder, values, builder.PrependInt32)


def _offsets(builder: flatbuffers.Builder, values: Sequence[int]) -> int:
    return _vector(builder, values, builder.PrependUOffsetTRelative)


def _bytes(builder: flatbuffers.Builder, data: bytes, alignment: int) -> int:
    """A vector of bytes whose first byte is aligned; the library's own aligns to 1 only."""
    builder.StartVector(1, len(data), alignment)
    builder.head = builder.Head() - len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return int(builder.EndVector())


def _buffer(builder: flatbuffers.Builder, data: bytes) -> int:
    if not data:
        return _table(builder, 3)
    return _table(builder, 3, _offset(0, _bytes(builder, data, ALIGNMENT)))


def _tensor(builder: flatbuffers.Builder, tensor: Tensor) -> int:
    name = builder.CreateString(tensor.name)
    shape = _ints(builder, tensor.shape)
    kind = TENSOR_TYPES[tensor.dtype]
    quantized = [_offset(4, _quantization(builder, tensor))] if tensor.scale else []
    return _table(
        builder,
        10,
        _offset(0, shape),
        (1, "Int8", kind),
        (2, "Uint32", tensor.buffer),
        _offset(3, name),
        *quantized,
        (8, "Bool", True),  # has_rank: an empty shape means a scalar
    )


def _quantization(builder: flatbuffers.Builder, tensor: Tensor) -> int:
    """Scales, zero points of 0 and the axis that they belong to."""
    scale = builder.CreateNumpyVector(np.array(tensor.scale, "<f4"))
    zero = builder.CreateNumpyVector(np.zeros(len(tensor.scale), "<i8"))
    axis = (6, "Int32", tensor.channel_axis)
    return _table(builder, 7, _offset(2, scale), _offset(3, zero), axis)


def _operator(builder: flatbuffers.Builder, operator: Operator) -> int:
    fields = [
        _offset(1, _ints(builder, operator.inputs)),
        _offset(2, _ints(builder, operator.outputs)),
        (0, "Uint32", operator.code),
    ]
    if operator.name in BUILTIN_OPERATORS:
        union, known = OPTIONS[operator.name]
        if union:
            values = [(*known[key], value) for key, value in operator.options.items()]
            fields += [(3, "Uint8", union), _offset(4, _table(builder, 8, *values))]
    elif operator.options:
        custom = _bytes(builder, flex_map(operator.options), ALIGNMENT)
        fields.append(_offset(5, custom))
    return _table(builder, 13, *fields)


def _operator_code(builder: flatbuffers.Builder, name: str) -> int:
    code = BUILTIN_OPERATORS.get(name, CUSTOM)
    custom = [] if name in BUILTIN_OPERATORS else [_offset(1, builder.CreateString(name))]
    # Readers from before 2020 look at slot 0, later ones at slot 3.
    return _table(builder, 4, (0, "Int8", code), *custom, (2, "Int32", 1), (3, "Int32", code))


def flex_map(values: Mapping[str, float]) -> bytes:
    """A FlexBuffer map of integers: the form of a custom operator's options."""
    builder = flexbuffers.Builder()
    with builder.Map():
        for key, value in values.items():
            builder.Key(key)
            builder.Int(int(value))
    return bytes(builder.Finish())
