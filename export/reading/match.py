"""The Program of a graph: every node one op, its values numbers or bits as they turn out to be."""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from frostbit.export.reading.averages import Total
from frostbit.export.reading.graph import (
    F32,
    Add,
    AvgPool,
    BitConv,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    Graph,
    MaxPool,
    Mul,
    Node,
    Pad,
    PRelu,
    Quantize,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    refused,
)
from frostbit.export.reading.imported import Imported, Restored
from frostbit.export.reading.normalise import Nodes, normalise
from frostbit.kernels.ir import bits, program
from frostbit.kernels.ir.program import INPUT, Affine, FormatError, Program, ValueType, Window
from frostbit.kernels.ir.verify import infer_types, output_type, verify

_MOST_NAME = 120
"""Characters of an op's name: those of a file are whole paths, joined by semicolons."""

MOST_NUMBERS = 1 << 28
"""Of all maps for one image, a GiB; a comparison holds them all. A DenseNet has a tenth."""


def to_program(graph: Graph, logits: bool = False) -> Imported:
    """Match ``graph`` with the ops of a Program.

    Args:
        graph: of a front end.
        logits: leave out a final softmax.

    Raises:
        FormatError: what no Program can say, by layer.
    """
    nodes = normalise(graph)
    notes = list(graph.notes)
    if logits and isinstance(nodes[-1], Softmax) and len(nodes) > 1:
        nodes = nodes[:-1]
        notes.append("the final softmax is left out: the answers are logits")
    elif logits:
        notes.append("there is no final softmax to leave out")
    emitter = _Emitter(graph, nodes)
    for node in nodes:
        emitter.emit(node)
    made = emitter.program()
    verify(made)
    sizes = [np.prod(value.shape, dtype=object) for value in infer_types(made).values()]
    if sum(sizes) > MOST_NUMBERS:
        raise FormatError(f"its maps have {sum(sizes):,} numbers, more than {MOST_NUMBERS:,}")
    return Imported(
        made, graph.kind, tuple(notes), tuple(emitter.restored), dict(emitter.source_names),
        dict(emitter.orders),
    )  # fmt: skip


def _readable(name: str, taken: set[str]) -> str:
    """An op's name from a source's: its first path, letters and digits, not in ``taken``."""
    first = name.split(";")[0].strip("/")
    clean = re.sub(r"[^A-Za-z0-9_]+", ".", first).strip(".")[-_MOST_NAME:] or "op"
    found, number = clean, 2
    while found in taken:
        found, number = f"{clean}.{number}", number + 1
    return found


def _sizes(weights: F32) -> F32 | None:
    """c of each row if all its weights are +-c (or all 0), float32 ``[O]``; else None."""
    size = np.abs(weights.reshape(len(weights), -1))
    return size[:, 0].copy() if (size == size[:, :1]).all() else None


