"""A .onnx file from outside: parsed, its operators in order, its arrays when they are asked for.

Nothing is run and no shape is inferred here. What cannot be a network of one input and one output
is refused, and so is what hides numbers or operators elsewhere: functions, branches and loops,
sparse arrays, external data outside the file's folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from frostbit.export.onnx.quantizers import DOMAINS
from frostbit.export.reading.graph import refused
from frostbit.export.summary import product, readable
from frostbit.kernels.ir.program import MAX_ELEMENTS, FormatError

Array = NDArray[np.generic]
STANDARD = ("", "ai.onnx")
"""Names of ONNX's own operators' domain."""
OPSETS, QONNX_OPSETS = range(7, 29), range(1, 3)
"""Versions whose operators are known: ONNX's, and QONNX's."""
MAX_NODES = 1 << 14
"""Operators; those that unpack weights come beside those that a Program has."""
_NUMBERS = {
    TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL,
    TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64,
    TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64,
}  # fmt: skip
_PLAIN = {
    AttributeProto.INT, AttributeProto.INTS, AttributeProto.FLOAT, AttributeProto.FLOATS,
    AttributeProto.STRING, AttributeProto.TENSOR,
}  # fmt: skip


def layer_of(node: onnx.NodeProto) -> str:
    """What an error calls an operator: its kind and name, or that of its result."""
    name = node.name or next(iter(node.output), "")
    return f"{readable(node.op_type)} '{readable(name)}'"


@dataclass(frozen=True, eq=False)
class Source:
    """A file of one input and one output.

    Attributes:
        model: as parsed.
        nodes: those that the output needs, in execution order.
        arrays: every stored array by name.
        input: the one that is no array.
        output: name of the answer.
        opset: version of ONNX's operators.
        folder: of the file, for external data; None if it was no file.
        bytes: size of the file and of the external data that it names.
    """

    model: onnx.ModelProto
    nodes: tuple[onnx.NodeProto, ...]
    arrays: dict[str, onnx.TensorProto]
    input: onnx.ValueInfoProto
    output: str
    opset: int
    folder: Path | None
    bytes: int

    def array(self, tensor: onnx.TensorProto, layer: str) -> Array:
        """The numbers of a stored array; FormatError, by ``layer``, if they are not there."""
        name = readable(tensor.name)
        if tensor.data_type not in _NUMBERS:
            raise refused(layer, f"the array '{name}' holds no numbers of a type known here")
        if min(tensor.dims, default=1) < 0 or product(tensor.dims) > MAX_ELEMENTS:
            raise refused(layer, f"the array '{name}' has an impossible shape {list(tensor.dims)}")
        try:
            if tensor.data_location == TensorProto.EXTERNAL:
                tensor = _loaded(tensor, self.folder, layer)
            return numpy_helper.to_array(tensor)
        except FormatError:
            raise
        except (ValueError, TypeError, KeyError) as error:
            raise refused(layer, f"the data of '{name}' do not fit its shape") from error


def _external(tensor: onnx.TensorProto, folder: Path | None, layer: str) -> tuple[Path, int, int]:
    """File, offset and length (-1: to its end) of external data inside the file's folder."""
    where = {entry.key: entry.value for entry in tensor.external_data}
    name = f"the external data '{readable(where.get('location', ''))}'"
    if folder is None:
        raise refused(layer, f"{name} cannot be read without the folder of the file")
    try:
        path = (folder / where["location"]).resolve(strict=True)
        offset, length = int(where.get("offset", "0")), int(where.get("length", "-1"))
    except (KeyError, ValueError, OSError) as error:
        raise refused(layer, f"{name} are not there: keep them beside the .onnx file") from error
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise refused(layer, f"{name} lie outside the folder of the file, and are not read")
    if not 0 <= offset <= path.stat().st_size:
        raise refused(layer, f"{name} end before they begin")
    return path, offset, length


def _loaded(tensor: onnx.TensorProto, folder: Path | None, layer: str) -> onnx.TensorProto:
    """A copy of ``tensor`` that holds its external data."""
    path, offset, length = _external(tensor, folder, layer)
    size = product(tensor.dims) * helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    if length not in (-1, size) or offset + size > path.stat().st_size:
        name = readable(tensor.name)
        raise refused(layer, f"the external data of '{name}' do not fit its shape")
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(size)
    return TensorProto(
        name=tensor.name, dims=tensor.dims, data_type=tensor.data_type, raw_data=data
    )


def _external_bytes(tensors: list[onnx.TensorProto], folder: Path | None) -> int:
    """Size of the files that hold external data."""
    paths = {
        _external(tensor, folder, f"the array '{readable(tensor.name)}'")[0]
        for tensor in tensors
        if tensor.data_location == TensorProto.EXTERNAL
    }
    return sum(path.stat().st_size for path in paths)


