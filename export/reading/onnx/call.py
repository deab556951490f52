"""One operator of an ONNX file while it is read, and what has been read before it.

A value of the file is one of three things: a constant array; a map of the small graph, whose axes
in the file are told by letters ("NCHW", "NHWC", "NC"...); or a choice by sign (:class:`Signs`),
which is what becomes of ``x > 0``, ``Sign`` or ``Where`` until something needs it as a map.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto

from frostbit.export.reading.graph import F32, Builder, Node, Scale, Shape, Sign, refused
from frostbit.export.reading.onnx.constants import finite, floats, integers
from frostbit.export.reading.onnx.facts import Facts, facts
from frostbit.export.reading.onnx.file import Array, layer_of
from frostbit.export.summary import readable
from frostbit.kernels.ir.program import FormatError

NO_SIGN = "0 has no sign in the source: here it is +1"


@dataclass(frozen=True)
class Map:
    """A computed value.

    Attributes:
        name: in the small graph.
        layout: a letter for each of its axes in the file, of N, C, H and W; sizes of letters that
            are not there are 1.
    """

    name: str
    layout: str


@dataclass(frozen=True, eq=False)
class Signs:
    """A value that depends on a map only through its sign.

    Attributes:
        root: the map.
        at: the value where the root is negative, zero and positive; each broadcasts to the root.
    """

    root: Map
    at: tuple[Array, Array, Array]


@dataclass(frozen=True, eq=False)
class SignOf:
    """What a sign is in the file: it is +1 where the value ``name`` is ``mul + add``, else -1.

    Attributes:
        name: a value of the file.
        mul, add: float32 that broadcast to ``[H, W, C]``; ``mul`` is nowhere 0.
    """

    name: str
    mul: F32
    add: F32


Value: TypeAlias = Array | Map | Signs


@dataclass(eq=False)
class Reading:
    """What has been read so far.

    Attributes:
        builder: of the small graph.
        opset: version of ONNX's operators.
        batch: images that the file takes at once.
        values: of the file by name.
        layouts: of every map that the file and the small graph have in common, by name.
        facts: of every value of the small graph.
        notes: what a reader of results must know, by name of the value.
        shifted: maps less a constant, by the map's name and the constant.
        signs: what the signs of the small graph are in the file, by their names.
        taken: every name in the file.
    """

    builder: Builder
    opset: int
    batch: int
    values: dict[str, Value]
    taken: frozenset[str]
    layouts: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Facts] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    shifted: dict[tuple[str, Shape, bytes], Map] = field(default_factory=dict)
    signs: dict[str, SignOf] = field(default_factory=dict)

    def add(self, node: Node, layout: str) -> Map:
        """Add a node whose value has ``layout`` in the file."""
        self.builder.add(node)
        sources = [self.facts.get(name, Facts()) for name in node.inputs]
        self.facts[node.name] = facts(node, sources)
        if not node.is_inner:
            self.layouts[node.name] = layout
        return Map(node.name, layout)

    def inner_name(self, name: str, what: str) -> str:
        """A name for a value that the file has not."""
        fresh = f"{name} ({what})"
        while fresh in self.taken or fresh in self.facts:
            fresh += "'"
        return fresh

    def size(self, of: Map, letter: str) -> int:
        """Of an axis, also of one that is not there."""
        height, width, channels = self.builder.shape(of.name)
        return {"N": self.batch, "H": height, "W": width, "C": channels}[letter]

    def sizes(self, of: Map) -> list[int]:
        """Of its axes in the file."""
        return [self.size(of, letter) for letter in of.layout]


class Attributes:
    """The attributes of an operator; one that nothing asked for is refused in the end."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._layer = layer_of(node)
        self._found = {attribute.name: attribute for attribute in node.attribute}
        self._unread = set(self._found)

    def _get(self, name: str, kind: int) -> AttributeProto | None:
        found = self._found.get(name)
        if found is not None and found.type != kind:
            raise refused(self._layer, f"the attribute '{readable(name)}' is of a wrong type")
        self._unread.discard(name)
        return found

    def integer(self, name: str, default: int) -> int:
        found = self._get(name, AttributeProto.INT)
        return default if found is None else int(found.i)

    def number(self, name: str, default: float) -> float:
        found = self._get(name, AttributeProto.FLOAT)
        return default if found is None else float(found.f)

    def text(self, name: str, default: str) -> str:
        found = self._get(name, AttributeProto.STRING)
        return default if found is None else found.s.decode(errors="replace")

    def integers(self, name: str) -> list[int] | None:
        """None if it is left out."""
        found = self._get(name, AttributeProto.INTS)
        return None if found is None else [int(number) for number in found.ints]

    def close(self) -> None:
        """FormatError if one has not been read."""
        if self._unread:
            raise refused(self._layer, f"the attribute '{readable(min(self._unread))}' is not read")


