"""Mutations of files: blind ones, edits of a ``model.bnn`` with a right checksum, of ONNX graphs.

``rng`` is what Hypothesis gives for ``st.randoms()``: every choice is one of its draws, so that a
failure is shrunk to a small mutation and can be repeated.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from random import Random
from typing import Any

import onnx

Mutation = Callable[[bytes, Random], bytes]


def flip(data: bytes, rng: Random) -> bytes:
    """Some bits the other way round."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def cut(data: bytes, rng: Random) -> bytes:
    """The end, or a part in the middle, gone."""
    first, last = sorted((rng.randrange(len(data)), rng.randrange(len(data))))
    return data[:first] + data[last:] if rng.randrange(2) else data[:first]


def insert(data: bytes, rng: Random) -> bytes:
    """Foreign bytes in the middle."""
    at = rng.randrange(len(data))
    return data[:at] + rng.getrandbits(8 * 24).to_bytes(24, "little") + data[at:]


def numbers(data: bytes, rng: Random) -> bytes:
    """Whole numbers near an end, where a flatbuffer has its tables, a little or quite different."""
    changed = bytearray(data)
    first = rng.choice([0, max(0, len(data) - 25_000)])
    for _ in range(rng.randint(1, 2)):
        at = min(first + 4 * rng.randrange(6_000), len(data) - 4)
        old = int.from_bytes(data[at : at + 4], "little")
        new = rng.choice(
            [0, 1, 2, 3, 2**31, 2**32 - 1, old + 1, old - 1, old + 4, old << 8, old >> 8]
        )
        changed[at : at + 4] = (new % 2**32).to_bytes(4, "little")
    return bytes(changed)


def signed(header: dict[str, Any], body: bytes) -> bytes:
    """A ``model.bnn`` of ``header`` and ``body`` with a right checksum."""
    document = json.loads(header["__metadata__"]["frostbit"])
    document["sha256"] = "0" * 64
    header["__metadata__"]["frostbit"] = json.dumps(document, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    data = struct.pack("<Q", len(text)) + text + body
    blank = b'\\"sha256\\":\\"' + b"0" * 64
    digest = hashlib.sha256(data).hexdigest().encode()
    return data.replace(blank, blank.replace(b"0" * 64, digest), 1)


def edit(data: bytes, rng: Random) -> bytes:
    """A header value or some bytes of the arrays changed, the checksum made right."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.randrange(3) == 0:
        return signed(header, flip(body, rng))
    document = json.loads(header["__metadata__"]["frostbit"])
    if rng.randrange(3):
        change(document, rng)
        header["__metadata__"]["frostbit"] = json.dumps(document)
    else:
        tensors = {k: v for k, v in header.items() if k != "__metadata__"}
        change(tensors, rng)
        header = {**tensors, "__metadata__": header["__metadata__"]}
    try:
        return signed(header, body)
    except (TypeError, ValueError, AttributeError, UnicodeEncodeError):
        return json.dumps(header).encode()


def change(value: Any, rng: Random) -> None:
    """Change something inside the JSON ``value``, in place."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = rng.choice(keys)
        if isinstance(value[key], (dict, list)) and value[key] and rng.randrange(4):
            value = value[key]
            continue
        value[key] = _other(value[key], rng)
        return


OTHERS: tuple[Any, ...] = (
    None, -1, 0, 2**40, 1e300, float("nan"), "", "conv0", [], {}, [[]], True, "x" * 300, "a\nb",
    "\x1b[31m", 10**400, "\ud800", "../../x", "<script>",
)  # fmt: skip


def _other(old: Any, rng: Random) -> Any:
    kind = rng.randrange(5)
    if isinstance(old, int) and kind < 3:
        return int(old) + rng.choice([-1, 1, 2, 63, 2**16, 2**31, 2**63])
    if isinstance(old, list) and kind < 3:
        return old[:-1] if rng.randrange(2) else [*old, *old[:1]]
    return rng.choice([*OTHERS, old])


NUMBERS = (-(2**62), -1, 0, 1, 2, 3, 7, 2**16, 2**31, 2**62)
OPERATORS = ("Relu", "Sign", "Shape", "Expand", "Softmax", "Transpose", "Sub", "Mul", "Flatten")


def graph(data: bytes, rng: Random) -> bytes:
    """Up to three changes of an ONNX graph that parses: operators, what they read, attributes,
    sizes, small constants.
    """
    model = onnx.ModelProto.FromString(data)
    for _ in range(rng.randint(1, 3)):
        if model.graph.node:
            rng.choice(GRAPH)(model.graph, rng)
    return bytes(model.SerializeToString())


def _attribute(graph: onnx.GraphProto, rng: Random) -> None:
    node = rng.choice(graph.node)
    if not node.attribute:
        return
    found = rng.choice(node.attribute)
    if rng.randrange(4) == 0:
        node.attribute.remove(found)
    elif found.ints:
        found.ints[rng.randrange(len(found.ints))] = rng.choice(NUMBERS)
    elif rng.randrange(2):
        found.i = rng.choice(NUMBERS)
    else:
        found.f = rng.choice((0.0, -1.0, 0.5, float("nan"), float("inf")))


def _reads(graph: onnx.GraphProto, rng: Random) -> None:
    node = rng.choice(graph.node)
    names = [array.name for array in graph.initializer] + [graph.input[0].name, ""]
    names += [name for other in graph.node for name in other.output]
    if node.input:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)


def _operator(graph: onnx.GraphProto, rng: Random) -> None:
    kinds = [node.op_type for node in graph.node]
    node = rng.choice(graph.node)
    how = rng.randrange(4)
    if how == 0:
        graph.node.remove(node)
    elif how == 1:
        graph.node.add().CopyFrom(node)
    else:
        node.op_type = rng.choice((*kinds, *OPERATORS))


def _sizes(graph: onnx.GraphProto, rng: Random) -> None:
    if rng.randrange(2) and graph.initializer:
        dims = rng.choice(graph.initializer).dims
        if dims:
            dims[rng.randrange(len(dims))] = rng.choice(NUMBERS)
        return
    axes = graph.input[0].type.tensor_type.shape.dim
    if axes:
        rng.choice(axes).dim_value = rng.choice(NUMBERS)


def _constant(graph: onnx.GraphProto, rng: Random) -> None:
    """A byte; of small arrays more often, since those are what steers."""
    arrays = [array for array in graph.initializer if array.raw_data]
    small = [array for array in arrays if len(array.raw_data) <= 64]
    if not arrays:
        return
    array = rng.choice(small if small and rng.randrange(3) else arrays)
    array.raw_data = flip(array.raw_data, rng)


GRAPH = (_attribute, _reads, _operator, _sizes, _constant)
BLIND: tuple[Mutation, ...] = (flip, cut, insert)
TABLES: tuple[Mutation, ...] = (*BLIND, numbers, numbers, numbers)
ONNX: tuple[Mutation, ...] = (*BLIND, graph, graph, graph, graph)
MODEL: tuple[Mutation, ...] = (*BLIND, edit, edit, edit)
