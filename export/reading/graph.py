"""The small graph between a file of another format and the Program: what is computed, in few kinds.

A front end (one per format) parses its file and writes a :class:`Graph`;
:mod:`frostbit.export.reading.match` makes the Program of it. How to fill it:

* **Values** are maps ``[H, W, C]`` without the batch, always channels last; ``[N, C]`` is
  ``(1, 1, C)``. A front end of a format with channels first turns windows and weights around by
  itself: convolution weights become OHWI, dense weights ``[O, C]``. Where the source flattens
  ``[C, H, W]`` say ``Flatten(channels_first=True)``: the matcher reorders what reads it.
* **Signs are numbers**: :class:`Sign` gives +1 and -1, and nothing says whether they are packed.
  Quantising and unpacking again is one ``Sign`` and one :class:`Identity`; the matcher finds out
  what is one bit wide, also which weights of ``+-c`` per output channel are.
* **Order** is the source's: write what the source computes, op by op. Constants (BatchNorm,
  ``Mul``, ``Sub``...) are :class:`Scale`, two of them in a row rather than one made by hand.
  ``x > 0`` is not ``x >= 0``: as -1 at 0 write ``Scale(-1)``, ``Sign``, ``Scale(-1)``.
* **Constants are arrays**: whatever works on constants alone is folded by the front end.
* **Names**: a value of the source keeps the source's name, by which it is compared later. A value
  that the source has not (a sum before its fused activation) has a name of its own with
  ``is_inner=True``. ``layer`` is what an error calls the place: ``"CONV_2D 'model/conv2d'"``.
* **Right or refused**: an attribute or a mode that no node can say is :func:`refused` by name.

Nodes are added through a :class:`Builder`, which infers every shape on the way, so that SAME
padding, a pool over the whole map or a reshape can be made explicit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir.bits import Words
from frostbit.kernels.ir.program import (
    MAX_DIM,
    MAX_ELEMENTS,
    MAX_OPS,
    NO_BOUND,
    Affine,
    FormatError,
    Preprocessing,
    Threshold,
    Window,
)

F32 = NDArray[np.float32]
Shape: TypeAlias = tuple[int, int, int]
MAX_COPIES, SPARE_BYTES = 4, 1 << 24
"""Bytes of all constants, beside those of the file: numbers of 2 bytes become 4, words of 4 become
8, and constants that the file computes are more than what they are computed from."""


def refused(layer: str, why: str) -> FormatError:
    """The error for a place of the file that cannot be read; ``why`` goes on from its name."""
    return FormatError(f"{layer}: {why}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Node:
    """Base of all nodes; each gives one value, which has its name.

    Attributes:
        name: the source's name of the value, or one of its own.
        inputs: names of values before it.
        layer: operator and name in the source, for errors.
        is_inner: whether the source has no such value.
        order: where each number of this row stands in that of the source; None: there as well.
    """

    name: str
    inputs: tuple[str, ...]
    layer: str
    is_inner: bool = False
    order: NDArray[np.intp] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class Conv(Node):
    """``sum(w * x) + add`` over a window.

    Attributes:
        weights: float32 OHWI, I the channels per group.
        add: float32 ``[O]``.
        pad_value: what pads hold: 0, or +1 around signs.
        frame: what pads hold around pixels, uint8 ``[I]``, instead of ``pad_value``.
    """

    window: Window
    weights: F32
    add: F32
    groups: int = 1
    pad_value: int = 0
    frame: NDArray[np.uint8] | None = None


@dataclass(frozen=True, eq=False, kw_only=True)
class BitConv(Node):
    """A convolution of signs that the source itself packs; as ``BinaryConv`` of a Program."""

    window: Window
    words: Words
    channels_in: int
    groups: int
    pad_value: int
    epilogue: Threshold | Affine


@dataclass(frozen=True, eq=False, kw_only=True)
class Dense(Node):
    """``weights @ x + add`` of ``(1, 1, C)``: float32 ``[O, C]`` and ``[O]``."""

    weights: F32
    add: F32


@dataclass(frozen=True, eq=False, kw_only=True)
class Scale(Node):
    """``x * mul + add`` with constants that broadcast to ``[H, W, C]`` without growing it."""

    mul: F32
    add: F32


@dataclass(frozen=True, eq=False, kw_only=True)
class Add(Node):
    """Sum of two maps of one shape."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Mul(Node):
    """Product of two maps; one of them may be ``(1, 1, C)``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Clip(Node):
    """``clip(x, low, high)``; a Relu is 0 and ``NO_BOUND``."""

    low: float = 0.0
    high: float = NO_BOUND


@dataclass(frozen=True, eq=False, kw_only=True)
class Quantize(Node):
    """``step * clip(round(x / step), low, high)``; halves round to even."""

    step: float
    low: float
    high: float


@dataclass(frozen=True, eq=False, kw_only=True)
class PRelu(Node):
    """``x`` where x >= 0, else ``slope * x``; slope broadcasts as in :class:`Scale`."""

    slope: F32


@dataclass(frozen=True, eq=False, kw_only=True)
class Sigmoid(Node):
    """``1 / (1 + exp(-x))``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Softmax(Node):
    """Over the channels of ``(1, 1, C)``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Sign(Node):
    """+1 where x >= 0, else -1."""


@dataclass(frozen=True, eq=False, kw_only=True)
class MaxPool(Node):
    """Maximum over a window; pads never win."""

    window: Window


@dataclass(frozen=True, eq=False, kw_only=True)
class AvgPool(Node):
    """Average over a window: of all its taps (``counts_pads``, as 0) or of those in the map."""

    window: Window
    counts_pads: bool


@dataclass(frozen=True, eq=False, kw_only=True)
class Mean(Node):
    """Average over H and W -> ``(1, 1, C)``."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Concat(Node):
    """Channels side by side; a value may stand there more than once."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Slice(Node):
    """Channels ``start`` to ``stop - 1``; a split is one of these for each of its outputs."""

    start: int
    stop: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Pad(Node):
    """``value`` around a map, ``(top, left, bottom, right)``, and ``channels`` (before, after)."""

    pads: tuple[int, int, int, int]
    channels: tuple[int, int] = (0, 0)
    value: float = 0.0


@dataclass(frozen=True, eq=False, kw_only=True)
class Flatten(Node):
    """-> ``(1, 1, H * W * C)`` in that order, or in that of ``[C, H, W]``."""

    channels_first: bool = False


@dataclass(frozen=True, eq=False, kw_only=True)
class Identity(Node):
    """The same numbers: a cast, signs unpacked, a reshape of ``(1, 1, C)``."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as its file says it.

    Attributes:
        input: name of the one input.
        shape: ``(H, W, C)`` of one image.
        nodes: in execution order; the last one gives the answer.
        shapes: of every value by name.
        kind: what was read, in words, such as ``"TensorFlow Lite with LCE's operators"``.
        preprocessing: of pixels 0..255, where the file states it.
        notes: what is not quite as in the file, a line each.
        takes: ``f32``, or ``u8`` for a file that takes pixels 0..255.
    """

    input: str
    shape: Shape
    nodes: tuple[Node, ...]
    shapes: dict[str, Shape]
    kind: str
    preprocessing: Preprocessing | None = None
    notes: tuple[str, ...] = ()
    takes: Literal["u8", "f32"] = "f32"


class Builder:
    """Collects nodes in execution order and infers the shape of each.

    Args:
        name: of the input.
        shape: ``(H, W, C)`` of the input.
        kind: as in :class:`Graph`.
        file_bytes: size of what is read. Nodes may share an array of the file, and each makes its
            own of it later, so the sum of all is limited by it.
    """

    def __init__(self, name: str, shape: Shape, kind: str, file_bytes: int) -> None:
        self._input, self._kind = name, kind
        self._nodes: list[Node] = []
        self._bytes_left = MAX_COPIES * file_bytes + SPARE_BYTES
        self._shapes = {name: _sized(shape, "the input")}

    def shape(self, name: str) -> Shape:
        """Of a value that is there; KeyError of any other."""
        return self._shapes[name]

    def add(self, node: Node) -> str:
        """Add a node and return its name; FormatError if it cannot follow those before it."""
        if not node.inputs:
            raise refused(node.layer, "has no input")
        for name in node.inputs:
            if name not in self._shapes:
                raise refused(node.layer, f"reads '{name}', which nothing before it computes")
        if node.name in self._shapes:
            raise refused(node.layer, f"gives '{node.name}', which is there already")
        if len(self._nodes) == MAX_OPS:
            raise refused(node.layer, f"more than {MAX_OPS} operators")
        self._bytes_left -= sum(
            value.nbytes for value in vars(node).values() if isinstance(value, np.ndarray)
        )
        if self._bytes_left < 0:
            raise refused(node.layer, "the weights are far more than the file holds")
        sources = [self._shapes[name] for name in node.inputs]
        self._shapes[node.name] = _sized(output_shape(node, sources), node.layer)
        self._nodes.append(node)
        return node.name

    def graph(self, output: str, preprocessing: Preprocessing | None = None) -> Graph:
        """All that ``output`` needs; FormatError if nothing computes it."""
        wanted, kept = {output}, []
        for node in reversed(self._nodes):
            if node.name in wanted:
                kept.append(node)
                wanted.update(node.inputs)
        if not kept or kept[0].name != output:
            raise FormatError(f"the output '{output}' is not computed")
        return Graph(
            self._input, self._shapes[self._input], tuple(reversed(kept)), dict(self._shapes),
            self._kind, preprocessing,
        )  # fmt: skip


def _sized(shape: Shape, layer: str) -> Shape:
    height, width, channels = shape
    if not 1 <= min(shape) <= max(shape) <= MAX_DIM or height * width * channels > MAX_ELEMENTS:
        raise refused(layer, f"a map of {height} x {width} x {channels} is impossible or too large")
    return shape


def output_shape(node: Node, sources: list[Shape]) -> Shape:
    """Shape of a node's value; the matcher's ``verify`` checks what is left to check.

    Raises:
        FormatError: the inputs do not go together; the text names the layer.
    """
    height, width, channels = sources[0]
    match node:
        case Conv(window=window) | BitConv(window=window):
            outputs = node.weights.shape[0] if isinstance(node, Conv) else node.words.shape[0]
            return (*_slid(node, window, height, width), outputs)
        case MaxPool(window=window) | AvgPool(window=window):
            return (*_slid(node, window, height, width), channels)
        case Dense(weights=weights):
            return (1, 1, weights.shape[0])
        case Mean():
            return (1, 1, channels)
        case Concat():
            return (height, width, sum(shape[2] for shape in sources))
        case Slice(start=start, stop=stop) if 0 <= start < stop <= channels:
            return (height, width, stop - start)
        case Pad(pads=(top, left, bottom, right), channels=added):
            return (height + top + bottom, width + left + right, channels + sum(added))
        case Flatten():
            return (1, 1, height * width * channels)
        case Scale() | PRelu():
            _check_broadcast(node, (height, width, channels))
        case Add() | Mul() if len(sources) == 2:
            return _joined(node, sources)
        case Slice():
            raise refused(node.layer, f"channels {node.start} to {node.stop} of {channels}")
    return (height, width, channels)


def _slid(node: Node, window: Window, height: int, width: int) -> tuple[int, int]:
    steps = (*window.kernel, *window.stride, *window.dilation)
    if not 1 <= min(steps) <= max(*steps, *window.pads) <= MAX_DIM or min(window.pads) < 0:
        raise refused(node.layer, f"a window of {window} is impossible")
    return window.output(height, width)


def _check_broadcast(node: Scale | PRelu, shape: Shape) -> None:
    arrays = (node.mul, node.add) if isinstance(node, Scale) else (node.slope,)
    for array in arrays:
        sizes = (1,) * (3 - array.ndim) + array.shape
        if len(sizes) > 3 or any(a not in (1, b) for a, b in zip(sizes, shape, strict=True)):
            raise refused(node.layer, f"a constant {list(array.shape)} on a map {list(shape)}")


def _joined(node: Add | Mul, sources: list[Shape]) -> Shape:
    first, second = sources
    if first == second:
        return first
    for shape, other in ((first, second), (second, first)):
        if isinstance(node, Mul) and other == (1, 1, shape[2]):
            return shape
    raise refused(node.layer, f"joins maps {list(first)} and {list(second)}")