class Call:
    """An operator with what its inputs are.

    Args:
        reading: what has been read before it.
        node: the operator.
    """

    def __init__(self, reading: Reading, node: onnx.NodeProto) -> None:
        self.reading, self.node, self.layer = reading, node, layer_of(node)
        self.attributes = Attributes(node)

    @property
    def name(self) -> str:
        """Of the (first) result."""
        return str(self.node.output[0])

    @property
    def opset(self) -> int:
        return self.reading.opset

    def refused(self, why: str) -> FormatError:
        return refused(self.layer, why)

    def takes(self, fewest: int, most: int) -> None:
        """Refuse another number of inputs."""
        if not fewest <= len(self.node.input) <= most:
            raise self.refused(f"has {len(self.node.input)} inputs, not {fewest} to {most}")

    def has(self, position: int) -> bool:
        """Whether an input is there."""
        return position < len(self.node.input) and self.node.input[position] != ""

    def value(self, position: int) -> Value:
        if not self.has(position):
            raise self.refused(f"input {position} is missing")
        name = self.node.input[position]
        if name not in self.reading.values:
            raise self.refused(f"reads '{readable(name)}', a further result that is not read")
        return self.reading.values[name]

    def map(self, position: int = 0) -> Map:
        """An input that must be computed; a choice by sign becomes a map once and for all."""
        value = self.value(position)
        if isinstance(value, np.ndarray):
            raise self.refused(f"input {position} is constant, which cannot be read here")
        if isinstance(value, Signs):
            name = self.node.input[position]
            value = as_map(self.reading, value, name, self.layer)
            self.reading.values[name] = value
        return value

    def constant(self, position: int) -> Array:
        """An input that must be constant."""
        value = self.value(position)
        if not isinstance(value, np.ndarray):
            raise self.refused(f"input {position} is computed, and only a constant can be read")
        return value

    def floats(self, position: int) -> F32:
        return finite(floats(self.constant(position), self.layer), self.layer)

    def number(self, position: int) -> float:
        """An input that must be one constant number; infinity is one."""
        found = floats(self.constant(position), self.layer)
        if found.size != 1:
            raise self.refused(f"input {position} is {list(found.shape)}, not one number")
        return float(found.item())

    def integers(self, position: int) -> list[int]:
        return integers(self.constant(position), self.layer)

    def on_map(self, value: F32, of: Map) -> F32:
        return on_map(self.reading, value, of, self.layer)

    def give(self, value: Value, output: int = 0) -> None:
        """Say what a result is."""
        self.reading.values[self.node.output[output]] = value

    def add(self, node: Node, layout: str) -> Map:
        return self.reading.add(node, layout)

    def inner(self, what: str) -> str:
        return self.reading.inner_name(self.name, what)

    def axes(self, found: list[int], rank: int) -> list[int]:
        """Axes counted from the front; FormatError if one is out of range or there twice."""
        axes = [axis + rank if axis < 0 else axis for axis in found]
        if len(set(axes)) != len(axes) or not all(0 <= axis < rank for axis in axes):
            raise self.refused(f"axes {found} of {rank}")
        return axes

    def axis(self, of: Map, default: int) -> str:
        """Letter of the axis that the attribute ``axis`` names."""
        axis = self.attributes.integer("axis", default)
        return of.layout[self.axes([axis], len(of.layout))[0]]


