"""One operator of a .tflite file while it is read: its inputs by kind, its options, its result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frostbit.export.lce.tflite_reader import FLOAT32, INT32, Operator
from frostbit.export.reading.graph import F32, Builder, Clip, Node, Shape, refused
from frostbit.export.reading.tflite.options import ACTIVATIONS, SAME, VALID, options
from frostbit.export.reading.tflite.source import Constant, Source
from frostbit.kernels.ir.program import MAX_DIM, NO_BOUND, FormatError, Window

BOUNDS = {"RELU": (0.0, NO_BOUND), "RELU_N1_TO_1": (-1.0, 1.0), "RELU6": (0.0, 6.0)}
"""What an activation clips to."""
MOVES = {"EXPAND_DIMS", "RESHAPE", "SQUEEZE"}
"""Operators that only say how the same numbers in a row are to be seen."""


class Call:
    """An operator with what its inputs are.

    Args:
        source: the file.
        builder: what has been read before it.
        operator: of that file.

    Raises:
        FormatError: an option is missing, or not known.
    """

    def __init__(self, source: Source, builder: Builder, operator: Operator) -> None:
        self.source, self.builder = source, builder
        self.operator, self.layer = operator, source.layer(operator)
        self.options = options(operator, self.layer)

    @property
    def name(self) -> str:
        """Of the (first) result."""
        return self.source.name(self.operator.outputs[0])

    def refused(self, why: str) -> FormatError:
        return refused(self.layer, why)

    def index(self, position: int) -> int:
        """Tensor of an input; -1 if it is left out."""
        inputs = self.operator.inputs
        return inputs[position] if position < len(inputs) else -1

    def is_constant(self, position: int) -> bool:
        index = self.index(position)
        return index >= 0 and self.source.is_constant(index)

    def constant(self, position: int) -> Constant:
        """A constant input of any type."""
        index = self.index(position)
        if index < 0:
            raise self.refused(f"input {position} is missing")
        return self.source.constant(index, self.layer)

    def floats(self, position: int, *shape: int) -> F32:
        """A constant float32 input, of ``shape`` if that is given."""
        found = self.constant(position)
        if found.dtype != np.float32:
            raise self.refused(f"input {position} is {found.dtype}, not float32")
        if shape and found.shape != shape:
            raise self.refused(f"input {position} is {list(found.shape)}, not {list(shape)}")
        return found.astype(np.float32, copy=False)

    def bias(self, position: int, outputs: int) -> F32:
        """A float32 ``[outputs]``; zeros if it is left out."""
        if self.index(position) < 0:
            return np.zeros(outputs, np.float32)
        return self.floats(position, outputs)

    def integers(self, position: int) -> list[int]:
        """A constant integer input, flat."""
        found = self.constant(position)
        if found.dtype.kind != "i" or found.size > MAX_DIM:
            raise self.refused(f"input {position} is {found.dtype}, not a few integers")
        return [int(number) for number in found.ravel()]

    def value(self, position: int, packed: bool | None = False) -> str:
        """Name of a computed input.

        Args:
            position: of the input.
            packed: whether it must hold packed signs; None: both will do.
        """
        index = self.index(position)
        if index < 0:
            raise self.refused(f"input {position} is missing")
        if self.source.is_constant(index):
            raise self.refused(f"input {position} is constant, which cannot be read here")
        self.source.shape(index, self.layer, in_a_row=self.operator.name in MOVES)
        if packed is not None and self.source.tensor(index).type != (INT32 if packed else FLOAT32):
            raise self.refused(f"input {position} is not {'packed signs' if packed else 'float32'}")
        return self.source.name(index)

    def is_packed(self, position: int) -> bool:
        return self.source.tensor(self.index(position)).type == INT32

    def shape(self, name: str) -> Shape:
        """Of a value that is there."""
        try:
            return self.builder.shape(name)
        except KeyError as error:
            raise self.refused(f"reads '{name}', which nothing before it computes") from error

    def integer(self, option: str) -> int:
        return int(self.options[option])

    def window(self, kernel: tuple[int, int], size: Shape) -> Window:
        """The window of an operator with stride, dilation and padding by TensorFlow's names."""
        is_lce = self.operator.is_custom
        names = ("height", "width") if is_lce else ("h", "w")
        strides = tuple(self.integer(f"stride_{axis}") for axis in names)
        factors = tuple(int(self.options.get(f"dilation_{axis}_factor", 1)) for axis in names)
        if min(*strides, *factors, *kernel) < 1 or max(*strides, *factors, *kernel) > MAX_DIM:
            raise self.refused(f"stride {strides}, dilation {factors}, kernel {kernel}")
        padding = self.integer("padding")
        if padding not in (SAME, VALID):
            raise self.refused(f"padding {padding} is not known")
        pads = [(0, 0), (0, 0)]
        if padding == SAME:
            pads = [
                _same(*numbers) for numbers in zip(size[:2], kernel, strides, factors, strict=True)
            ]
        (top, bottom), (left, right) = pads
        return Window(
            kernel, (strides[0], strides[1]), (top, left, bottom, right), (factors[0], factors[1])
        )

    def give(self, node: Node) -> None:
        """Add the node of the first result, and the activation that is fused into it."""
        activation = self.integer("fused_activation_function") if self._has_activation else 0
        if activation == 0:
            self.add(node)
            return
        bounds = BOUNDS.get(ACTIVATIONS.get(activation, ""))
        if bounds is None:
            known = ACTIVATIONS.get(activation, activation)
            raise self.refused(f"the fused activation {known} cannot be read")
        inner = self.builder.add(replace(node, name=f"{node.name} (before it)", is_inner=True))
        self.add(
            Clip(name=node.name, inputs=(inner,), layer=self.layer, low=bounds[0], high=bounds[1])
        )

    @property
    def _has_activation(self) -> bool:
        return "fused_activation_function" in self.options and not self.operator.is_custom

    def add(self, node: Node, result: int = 0) -> None:
        """Add the node of a result and check it against the file."""
        self.builder.add(node)
        shape = self.builder.shape(node.name)
        self.source.check_value(self.operator.outputs[result], shape, self.layer)


def _same(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """TensorFlow's SAME: as many results as strides begin in the map; the odd pad comes last."""
    results = -(-size // stride)
    total = max((results - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2
