"""A small, distrustful reader of TFLite flatbuffers: tensors, operators, constants.

Every offset and length is checked against the file before it is followed, and the numbers of things
are limited, so that a damaged or hostile file ends in an :class:`ExportError`. Layout as in
:mod:`frostbit.export.lce.tflite_writer`, which writes such files: a table begins with a signed
offset back to its vtable, which holds the offset of every field (0: absent); strings and vectors
begin with their length. Slots are numbered as in TensorFlow's ``schema.fbs``.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from flatbuffers import flexbuffers

from frostbit.export.errors import ExportError
from frostbit.export.lce.tflite_writer import BUILTIN_OPERATORS, CUSTOM, FILE_IDENTIFIER

MAX_ITEMS = 1 << 16
"""Tensors, operators or buffers; large networks have some thousands. Offsets may repeat, so that
a small file can state many."""
MAX_ARGUMENTS = 1 << 12
"""Tensors that one operator reads or writes: a concatenation in a DenseNet reads some dozens, one
that joins the groups of our grouped convolutions as many as there are groups."""
MAX_ALL_ARGUMENTS = 1 << 19
"""The same of all operators together."""
MAX_RANK = 16
"""Axes of a tensor; TFLite's operators know eight."""
MAX_TEXT = 256
"""Bytes of a name that are kept."""
MAX_OPTIONS = 1 << 12
"""Bytes of a custom operator's options that are kept; LCE's take about two hundred."""

FLOAT32, FLOAT16, INT32, UINT8, INT64, STRING, BOOL, INT16 = range(8)
INT8, INT4, BFLOAT16 = 9, 17, 18
TYPE_BITS = {
    FLOAT32: 32, FLOAT16: 16, INT32: 32, UINT8: 8, INT64: 64, BOOL: 8, INT16: 16, 8: 64, INT8: 8,
    10: 64, 11: 128, 12: 64, 15: 32, 16: 16, INT4: 4, BFLOAT16: 16,
}  # fmt: skip
"""Bits of an entry by TensorType; types without a fixed size (strings, handles) are left out."""

OPERATORS = {code: name for name, code in BUILTIN_OPERATORS.items()} | {
    4: "DEPTHWISE_CONV_2D", 6: "DEQUANTIZE", 14: "LOGISTIC", 16: "LSTM", 18: "MUL", 19: "RELU",
    20: "RELU_N1_TO_1", 21: "RELU6", 23: "RESIZE_BILINEAR", 24: "RNN", 25: "SOFTMAX",
    27: "SVDF", 28: "TANH", 35: "UNIDIRECTIONAL_SEQUENCE_RNN", 36: "GATHER", 39: "TRANSPOSE",
    40: "MEAN", 41: "SUB", 42: "DIV", 43: "SQUEEZE", 44: "UNIDIRECTIONAL_SEQUENCE_LSTM",
    45: "STRIDED_SLICE", 46: "BIDIRECTIONAL_SEQUENCE_RNN", 49: "SPLIT",
    52: "BIDIRECTIONAL_SEQUENCE_LSTM", 53: "CAST", 54: "PRELU", 55: "MAXIMUM", 57: "MINIMUM",
    59: "NEG", 62: "GREATER_EQUAL", 64: "SELECT", 67: "TRANSPOSE_CONV", 69: "TILE",
    70: "EXPAND_DIMS", 77: "SHAPE", 82: "REDUCE_MAX", 83: "PACK", 97: "RESIZE_NEAREST_NEIGHBOR",
    98: "LEAKY_RELU", 100: "MIRROR_PAD", 101: "ABS", 102: "SPLIT_V", 114: "QUANTIZE",
    117: "HARD_SWISH", 118: "IF", 119: "WHILE",
    123: "SELECT_V2", 124: "DENSIFY", 126: "BATCH_MATMUL", 130: "BROADCAST_TO",
    132: "CONV_3D", 141: "CONV_3D_TRANSPOSE", 150: "GELU", 158: "SIGN",
}  # fmt: skip
"""Names of the builtin operators that models commonly use, by code."""


@dataclass(frozen=True)
class Tensor:
    """One tensor.

    Attributes:
        name: as stored, cut to ``MAX_TEXT`` bytes.
        shape: as stored; the batch is usually 1.
        type: TensorType of the schema.
        buffer: index of its buffer.
        bytes: size of its constant data; 0 for a tensor that is computed.
        offset: where in the file that data lies; 0 if it is not in it.
        signature: the shape with -1 for an axis of any length; empty if all are fixed.
        quantization: scales and zero points, if its numbers stand for others; else None.
        is_sparse: whether its data holds some of its numbers only.
    """

    name: str
    shape: tuple[int, ...]
    type: int
    buffer: int
    bytes: int
    offset: int
    signature: tuple[int, ...]
    quantization: Table | None
    is_sparse: bool

    @property
    def is_quantized(self) -> bool:
        return self.quantization is not None

    @property
    def scales(self) -> int:
        """How many it has: none, one, or one a channel."""
        return 0 if self.quantization is None else self.quantization.length(2)