def on_map(reading: Reading, value: Array, of: Map, layer: str) -> F32:
    """A constant beside a map as it stands in the file -> ``[H, W, C]``, each axis full or 1."""
    value = finite(floats(value, layer), layer)
    rank, sizes = len(of.layout), reading.sizes(of)
    aligned = value.reshape((1,) * (rank - value.ndim) + value.shape)
    fits = aligned.ndim == rank and all(
        have == 1 or (have == full and letter != "N")
        for have, full, letter in zip(aligned.shape, sizes, of.layout, strict=True)
    )
    if not fits:
        raise refused(layer, f"a constant {list(value.shape)} on a map {sizes}")
    order = [of.layout.index(letter) for letter in "NHWC" if letter in of.layout]
    moved = aligned.transpose(order)
    shape = dict(zip((of.layout[axis] for axis in order), moved.shape, strict=True))
    return moved.reshape([shape.get(letter, 1) for letter in "HWC"])


def as_map(reading: Reading, signs: Signs, name: str, layer: str) -> Map:
    """Make a choice by sign the value ``name`` of the small graph: a Sign, and a Scale around it.

    Where 0 counts as negative the sign is taken of the negated root, and negated. Where it is
    neither it becomes +1, with a note; of a root that is never negative 0 and more are the two.
    """
    root = signs.root
    negative, zero, positive = (on_map(reading, at, root, layer) for at in signs.at)
    negative, zero, positive = np.broadcast_arrays(negative, zero, positive)
    is_unclear, known = (zero != negative) & (zero != positive), reading.facts[root.name]
    if known.is_never_negative:
        negative = np.where(is_unclear, zero, negative)
    elif is_unclear.any() and not known.is_never_zero:
        reading.notes[name] = NO_SIGN
    flip = np.where((zero == negative) & (positive != negative), -1, 1).astype(np.float32)
    half = np.float32(0.5)
    mul, add = flip * (positive * half - negative * half), positive * half + negative * half
    source = root.name
    if (flip < 0).any():
        source = reading.inner_name(name, "negated")
        node = Scale(
            name=source, inputs=(root.name,), layer=layer, is_inner=True,
            mul=_short(flip), add=np.zeros((1, 1, 1), np.float32),
        )  # fmt: skip
        reading.add(node, root.layout)
    if (mul == 1).all() and not add.any():
        reading.signs[name] = SignOf(name, _short(mul), _short(add))
        return reading.add(Sign(name=name, inputs=(source,), layer=layer), root.layout)
    inner, is_seen = reading.inner_name(name, "sign"), bool(mul.all())
    if is_seen:
        reading.signs[inner] = SignOf(name, _short(mul), _short(add))
    sign = Sign(name=inner, inputs=(source,), layer=layer, is_inner=not is_seen)
    reading.add(sign, root.layout)
    scale = Scale(name=name, inputs=(inner,), layer=layer, mul=_short(mul), add=_short(add))
    return reading.add(scale, root.layout)


def _short(value: NDArray[np.float32]) -> F32:
    """One number where all are equal."""
    first = value.ravel()[:1]
    return first.reshape(1, 1, 1) if (value == first).all() else value


def less_constant(call: Call, of: Map, value: F32) -> Map:
    """``of - value``, which has the sign of the comparison of both."""
    shift = _short(call.on_map(value, of))
    if not shift.any():
        return of
    reading, key = call.reading, (of.name, shift.shape, shift.tobytes())
    if key not in reading.shifted:
        node = Scale(
            name=call.inner("shifted"), inputs=(of.name,), layer=call.layer, is_inner=True,
            mul=np.ones((1, 1, 1), np.float32), add=-shift,
        )  # fmt: skip
        reading.shifted[key] = reading.add(node, of.layout)
    return reading.shifted[key]