class _Emitter:
    """Adds ops in execution order; knows the type of every value."""

    def __init__(self, graph: Graph, nodes: Nodes) -> None:
        self._graph, self._last = graph, nodes[-1]
        self._ops: list[program.Op] = []
        self._types = {INPUT: ValueType(graph.takes, graph.shape)}
        self._values = {graph.input: INPUT}
        self._as_floats: dict[str, str] = {}
        self.restored: list[Restored] = []
        self.source_names: dict[str, str] = {}
        self.orders: dict[str, NDArray[np.intp]] = {}

    def _add(self, op: program.Op, layer: str) -> str:
        try:
            sources = tuple(self._types[name] for name in op.inputs)
            self._types[op.name] = output_type(op, sources)
        except FormatError as error:
            raise refused(layer, str(error)) from error
        self._ops.append(op)
        return op.name

    def _name(self, wanted: str) -> str:
        return _readable(wanted, set(self._types))

    def _is_bits(self, value: str) -> bool:
        return self._types[self._values[value]].kind == "bits"

    def _floats(self, value: str, layer: str) -> str:
        """The op whose value is ``value`` as numbers; signs and pixels become some once."""
        op = self._values[value]
        if self._types[op].kind == "f32":
            return op
        if op not in self._as_floats:
            name = self._name(f"{op}.numbers")
            made: program.Op = program.ToFloat(name, (op,))
            if self._types[op].kind == "u8":
                channels = self._types[op].shape[2]
                one, zero = np.ones(channels, np.float32), np.zeros(channels, np.float32)
                made = program.Scale(name, (op,), one, zero)
            self._as_floats[op] = self._add(made, layer)
        return self._as_floats[op]

    def emit(self, node: Node) -> None:
        """Add the op of one node."""
        name = self._name(node.name)
        self._values[node.name] = self._add(self._op(node, name), node.layer)
        if not node.is_inner:
            self.source_names[name] = node.name
            if node.order is not None:
                self.orders[name] = node.order

    def _op(self, node: Node, name: str) -> program.Op:
        as_is = tuple(self._values[value] for value in node.inputs)
        match node:
            case BitConv():
                return program.BinaryConv(
                    name, as_is, node.window, node.words, node.channels_in, node.groups,
                    node.pad_value, node.epilogue,
                )  # fmt: skip
            case Conv():
                return self._conv(node, name, as_is)
            case Dense() if self._is_bits(node.inputs[0]) and _sizes(node.weights) is not None:
                kernel = node.weights[:, np.newaxis, np.newaxis, :]
                conv = Conv(
                    name=node.name, inputs=node.inputs, layer=node.layer,
                    window=Window((1, 1)), weights=kernel, add=node.add,
                )  # fmt: skip
                return self._conv(conv, name, as_is)
            case Scale() if as_is == (INPUT,):
                return program.Scale(name, as_is, node.mul, node.add)
        return self._moved(node, name)

    def _moved(self, node: Node, name: str) -> program.Op:
        """What takes bits and numbers alike, and pixels as numbers."""
        is_pixels = (self._types[self._values[each]].kind == "u8" for each in node.inputs)
        as_is = tuple(
            self._floats(each, node.layer) if pixels else self._values[each]
            for each, pixels in zip(node.inputs, is_pixels, strict=True)
        )
        match node:
            case MaxPool():
                return program.MaxPool(name, as_is, node.window)
            case Slice():
                return program.Slice(name, as_is, node.start, node.stop)
            case Flatten():
                return program.Flatten(name, as_is)
            case Total():
                return program.GlobalSum(name, as_is)
            case Concat() if all(self._is_bits(value) for value in node.inputs):
                return program.Concat(name, as_is)
        return self._float_op(node, name)

    def _float_op(self, node: Node, name: str) -> program.Op:
        inputs = tuple(self._floats(value, node.layer) for value in node.inputs)
        match node:
            case Sign():
                return program.Sign(name, inputs)
            case Concat():
                return program.Concat(name, inputs)
            case Add():
                return program.Add(name, inputs)
            case Mul():
                sizes = [self._types[value].shape for value in inputs]
                ordered = inputs if np.prod(sizes[0]) >= np.prod(sizes[1]) else inputs[::-1]
                return program.Mul(name, ordered)
            case Scale():
                return program.Scale(name, inputs, node.mul, node.add)
            case Clip():
                return program.Clip(name, inputs, node.low, node.high)
            case PRelu():
                return program.PRelu(name, inputs, node.slope)
            case Quantize():
                return program.Quantize(name, inputs, node.step, node.low, node.high)
            case Sigmoid():
                return program.Sigmoid(name, inputs)
            case Softmax():
                return program.Softmax(name, inputs)
            case AvgPool():
                return program.AvgPool(name, inputs, node.window)
            case Pad():
                return program.Pad(name, inputs, node.pads, node.channels)
            case Dense():
                return program.Dense(name, inputs, _plain(node.weights), _plain(node.add))
        raise TypeError(f"no op for {type(node).__name__}")

    def _conv(self, node: Conv, name: str, inputs: tuple[str, ...]) -> program.Op:
        """A convolution, of one bit where signs meet weights of +-c."""
        size = _sizes(node.weights) if self._is_bits(node.inputs[0]) else None
        channels = node.weights.shape[3]
        if size is None and node.pad_value:
            raise refused(node.layer, "padding with 1 beside weights that are not +-c")
        if size is None:
            pad_value = np.zeros(channels * node.groups, np.uint8)
            pad_value = pad_value if node.frame is None else node.frame
            return program.Conv(
                name, inputs, node.window, _plain(node.weights), _plain(node.add), pad_value,
                node.groups,
            )  # fmt: skip
        words = bits.pack(node.weights)
        stored = len(words) * -(-node.weights[0].size // 8)  # a row of bits per output
        self.restored.append(Restored(node.layer, node.weights.size, node.weights.nbytes, stored))
        epilogue = Affine(_plain(size), _plain(node.add))
        return program.BinaryConv(
            name, inputs, node.window, words, channels, node.groups, node.pad_value, epilogue
        )

    def program(self) -> Program:
        """The Program of all that was added."""
        last = self._floats(self._last.name, self._last.layer)
        shape = self._types[last].shape
        if shape[:2] != (1, 1):
            raise refused(
                self._last.layer, f"the answer is a map {list(shape)}, not one row of numbers"
            )
        classes = tuple(str(number) for number in range(shape[2]))
        return Program(
            self._graph.shape, tuple(self._ops), "", classes, input_kind=self._graph.takes,
            preprocessing=self._graph.preprocessing,
        )  # fmt: skip


def _plain(array: NDArray[np.float32]) -> F32:
    """In the machine's own order of bytes and of axes."""
    return np.ascontiguousarray(array, np.float32)
