"""An ONNX file becomes a small graph: its operators read one by one, in their order.

What it reads, by operator, is :data:`RULES`; what no rule says, or an attribute that a rule does
not read, is refused by operator and layer. The sizes of everything follow from that of the input,
so shapes that the file states are not believed. A batch axis without a size is taken as 1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto

from frostbit.export.onnx.quantizers import DOMAINS
from frostbit.export.reading.graph import Builder, Graph, Shape, refused
from frostbit.export.reading.onnx import arithmetic, layers, shapes
from frostbit.export.reading.onnx.call import Call, Map, Reading, SignOf, Signs, Value, as_map
from frostbit.export.reading.onnx.constants import ELEMENTWISE, Folder
from frostbit.export.reading.onnx.facts import PIXELS, UNKNOWN
from frostbit.export.reading.onnx.file import Array, Source, layer_of, needed, open_source
from frostbit.export.summary import product, readable
from frostbit.kernels.ir.program import MAX_DIM, MAX_ELEMENTS, FormatError

KIND, KIND_QONNX = "ONNX", "QONNX"
RULES: dict[str, Callable[[Call], None]] = {
    **arithmetic.RULES,
    **layers.RULES,
    **shapes.RULES,
}
"""By operator of ONNX."""
FLOATS_A_BYTE = 8
"""A byte of packed weights is eight numbers of four bytes where the file unpacks it."""
MAX_BATCH = 1 << 10
"""Images that a file may take at once; its own runtime computes so many to compare one."""
TAKES: dict[int, Literal["u8", "f32"]] = {TensorProto.UINT8: "u8", TensorProto.FLOAT: "f32"}
"""What a file may take, and what its Program takes then."""
MOVES = ("Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze")
"""What may happen to pixels before they are floats."""
_LAYOUTS = {2: "NC", 3: "NHW", 4: "NCHW"}


@dataclass(frozen=True, eq=False)
class Read:
    """A file that has been read.

    Attributes:
        graph: what it computes.
        source: the file.
        layouts: axes in the file ("NCHW", "NC"...) of the values that both have, by name.
        batch: images that the file takes at once.
        signs: what the signs of the graph are in the file, by their names.
        pixels: values of the file that are still of type uint8.
    """

    graph: Graph
    source: Source
    layouts: dict[str, str]
    batch: int
    signs: dict[str, SignOf]
    pixels: frozenset[str]


def _input_layout(source: Source, rank: int) -> str:
    """Axes of the input: [N, H, W, C] if the first thing to care moves the channels forward."""
    reads = {source.input.name}
    for node in source.nodes:
        if not reads.intersection(node.input):
            continue
        if node.op_type == "Transpose" and rank == 4:
            order = [list(a.ints) for a in node.attribute if a.name == "perm"]
            return "NHWC" if order == [[0, 3, 1, 2]] else "NCHW"
        if node.op_type == "MatMul" and rank == 4:
            return "NHWC"
        if node.op_type not in ELEMENTWISE:
            break
        reads.update(node.output)
    return _LAYOUTS[rank]


def _input_sizes(source: Source) -> list[int]:
    """Sizes of the input's axes, an open batch as 1; FormatError if it is no image."""
    info, name = source.input.type.tensor_type, readable(source.input.name)
    if info.elem_type not in TAKES:
        known = TensorProto.DataType.values()
        kind = TensorProto.DataType.Name(info.elem_type) if info.elem_type in known else "nothing"
        raise FormatError(
            f"the input '{name}' is of type {kind}; networks that take FLOAT or UINT8 are read"
        )
    stated = [axis.dim_value if axis.HasField("dim_value") else None for axis in info.shape.dim]
    sizes = [1 if size is None and not place else size or 0 for place, size in enumerate(stated)]
    if len(sizes) not in _LAYOUTS or not 1 <= min(sizes) <= max(sizes) <= MAX_DIM:
        shown = ["?" if size is None else size for size in stated]
        raise FormatError(
            f"the input '{name}' is {shown}: an image of a fixed size is needed, as "
            "[N, C, H, W], [N, H, W, C] or [N, C]"
        )
    if sizes[0] > MAX_BATCH or product(sizes) > MAX_ELEMENTS:
        raise FormatError(f"the input '{name}' is {sizes}, which is too large")
    return sizes


def _pixels(source: Source) -> frozenset[str]:
    """Values that are still of the type uint8 of the input; FormatError if one is computed with."""
    if source.input.type.tensor_type.elem_type != TensorProto.UINT8:
        return frozenset()
    found = {source.input.name}
    for node in source.nodes:
        reads = found.intersection(node.input)
        if reads and node.op_type in MOVES:
            found.update(node.output)
        elif reads and node.op_type not in ("Cast", "Shape"):
            raise refused(layer_of(node), "of type UINT8 is not read: a Cast to FLOAT comes first")
    if source.output in found:
        raise FormatError("the output is made of pixels of type UINT8, without a Cast to FLOAT")
    return frozenset(found)


def _opened(source: Source) -> Reading:
    """A reading that knows the input and nothing else."""
    name, axes = source.input.name, _input_sizes(source)
    layout = _input_layout(source, len(axes))
    sizes = dict(zip(layout, axes, strict=True))
    shape: Shape = (sizes.get("H", 1), sizes.get("W", 1), sizes.get("C", 1))
    kind = KIND_QONNX if any(node.domain in DOMAINS for node in source.nodes) else KIND
    taken = {name, *source.arrays, *(name for node in source.nodes for name in node.output)}
    builder = Builder(name, shape, kind, FLOATS_A_BYTE * source.bytes)
    first = Map(name, layout)
    reading = Reading(builder, source.opset, axes[0], {name: first}, frozenset(taken))
    is_pixels = source.input.type.tensor_type.elem_type == TensorProto.UINT8
    reading.layouts[name], reading.facts[name] = layout, PIXELS if is_pixels else UNKNOWN
    return reading


