"""Summary of any ONNX file: ours, plain float ones, quantized ones (QDQ or QLinear), QONNX.

Two things are recognised beyond what types say:

* *Packed weights*: a ``Gather`` of stored bytes in a 256 x 8 table of two opposite numbers, or in
  what one operator makes of such a table (a ``Cast`` of int8), with reshapes, slices and transposes
  behind it (the form of :mod:`frostbit.export.onnx.packed`). The weight has as many 1-bit
  parameters as entries; its bytes are the stored ones. What QONNX's quantizers (``Quant``,
  ``BipolarQuant`` and their like) make of a stored array has parameters of their bits, in as many
  bytes as the file takes; their scales are parameters of their own.
* *Signs*: ``Where`` between +1 and -1; ``BipolarQuant``; and ``Clip(-1, 1)`` of a
  convolution of signs with packed weights +-2 and an odd bias, which is odd, so never between.
  They stay signs through everything that moves values about.

In the int8 form of :mod:`frostbit.export.onnx.int8` the weights are recognised; its codes 0 and 2
are what they say they are, 8-bit numbers, and so are the MACs. The form with plain +-1 floats has
32-bit parameters and MACs, as any other file of floats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto

from frostbit.export.onnx.quantizers import DOMAINS, is_quantizer, quantized_bits
from frostbit.export.onnx.reader import TYPE_BITS, Graph, Stored, read
from frostbit.export.summary import Layer, Summary, by_layer, product, readable

_KNOWN_DOMAINS = {"", "ai.onnx", *DOMAINS}

_PLUMBING = {TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING}
"""Types of shapes, axes and masks; nobody stores weights in them."""

_MAY_BE_SINGLE = {"Add", "BatchNormalization", "Conv", "ConvTranspose", "Gemm", "MatMul", "Mul"}
"""Operators for which an array with one entry may be the parameter of a single channel."""

_TABLE = (256, 8)

_MOVES = {
    "Cast", "DepthToSpace", "DequantizeLinear", "Dropout", "Expand", "Flatten", "GlobalMaxPool",
    "Identity", "MaxPool", "QuantizeLinear", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Tile", "Transpose", "Unsqueeze",
}  # fmt: skip
"""Operators whose output holds no more information than their first input."""

_FACTORS = {
    "Conv": (0, 1), "ConvInteger": (0, 1), "QLinearConv": (0, 3), "ConvTranspose": (0, 1),
    "Gemm": (0, 1), "MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3),
}  # fmt: skip
"""Operators whose multiply-accumulates are counted, and which inputs are multiplied."""

_NOT_COUNTED = {
    "Attention", "Einsum", "GRU", "If", "LSTM", "Loop", "RNN", "Scan", "DeformConv"
}  # fmt: skip


def _kind(node: onnx.NodeProto) -> str:
    """Operator type; with its domain if that is none we know."""
    return node.op_type if node.domain in _KNOWN_DOMAINS else f"{node.domain}.{node.op_type}"


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


class _Reader:
    """Walks the nodes in order and keeps what is known of every value."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._made_of: dict[str, list[str]] = {}  # constant value -> what it is computed from
        self._packed: dict[str, float] = {}  # weight of +-magnitude -> magnitude
        self._holders: dict[str, str] = {}  # weight of few bits -> stored array that holds them
        self._bits: dict[str, int] = {}
        self._makers: dict[str, onnx.NodeProto] = {}
        self._counted: set[str] = set()
        self.open: list[str] = []
        """Names of nodes whose MACs are unknown because the file leaves a shape open."""

    def _is_constant(self, name: str) -> bool:
        return name in self._graph.stored or name in self._made_of

    def _precision(self, name: str) -> int:
        return self._bits.get(name, TYPE_BITS.get(self._graph.types.get(name, 0), 32))

    def _scalar(self, node: onnx.NodeProto, position: int) -> float | None:
        """Value of a constant input with one entry; None if it is anything else."""
        name = node.input[position] if position < len(node.input) else ""
        value = self._graph.values.get(name)
        if value is None or value.size != 1 or value.dtype.kind not in "fiu":
            return None
        return float(value.reshape(())[()])

    def _table_magnitude(self, node: onnx.NodeProto) -> float | None:
        """Magnitude of packed weights that a ``Gather`` unpacks; None if it does not."""
        source = self._made_of.get(node.input[0], [node.input[0]])  # a table of int8 may be cast
        table = self._graph.values.get(source[0]) if len(source) == 1 else None
        if table is None or table.shape != _TABLE or table.dtype.kind not in "fi":
            return None
        magnitude = float(table.max())
        opposite = magnitude > 0 and bool((np.abs(table) == magnitude).all())
        stored = self._made_of.get(node.input[1], [node.input[1]])
        is_bytes = len(stored) == 1 and self._graph.types.get(stored[0]) == TensorProto.UINT8
        return magnitude if opposite and is_bytes else None

    def _is_threshold(self, node: onnx.NodeProto) -> bool:
        """Whether ``node`` is a ``Clip`` of an odd number to -1 .. 1; see the module's text."""
        conv = self._makers.get(node.input[0])
        if self._scalar(node, 1) != -1 or self._scalar(node, 2) != 1 or conv is None:
            return False
        if _kind(conv) != "Conv" or len(conv.input) != 3:
            return False
        is_even = self._packed.get(conv.input[1]) == 2 and self._precision(conv.input[0]) == 1
        bias = self._graph.values.get(conv.input[2])
        if not is_even or bias is None or bias.dtype.kind != "f" or not np.isfinite(bias).all():
            return False
        return bool((np.abs(bias) % 2 == 1).all())

    def _sign_bits(self, node: onnx.NodeProto) -> int | None:
        """Precision of what ``node`` makes, where its type says too much."""
        kind, inputs = _kind(node), node.input
        if is_quantizer(node):
            return quantized_bits(node, self._graph.values)
        if kind in _MOVES and inputs:
            return min(self._precision(inputs[0]), self._typed_bits(node))
        if kind == "Concat":
            return max(self._precision(name) for name in inputs)
        if kind == "Clip" and inputs and self._is_threshold(node):
            return 1
        if kind == "Where":
            a, b = self._scalar(node, 1), self._scalar(node, 2)
            return 1 if {a, b} == {1, -1} else None
        if kind == "Pad" and inputs:
            return self._padded_bits(node)
        if kind == "Mul" and self._is_scaled(node):
            return self._precision(inputs[0])
        return None

    def _is_scaled(self, node: onnx.NodeProto) -> bool:
        """Whether ``node`` multiplies stored whole numbers by a factor per output channel."""
        if len(node.input) != 2 or not all(map(self._is_constant, node.input)):
            return False
        whole, scale = (self._graph.shapes.get(name) for name in node.input)
        is_whole = self._graph.types.get(self._holder(node.input[0])) == TensorProto.INT8
        return is_whole and bool(whole and scale) and product(scale or ()) == (whole or (0,))[0]

    def _typed_bits(self, node: onnx.NodeProto) -> int:
        return TYPE_BITS.get(self._graph.types.get(node.output[0], 0), 32)

    def _padded_bits(self, node: onnx.NodeProto) -> int | None:
        """Signs padded with a sign stay signs, pixels padded with a pixel stay pixels."""
        bits, value = self._precision(node.input[0]), self._scalar(node, 2)
        if value is None:
            return None
        fits = abs(value) == 1 if bits == 1 else value in range(256)
        return bits if bits <= 8 and fits else None

    def _note_output(self, node: onnx.NodeProto) -> None:
        """Precision of the outputs, and whether they are weights of fewer bits than stored."""
        bits = self._sign_bits(node)
        if bits is not None:
            self._bits.update(dict.fromkeys(node.output, bits))
        self._makers.update(dict.fromkeys(node.output, node))
        output = node.output[0]
        if not self._is_constant(output):
            return
        if _kind(node) in _MOVES and node.input[0] in self._holders:
            self._holders[output] = self._holders[node.input[0]]
            if node.input[0] in self._packed:
                self._packed[output] = self._packed[node.input[0]]
        elif is_quantizer(node) and bits is not None:
            self._holders[output] = self._holder(node.input[0])
        elif _kind(node) == "Gather" and len(node.input) == 2:
            magnitude = self._table_magnitude(node)
            if magnitude is not None:
                self._packed[output], self._bits[output] = magnitude, 1
                self._holders[output] = self._holder(node.input[1])

    def _holder(self, name: str) -> str:
        """The stored array that a constant value is made of in the first place."""
        while name not in self._graph.stored and self._made_of.get(name):
            name = self._made_of[name][0]
        return name

    def _arrays(self, name: str) -> list[str]:
        """Stored arrays behind a constant value that no earlier node has counted."""
        found, waiting = [], [name]
        while waiting:
            name = waiting.pop()
            if name in self._counted:
                continue
            self._counted.add(name)
            if name in self._graph.stored:
                found.append(name)
            waiting += self._made_of.get(name, [])
        return found

    def _is_parameter(self, array: Stored, node: onnx.NodeProto) -> bool:
        """Whether an array that ``node`` reads is more than plumbing."""
        if not array.shape or array.type in _PLUMBING or array.shape == _TABLE:
            return False
        return product(array.shape) > 1 or _kind(node) in _MAY_BE_SINGLE

    def _parameters(self, node: onnx.NodeProto) -> tuple[dict[int, int], int]:
        """Parameters by bits, and their bytes in the file."""
        constants = [name for name in dict.fromkeys(node.input) if self._is_constant(name)]
        if not constants:
            return {}, 0
        counts: Counter[int] = Counter()
        size = 0
        for name in constants:
            holder = None if name in self._counted else self._holders.get(name)
            if holder is not None:
                counts[self._bits[name]] += product(self._graph.shapes.get(name) or ())
            for each in self._arrays(name):
                array = self._graph.stored[each]
                if not self._is_parameter(array, node):
                    continue
                size += array.bytes
                if each != holder:
                    counts[TYPE_BITS.get(array.type, 8)] += product(array.shape)
        return dict(counts), size

    def _mac_count(self, node: onnx.NodeProto, factors: Sequence[str]) -> int | None:
        """Multiply-accumulates of a node of ``_FACTORS``; None if a shape is open."""
        output = self._graph.shapes.get(node.output[0])
        source, weights = (self._graph.shapes.get(name) for name in factors)
        if output is None or source is None or weights is None or not source or not weights:
            return None
        if node.op_type == "ConvTranspose":
            return product(source) * product(weights[1:])
        if "Conv" in node.op_type:
            return product(output) * product(weights[1:])
        if node.op_type == "Gemm" and _attribute(node, "transA", 0):
            return product(output) * source[0]
        return product(output) * source[-1]

    def _macs(self, node: onnx.NodeProto, name: str) -> dict[int, int]:
        places = _FACTORS.get(_kind(node))
        if places is None or len(node.input) <= max(places):
            return {}
        factors = [node.input[place] for place in places]
        count = self._mac_count(node, factors)
        if count is None:
            self.open.append(name)
            return {}
        return {max(self._precision(factor) for factor in factors): count} if count else {}

    def row(self, node: onnx.NodeProto, name: str) -> Layer | None:
        """Account for one node; None if it works on constants alone or gives nothing."""
        inputs = [each for each in node.input if each]
        if not node.output:
            return None
        if inputs and all(map(self._is_constant, inputs)):
            for output in node.output:
                self._made_of[output] = inputs
            self._note_output(node)
            return None
        self._note_output(node)
        moving = [self._precision(each) for each in inputs if not self._is_constant(each)]
        parameters, size = self._parameters(node)
        shape = self._graph.shapes.get(node.output[0])
        if shape is not None and len(shape) > 1:
            shape = shape[1:]
        width, macs = max(moving, default=None), self._macs(node, name)
        return Layer(name, _kind(node), width, shape, parameters, size, macs)


