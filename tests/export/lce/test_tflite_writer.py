"""The TFLite writer, read back with the flatbuffers library alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from flatbuffers import encode, flexbuffers, number_types, packer
from flatbuffers.table import Table

from frostbit.export.lce.tflite_writer import ABSENT, ALIGNMENT, GraphWriter, flex_map


class Node:
    """A table of a flatbuffer, fields by slot number."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.table = Table(data, position)

    @classmethod
    def root(cls, data: bytes) -> Node:
        return cls(data, encode.Get(packer.uoffset, data, 0))

    def _at(self, slot: int) -> int:
        return int(self.table.Offset(4 + 2 * slot))

    def has(self, slot: int) -> bool:
        return self._at(slot) != 0

    def number(self, slot: int, flags: Any = number_types.Int32Flags) -> int:
        return int(self.table.Get(flags, self._at(slot) + self.table.Pos))

    def child(self, slot: int) -> Node:
        return Node(self.data, self.table.Indirect(self._at(slot) + self.table.Pos))

    def text(self, slot: int) -> str:
        return str(self.table.String(self._at(slot) + self.table.Pos).decode())

    def children(self, slot: int) -> list[Node]:
        start, count = self.table.Vector(self._at(slot)), self.table.VectorLen(self._at(slot))
        return [Node(self.data, self.table.Indirect(start + 4 * i)) for i in range(count)]

    def ints(self, slot: int) -> list[int]:
        return list(np.frombuffer(self.raw(slot, 4), "<i4"))

    def start(self, slot: int) -> int:
        return int(self.table.Vector(self._at(slot)))

    def raw(self, slot: int, width: int = 1) -> bytes:
        count = self.table.VectorLen(self._at(slot)) * width
        return self.data[self.start(slot) : self.start(slot) + count]


def written() -> bytes:
    """Two operators, one builtin and one custom, with constants of odd sizes."""
    writer = GraphWriter()
    x = writer.tensor("input", (1, 2, 2, 3), np.float32)
    shift = writer.constant("shift", np.arange(3, dtype=np.float32))
    again = writer.constant("again", np.arange(3, dtype=np.float32))
    scalar = writer.constant("scalar", np.array(-1, np.int32))
    y = writer.tensor("y", (1, 2, 2, 3), np.float32)
    writer.operator("ADD", [x, shift], [y])
    z = writer.tensor("z", (1, 1, 1, 3), np.float32)
    writer.operator("SUM", [y, scalar], [z], {"keep_dims": 1})
    writer.operator("Own", [z, again, ABSENT], [y], {"width": 300, "answer": 42})
    writer.operator("ADD", [y, again], [z])
    return writer.finish([x], [z], "a test")


def test_header_and_buffers() -> None:
    data = written()
    model = Node.root(data)
    assert data[4:8] == b"TFL3"
    assert model.number(0) == 3
    assert model.text(3) == "a test"
    buffers = model.children(4)
    assert [buffer.has(0) for buffer in buffers] == [False, True, True]
    assert buffers[1].raw(0) == np.arange(3, dtype="<f4").tobytes()
    assert all(buffer.start(0) % ALIGNMENT == 0 for buffer in buffers[1:])


def test_tensors() -> None:
    (graph,) = Node.root(written()).children(2)
    tensors = graph.children(0)
    names = [tensor.text(3) for tensor in tensors]
    assert names == ["input", "shift", "again", "scalar", "y", "z"]
    assert [tensor.number(2) for tensor in tensors] == [0, 1, 1, 2, 0, 0]
    assert [tensor.number(1, number_types.Int8Flags) for tensor in tensors] == [0, 0, 0, 2, 0, 0]
    assert tensors[0].ints(0) == [1, 2, 2, 3]
    assert tensors[3].ints(0) == []
    assert graph.ints(1) == [0]
    assert graph.ints(2) == [5]


def test_operators() -> None:
    model = Node.root(written())
    codes = model.children(1)
    assert [code.number(3) for code in codes] == [0, 74, 32]
    assert [code.number(0, number_types.Int8Flags) for code in codes] == [0, 74, 32]
    assert [code.number(2) for code in codes] == [1, 1, 1]
    assert codes[2].text(1) == "Own"
    add, total, own, last = model.children(2)[0].children(3)
    assert [op.number(0) for op in (add, total, own, last)] == [0, 1, 2, 0]
    assert total.number(3, number_types.Uint8Flags) == 27
    assert total.child(4).number(0, number_types.Uint8Flags) == 1
    assert own.ints(1) == [5, 2, -1]
    assert not own.has(4)
    assert flexbuffers.Loads(own.raw(5)) == {"answer": 42, "width": 300}


def test_flex_map_is_readable_and_its_keys_are_sorted() -> None:
    values = {"stride": 2, "alpha": 1, "beta": -(2**31)}
    read = flexbuffers.Loads(flex_map(values))
    assert read == values
    assert list(read) == sorted(values)  # LCE finds a key by binary search


def test_same_calls_same_bytes() -> None:
    assert written() == written()


def test_a_type_that_tflite_does_not_have_is_named() -> None:
    with pytest.raises(ValueError, match="tensor 'wide': no TFLite type for float64"):
        GraphWriter().constant("wide", np.zeros(2))