def _by_sign(
    reading: Reading, folder: Folder, node: onnx.NodeProto, values: list[Value | None]
) -> bool:
    """Read an element-wise operator on choices by one sign: it is one as well.

    Returns:
        whether it was that.
    """
    roots = {value.root for value in values if isinstance(value, Signs)}
    if len(roots) != 1 or node.op_type not in ELEMENTWISE or len(node.output) != 1:
        return False
    results = []
    for place in range(3):
        inputs: list[Array | None] = []
        for value in values:
            if isinstance(value, Map):
                return False
            inputs.append(value.at[place] if isinstance(value, Signs) else value)
        results.append(folder.fold(node, inputs)[0])
    reading.values[node.output[0]] = Signs(roots.pop(), (results[0], results[1], results[2]))
    return True


def _step(reading: Reading, folder: Folder, node: onnx.NodeProto) -> None:
    call = Call(reading, node)
    values = [call.value(i) if call.has(i) else None for i in range(len(node.input))]
    constants: list[Array | None] = [v for v in values if v is None or isinstance(v, np.ndarray)]
    if len(constants) == len(values):
        for name, result in zip(node.output, folder.fold(node, constants), strict=False):
            reading.values[name] = result
        return
    if _by_sign(reading, folder, node, values):
        return
    rules = arithmetic.QUANTIZERS if node.domain in DOMAINS else RULES
    if node.op_type not in rules:
        raise refused(call.layer, "this operator is not read")
    rules[node.op_type](call)
    call.attributes.close()


def _straight_through(source: Source) -> tuple[onnx.NodeProto, ...]:
    """The operators, ``s`` instead of ``(s - x) + x``, which passes gradients around a sign."""
    computed, makers = {source.input.name}, dict[str, onnx.NodeProto]()
    done = []
    for node in source.nodes:
        if computed.intersection(node.input):
            computed.update(node.output)
        makers.update(dict.fromkeys(node.output, node))
        sign = _bypassed(node, makers) if node.op_type == "Add" and len(node.input) == 2 else None
        if sign in computed:
            node = onnx.helper.make_node("Identity", [sign], list(node.output), name=node.name)
        done.append(node)
    return needed(done, source.output)


def _check_bypassed(reading: Reading, source: Source) -> None:
    """FormatError if the file's own runtime could get lost in what is not read here.

    Element by element and with single numbers no map grows.
    """
    for node in source.nodes:
        if any(name in reading.values for name in node.output):
            continue
        constants = [reading.values.get(name) for name in node.input]
        sizes = [value.size for value in constants if isinstance(value, np.ndarray)]
        sizes += [product(a.t.dims) for a in node.attribute if a.HasField("t")]
        sizes += [len(row) for a in node.attribute for row in (a.ints, a.floats) if row]
        known = node.op_type in ELEMENTWISE or node.op_type == "Constant"
        if not known or any(size != 1 for size in sizes):
            raise refused(layer_of(node), "this operator around a sign is not read")


def _bypassed(node: onnx.NodeProto, makers: dict[str, onnx.NodeProto]) -> str | None:
    """``s`` if ``node`` adds ``s - x`` and ``x``, and ``s`` is a sign."""
    for first, x in (node.input, tuple(node.input)[::-1]):
        difference = makers.get(first)
        if difference is None or difference.op_type != "Sub" or len(difference.input) != 2:
            continue
        sign, other = difference.input
        if other == x and sign in makers and makers[sign].op_type in ("Sign", "Where"):
            return str(sign)
    return None


def read_graph(data: bytes, folder: Path | None = None) -> Read:
    """The graph of the bytes of a .onnx file.

    Args:
        data: the file.
        folder: where it lies, with its external data if it has any.

    Raises:
        FormatError: not ONNX, damaged, or something that is not read, by operator and layer.
    """
    source = open_source(data, folder)
    pixels = _pixels(source)
    reading, constants = _opened(source), Folder(source)
    for node in source.nodes:
        for name in node.input:
            if name in source.arrays and name not in reading.values:
                reading.values[name] = source.array(source.arrays[name], layer_of(node))
    for node in _straight_through(source):
        _step(reading, constants, node)
    _check_bypassed(reading, source)
    return _finished(reading, source, pixels)


def _notes(reading: Reading) -> tuple[str, ...]:
    """One line for each thing to know, with the first values of which it is said."""
    names: dict[str, list[str]] = {}
    for name, what in reading.notes.items():
        names.setdefault(what, []).append(f"'{readable(name)}'")
    return tuple(
        f"{what}: {', '.join(of[:3])}{f' and {len(of) - 3} more' if len(of) > 3 else ''}"
        for what, of in names.items()
    )


def _finished(reading: Reading, source: Source, pixels: frozenset[str]) -> Read:
    answer = reading.values.get(source.output)
    if isinstance(answer, Signs):
        answer = as_map(reading, answer, source.output, f"the output '{source.output}'")
    if not isinstance(answer, Map):
        raise FormatError(f"the output '{readable(source.output)}' does not depend on the input")
    takes = TAKES[source.input.type.tensor_type.elem_type]
    graph = replace(reading.builder.graph(answer.name), notes=_notes(reading), takes=takes)
    return Read(graph, source, reading.layouts, reading.batch, reading.signs, pixels)