def _names(nodes: Sequence[onnx.NodeProto]) -> list[str]:
    """One unique name per node: its own, or that of its output."""
    count = Counter(node.name for node in nodes)
    return [
        node.name
        if node.name and count[node.name] == 1
        else (node.output[0] if node.output else f"{node.op_type} {index}")
        for index, node in enumerate(nodes)
    ]


def _notes(graph: Graph, opened: Sequence[str]) -> list[str]:
    """Notes on operators and nodes whose MACs are not known."""
    names = {
        _kind(node)
        for node in graph.nodes
        if node.op_type in _NOT_COUNTED or node.domain not in _KNOWN_DOMAINS
    }
    notes = []
    if names:
        listed = ", ".join(readable(name) for name in sorted(names))
        notes.append(f"MACs inside these operators are not counted: {listed}")
    if opened:
        notes.append(
            f"MACs of {len(opened)} layers are not counted, first '{readable(opened[0])}': the "
            "file leaves the size of their maps open"
        )
    return notes


def summarise_onnx(data: bytes, *, follow: bool = True) -> Summary:
    """Summary of the bytes of an ONNX file; for one from outside: :mod:`frostbit.export.bounded`.

    Args:
        data: the file.
        follow: as in :func:`frostbit.export.onnx.reader.read`.

    Raises:
        ExportError: it is not ONNX, or not well formed; the text says how.
    """
    graph = read(data, follow=follow)
    reader = _Reader(graph)
    names = _names(graph.nodes)
    rows = [reader.row(node, name) for node, name in zip(graph.nodes, names, strict=True)]
    layers = by_layer([row for row in rows if row is not None])
    return Summary("ONNX", len(data), layers, (*graph.notes, *_notes(graph, reader.open)))