def _parse(data: bytes) -> onnx.ModelProto:
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise FormatError("not an ONNX file, or damaged: it cannot be parsed") from error
    graph = model.graph
    if not graph.node:
        raise FormatError("not an ONNX file: it holds no graph")
    if len(graph.node) > MAX_NODES:
        raise FormatError(f"has {len(graph.node):,} operators, more than {MAX_NODES:,}")
    if model.functions:
        name = readable(model.functions[0].name)
        raise FormatError(
            f"defines the function '{name}', and functions are not read: inline them first with "
            "onnx.inliner.inline_local_functions"
        )
    if graph.sparse_initializer:
        raise FormatError("holds sparse arrays, which are not read")
    return model


def _check_names(graph: onnx.GraphProto) -> None:
    """FormatError unless every name is text: protobuf gives bytes where it is not UTF-8."""
    names = [t.name for t in (*graph.initializer, *graph.input, *graph.output)]
    for node in graph.node:
        names += [node.name, node.op_type, node.domain, *node.input, *node.output]
        names += [attribute.name for attribute in node.attribute]
    if not all(isinstance(name, str) for name in names):
        raise FormatError("the ONNX file is damaged: a name in it is not UTF-8")


def _opset(model: onnx.ModelProto) -> int:
    """Version of ONNX's operators; FormatError if it, or QONNX's, is not known."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    standard = next((versions[name] for name in STANDARD if name in versions), 1)
    if standard not in OPSETS:
        raise FormatError(
            f"is of ONNX operator set {standard}; {OPSETS[0]} to {OPSETS[-1]} are read: convert it "
            "with onnx.version_converter"
        )
    for domain in DOMAINS & set(versions):
        if versions[domain] not in QONNX_OPSETS:
            raise FormatError(f"is of operator set {versions[domain]} of '{domain}', not 1 or 2")
    return standard


def _check_node(node: onnx.NodeProto) -> None:
    if node.domain not in STANDARD and node.domain not in DOMAINS:
        raise refused(layer_of(node), f"operators of '{readable(node.domain)}' are not known")
    for attribute in node.attribute:
        name = readable(attribute.name)
        if attribute.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS):
            raise refused(layer_of(node), "branches and loops are not read")
        if attribute.type not in _PLAIN:
            raise refused(layer_of(node), f"the attribute '{name}' is of a type not known here")
        is_outside = attribute.t.data_location == TensorProto.EXTERNAL
        if is_outside and node.op_type != "Constant":
            raise refused(layer_of(node), f"the attribute '{name}' is kept in another file")


def _check_order(graph: onnx.GraphProto, known: set[str]) -> None:
    """FormatError unless each operator reads what is there before it, and names what it gives."""
    for node in graph.node:
        for name in filter(None, node.input):
            if name not in known:
                raise refused(
                    layer_of(node),
                    f"reads '{readable(name)}', which nothing before it computes (the operators "
                    "form a cycle or are out of order)",
                )
        for name in filter(None, node.output):
            if name in known:
                raise refused(layer_of(node), f"gives '{readable(name)}', which is there already")
            known.add(name)


def needed(nodes: list[onnx.NodeProto], output: str) -> tuple[onnx.NodeProto, ...]:
    """Those that ``output`` needs, in their order."""
    wanted, kept = {output}, []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return tuple(reversed(kept))


def _only(infos: list[onnx.ValueInfoProto], what: str) -> onnx.ValueInfoProto:
    if len(infos) != 1:
        names = ", ".join(f"'{readable(info.name)}'" for info in infos[:4]) or "none"
        more = ", ..." if len(infos) > 4 else ""
        raise FormatError(f"has {len(infos)} {what}s ({names}{more}); one is needed")
    return infos[0]


def open_source(data: bytes, folder: Path | None) -> Source:
    """Parse the bytes of a .onnx file.

    Args:
        data: the file.
        folder: where it lies, with its external data if it has any.

    Raises:
        FormatError: it is not ONNX, damaged, or no network of one input and one output.
    """
    model = _parse(data)
    graph = model.graph
    _check_names(graph)
    opset = _opset(model)
    arrays = {tensor.name: tensor for tensor in graph.initializer}
    if len(arrays) < len(graph.initializer) or "" in arrays:
        raise FormatError("the ONNX file is damaged: two arrays of one name")
    source = _only([info for info in graph.input if info.name not in arrays], "input")
    output = _only(list(graph.output), "output").name
    for node in graph.node:
        _check_node(node)
    known = {source.name, *arrays}
    _check_order(graph, known)
    if output not in known:
        raise FormatError(f"the output '{readable(output)}' is not computed")
    size = len(data) + _external_bytes(list(graph.initializer), folder)
    nodes = needed(list(graph.node), output)
    return Source(model, nodes, arrays, source, output, opset, folder, size)