@dataclass(frozen=True)
class Operator:
    """One node: operator name, tensor indices (-1: absent), options.

    Attributes:
        custom_options: FlexBuffer of a custom operator.
        options_type: which table of the schema ``options`` is; 0 without.
        options: of a builtin operator.
    """

    name: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    custom_options: bytes
    options_type: int
    options: Table | None


@dataclass(frozen=True)
class Model:
    """The main graph of a file, and how many further graphs it has."""

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    further_graphs: int


def _damaged(what: str) -> ExportError:
    return ExportError(f"the TFLite file is damaged: {what}; export or download it again")


def _number(data: bytes, kind: str, at: int) -> int:
    if at < 0 or at + struct.calcsize(kind) > len(data):
        raise _damaged("an offset points outside the file")
    return int(struct.unpack_from(kind, data, at)[0])


class Table:
    """A table at a position of the file; absent fields read as 0, "" or nothing."""

    def __init__(self, data: bytes, position: int) -> None:
        self._data, self._position = data, position
        self._vtable = position - _number(data, "<i", position)
        self._size = _number(data, "<H", self._vtable)

    def place(self, slot: int) -> int | None:
        """Position of a field in the file; None if it is absent."""
        entry = 4 + 2 * slot
        if entry + 2 > self._size:
            return None
        offset = _number(self._data, "<H", self._vtable + entry)
        return self._position + offset if offset else None

    def number(self, slot: int, kind: str, default: int = 0) -> int:
        at = self.place(slot)
        return default if at is None else _number(self._data, kind, at)

    def real(self, slot: int) -> float:
        """A float32 field; 0.0 if it is absent."""
        at = self.place(slot)
        if at is None:
            return 0.0
        _number(self._data, "<I", at)  # it lies in the file
        return float(struct.unpack_from("<f", self._data, at)[0])

    def fields(self) -> set[int]:
        """Slots that are not absent."""
        return {slot for slot in range((self._size - 4) // 2) if self.place(slot) is not None}

    def table(self, slot: int) -> Table | None:
        at = self.place(slot)
        return None if at is None else Table(self._data, at + _number(self._data, "<I", at))

    def vector(self, slot: int, width: int) -> tuple[int, int]:
        """Position and length of a vector whose entries have ``width`` bytes."""
        at = self.place(slot)
        if at is None:
            return 0, 0
        start = at + _number(self._data, "<I", at)
        count = _number(self._data, "<I", start)
        if start + 4 + count * width > len(self._data):
            raise _damaged("a vector is longer than the file")
        return start + 4, count

    def length(self, slot: int) -> int:
        return self.vector(slot, 1)[1]

    def raw(self, slot: int, limit: int) -> bytes:
        """The first ``limit`` bytes of a vector of bytes."""
        start, count = self.vector(slot, 1)
        return self._data[start : start + min(count, limit)]

    def text(self, slot: int) -> str:
        return self.raw(slot, MAX_TEXT).decode("utf-8", "replace")

    def integers(self, slot: int, limit: int) -> tuple[int, ...]:
        start, count = self.vector(slot, 4)
        if count > limit:
            raise _damaged(f"a list has {count} entries, more than {limit}")
        return struct.unpack_from(f"<{count}i", self._data, start)

    def tables(self, slot: int) -> list[Table]:
        start, count = self.vector(slot, 4)
        if count > MAX_ITEMS:
            raise _damaged(f"a list has {count} entries, more than {MAX_ITEMS}")
        places = range(start, start + 4 * count, 4)
        return [Table(self._data, at + _number(self._data, "<I", at)) for at in places]


def _operator_code(code: Table) -> tuple[str, bool]:
    """Name of an operator, and whether it is a custom one."""
    number = max(code.number(0, "<b"), code.number(3, "<i"))  # two generations of the schema
    if number == CUSTOM:
        return code.text(1) or "custom", True
    return OPERATORS.get(number, f"builtin {number}"), False


def _buffer_data(buffer: Table) -> tuple[int, int]:
    """Place and size of a buffer's data; place 0 if it lies (beyond 2 GB) behind the file."""
    place, size = buffer.vector(0, 1)
    return (place, size) if size else (0, buffer.number(2, "<Q"))


def _quantization(table: Table) -> Table | None:
    parameters = table.table(4)
    return parameters if parameters is not None and parameters.length(2) > 0 else None


def _tensor(table: Table, buffers: list[tuple[int, int]]) -> Tensor:
    name, shape = table.text(3), table.integers(0, MAX_RANK)
    kind, buffer = table.number(1, "<b"), table.number(2, "<I")
    if buffer >= len(buffers) or min(shape, default=0) < 0:
        raise _damaged(f"tensor {name!r} has buffer {buffer} of {len(buffers)}, shape {shape}")
    # a variable only begins with its buffer
    offset, size = (0, 0) if table.number(5, "<?") else buffers[buffer]
    is_sparse = table.number(6, "<I") != 0
    if size and not is_sparse and kind in TYPE_BITS:
        bits = TYPE_BITS[kind]
        for length in shape:
            bits *= length
        if size != -(-bits // 8):
            raise _damaged(f"tensor {name!r} holds {size} bytes, its shape {list(shape)} does not")
    return Tensor(
        name, shape, kind, buffer, size, offset, table.integers(7, MAX_RANK), _quantization(table),
        is_sparse,
    )  # fmt: skip


def _operator(table: Table, codes: list[tuple[str, bool]], tensors: int) -> Operator:
    code = table.number(0, "<I")
    if code >= len(codes):
        raise _damaged(f"an operator has code {code} of {len(codes)}")
    name, is_custom = codes[code]
    inputs, outputs = table.integers(1, MAX_ARGUMENTS), table.integers(2, MAX_ARGUMENTS)
    for index in (*inputs, *outputs):
        if not -1 <= index < tensors:
            raise _damaged(f"operator {name!r} reads tensor {index} of {tensors}")
    if not outputs or min(outputs) < 0:
        raise _damaged(f"operator {name!r} has no output")
    kind, options = table.number(3, "<B"), table.table(4)
    return Operator(name, is_custom, inputs, outputs, table.raw(5, MAX_OPTIONS), kind, options)


def _operators(
    tables: list[Table], codes: list[tuple[str, bool]], tensors: int
) -> tuple[Operator, ...]:
    found, left = [], MAX_ALL_ARGUMENTS
    for table in tables:
        found.append(_operator(table, codes, tensors))
        left -= len(found[-1].inputs) + len(found[-1].outputs)
        if left < 0:
            raise _damaged(f"its operators read and write more than {MAX_ALL_ARGUMENTS:,} tensors")
    return tuple(found)


def root_table(data: bytes) -> Table:
    """The table that all else hangs on; ExportError if ``data`` is not TFLite."""
    if data[4:8] != FILE_IDENTIFIER:
        raise ExportError("not a TFLite file (no TFL3 mark at its beginning)")
    return Table(data, _number(data, "<I", 0))


def read(data: bytes) -> Model:
    """Tensors and operators of the bytes of a .tflite file.

    Raises:
        ExportError: it is not TFLite, or it is damaged; the text says how.
    """
    root = root_table(data)
    graphs = root.tables(2)
    if not graphs:
        raise _damaged("it holds no graph")
    buffers = [_buffer_data(buffer) for buffer in root.tables(4)]
    codes = [_operator_code(code) for code in root.tables(1)]
    tensors = tuple(_tensor(table, buffers) for table in graphs[0].tables(0))
    operators = _operators(graphs[0].tables(3), codes, len(tensors))
    inputs, outputs = (graphs[0].integers(slot, MAX_ARGUMENTS) for slot in (1, 2))
    if not all(0 <= index < len(tensors) for index in (*inputs, *outputs)):
        raise _damaged("the graph's inputs or outputs are no tensors")
    return Model(inputs, outputs, tensors, operators, len(graphs) - 1)


def custom_options(operator: Operator) -> dict[str, int]:
    """Options of a custom operator: a FlexBuffer map of integers; ExportError if it is not one."""
    problem = _damaged(f"operator {operator.name!r} has no readable options")
    data = operator.custom_options
    if len(data) < 3:
        raise problem
    try:
        found = flexbuffers.GetRoot(data).AsMap
        if len(found) > MAX_ARGUMENTS:
            raise problem
        keys = [key.AsKey for key in found.Keys]
        if not all(found[key].IsInt or found[key].IsBool for key in keys):
            raise problem
        return {key: int(found[key].AsInt) for key in keys}
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise problem from error


def custom_option(operator: Operator, key: str) -> int:
    """One integer of a custom operator's options (a FlexBuffer map); ExportError if not there."""
    problem = _damaged(f"operator {operator.name!r} has no readable option {key!r}")
    data = operator.custom_options
    if len(data) < 3:
        raise problem
    try:
        return int(flexbuffers.GetRoot(data).AsMap[key].AsInt)
    except (ValueError, KeyError, IndexError, TypeError, OverflowError, struct.error) as error:
        raise problem from error
