"""A reader of ONNX files for accounting: nodes, types, shapes and small arrays; nothing is run.

Arrays of more than ``MAX_READ`` numbers are described but not looked at: shape inference sees
them as inputs, so external data need not be there and size is no matter. What inference itself
may take is not limited here: :mod:`frostbit.export.bounded` reads files from outside. A batch axis
without a size is taken as 1. ``Constant`` nodes count as stored arrays. The bodies of functions,
loops and branches are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from frostbit.export.errors import ExportError
from frostbit.export.onnx.quantizers import is_quantizer
from frostbit.export.summary import product, readable

MAX_READ = 1 << 16
"""Numbers in an array that is looked at; scales, tables and shapes have fewer."""
MAX_RANK = 16
"""Axes of a map; no operator of a network has more than eight."""
MAX_NODES = 1 << 18
"""Operators; unrolled language models have some ten thousands."""

TYPE_BITS: dict[int, int] = {
    TensorProto.FLOAT: 32, TensorProto.UINT8: 8, TensorProto.INT8: 8, TensorProto.UINT16: 16,
    TensorProto.INT16: 16, TensorProto.INT32: 32, TensorProto.INT64: 64, TensorProto.BOOL: 1,
    TensorProto.FLOAT16: 16, TensorProto.DOUBLE: 64, TensorProto.UINT32: 32,
    TensorProto.UINT64: 64, TensorProto.BFLOAT16: 16, TensorProto.UINT4: 4, TensorProto.INT4: 4,
    TensorProto.FLOAT8E4M3FN: 8, TensorProto.FLOAT8E4M3FNUZ: 8, TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
}  # fmt: skip
"""Bits of information in an entry, by element type."""

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Stored:
    """One array of the file: element type and shape."""

    type: int
    shape: Shape

    @property
    def bytes(self) -> int:
        """Size of the data in the file."""
        width = 8 if self.type == TensorProto.BOOL else TYPE_BITS.get(self.type, 8)
        return -(-width * product(self.shape) // 8)


@dataclass(frozen=True, eq=False)
class Graph:
    """The main graph of a file.

    Attributes:
        nodes: in execution order, ``Constant`` nodes taken out.
        stored: every array of the file by name.
        values: those of them that are small, read.
        types: element type of every value that has one.
        shapes: shape of every value, None where the file leaves an axis open.
        notes: what a reader of figures must know, one line each.
    """

    nodes: tuple[onnx.NodeProto, ...]
    stored: dict[str, Stored]
    values: dict[str, NDArray[np.generic]]
    types: dict[str, int]
    shapes: dict[str, Shape | None]
    notes: tuple[str, ...]


def _values(tensor: onnx.TensorProto) -> NDArray[np.generic] | None:
    """A small array of the file; None if it is large, kept elsewhere or damaged."""
    if tensor.data_location == TensorProto.EXTERNAL or product(tensor.dims) > MAX_READ:
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError, KeyError):
        return None


def _described(tensor: onnx.TensorProto) -> Stored:
    """Type and shape of an array of the file; ExportError if its data does not fit them."""
    if tensor.data_type not in TensorProto.DataType.values() or not tensor.data_type:
        raise ExportError(
            f"the ONNX file is damaged: '{readable(tensor.name)}' has no known type of data"
        )
    array = Stored(tensor.data_type, tuple(tensor.dims))
    has_size = tensor.HasField("raw_data") and array.type in TYPE_BITS
    if min(array.shape, default=0) < 0 or (has_size and len(tensor.raw_data) != array.bytes):
        raise ExportError(
            f"the ONNX file is damaged: the data of '{readable(tensor.name)}' does not fit its "
            "shape"
        )
    return array


def _known_shape(info: onnx.ValueInfoProto) -> Shape | None:
    """Shape if every axis has a size, else None."""
    kind = info.type.tensor_type
    if not kind.HasField("shape"):
        return None
    sizes = [axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim]
    return tuple(sizes) if min(sizes, default=0) >= 0 else None


def _check_names(graph: onnx.GraphProto) -> None:
    """ExportError unless every name is text: protobuf gives bytes where it is not UTF-8."""
    names = [t.name for t in (*graph.initializer, *graph.input, *graph.output, *graph.value_info)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
    if not all(isinstance(name, str) for name in names):
        raise ExportError("the ONNX file is damaged: a name in it is not UTF-8")


def _take_constant_nodes(graph: onnx.GraphProto) -> None:
    """Turn ``Constant`` nodes that hold an array into initializers."""
    if all(node.op_type != "Constant" for node in graph.node):
        return
    kept = onnx.GraphProto()
    for node in graph.node:
        value = [a.t for a in node.attribute if a.name == "value" and a.HasField("t")]
        if node.op_type == "Constant" and len(value) == 1 and len(node.output) == 1:
            graph.initializer.add().CopyFrom(value[0])
            graph.initializer[-1].name = node.output[0]
        else:
            kept.node.append(node)
    del graph.node[:]
    graph.node.extend(kept.node)


def _hide_arrays(graph: onnx.GraphProto) -> dict[str, Stored]:
    """Describe every initializer; make inputs of those too large to look at."""
    stored = {t.name: _described(t) for t in graph.initializer}
    small = onnx.GraphProto()
    small.initializer.extend(t for t in graph.initializer if _values(t) is not None)
    del graph.initializer[:]
    graph.initializer.extend(small.initializer)
    present = {t.name for t in small.initializer} | {info.name for info in graph.input}
    for name, array in stored.items():
        if name not in present:
            info = helper.make_tensor_value_info(name, array.type, array.shape)
            graph.input.append(info)
    return stored


def _one_image(graph: onnx.GraphProto, stored: dict[str, Stored]) -> list[str]:
    """Give open batch axes the size 1; returns notes on what stays."""
    fixed = set()
    for info in graph.input:
        axes = info.type.tensor_type.shape.dim
        if info.name in stored or len(axes) < 2:
            continue
        if not axes[0].HasField("dim_value"):
            axes[0].dim_value = 1
        fixed.add(axes[0].dim_value)
    if fixed <= {1}:
        return []
    return [f"MACs are for a batch of {max(fixed)}, as the file says"]


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return readable(lines[0]) if lines else type(error).__name__


def _passing(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which quantizers, which inference does not know, pass on what they are given."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for node in filter(is_quantizer, copy.graph.node):
        node.op_type, node.domain = "Identity", ""
        del node.input[1:], node.attribute[:]
    return copy


def _inferred(model: onnx.ModelProto, follow: bool) -> onnx.GraphProto:
    """The graph with the shapes of its values; ExportError if it is not well formed."""
    try:
        onnx.checker.check_model(model)
        return shape_inference.infer_shapes(_passing(model), data_prop=follow).graph
    except (
        onnx.checker.ValidationError,
        shape_inference.InferenceError,
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:
        raise ExportError(f"not a well-formed ONNX model: {_first_line(error)}") from error


def _read(
    model: onnx.ModelProto, stored: dict[str, Stored], notes: list[str], follow: bool
) -> Graph:
    graph = _inferred(model, follow)
    types = {name: array.type for name, array in stored.items()}
    shapes: dict[str, Shape | None] = {name: array.shape for name, array in stored.items()}
    for info in (*graph.input, *graph.value_info, *graph.output):
        types[info.name] = info.type.tensor_type.elem_type
        shapes[info.name] = _known_shape(info)
    deepest = max(map(len, filter(None, shapes.values())), default=0)
    if deepest > MAX_RANK:
        raise ExportError(f"a map of the ONNX file has {deepest:,} axes, more than {MAX_RANK}")
    values = {t.name: v for t in graph.initializer if (v := _values(t)) is not None}
    return Graph(tuple(model.graph.node), stored, values, types, shapes, tuple(notes))


def read(data: bytes, *, follow: bool = True) -> Graph:
    """The main graph of the bytes of an ONNX file, with the shapes of its values.

    Args:
        data: the file.
        follow: also follow the entries of shapes that the network computes. A small file can make
            them many: for files from outside there is :mod:`frostbit.export.bounded`.

    Raises:
        ExportError: it is not ONNX, or not well formed; the text says how.
    """
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ExportError("not an ONNX file, or damaged: it cannot be parsed") from error
    if not model.graph.node:
        raise ExportError("not an ONNX file: it holds no graph")
    if len(model.graph.node) > MAX_NODES:
        raise ExportError(
            f"the ONNX file has {len(model.graph.node):,} operators, more than {MAX_NODES:,}"
        )
    del model.functions[:]
    if model.ir_version == 3:  # 4 differs in this alone: an array need not be an input
        model.ir_version = 4
    _check_names(model.graph)
    _take_constant_nodes(model.graph)
    stored = _hide_arrays(model.graph)
    notes = _one_image(model.graph, stored)
    return _read(model, stored, notes, follow)
