"""A .tflite file while it is read: its constants, its values, and what is checked of all."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from frostbit.export.lce.graph import lce_words
from frostbit.export.lce.tflite_reader import (
    BOOL,
    FLOAT16,
    FLOAT32,
    INT8,
    INT32,
    INT64,
    Model,
    Operator,
    Tensor,
)
from frostbit.export.reading.graph import MAX_COPIES, SPARE_BYTES, Shape, refused
from frostbit.export.summary import readable
from frostbit.kernels.ir.program import FormatError

Constant = NDArray[np.generic]
_DTYPES = {FLOAT32: "<f4", FLOAT16: "<f2", INT32: "<i4", INT64: "<i8", BOOL: "?"}
QUANTIZED = (
    "works on quantised integers; such graphs cannot be read: convert the model without "
    "post-training quantisation"
)
MOST_PASSES = 32
"""How often all that the file holds may be read to compute constants; XNOR-Net does it 8 times."""


class Source:
    """Tensors of the main graph by index.

    Args:
        data: the file.
        model: of :func:`frostbit.export.lce.tflite_reader.read`.
    """

    def __init__(self, data: bytes, model: Model) -> None:
        self._data, self._tensors = data, model.tensors
        self._folded: dict[int, Constant] = {}
        self._bytes_left = MAX_COPIES * len(data) + SPARE_BYTES
        self._work_left = MOST_PASSES * (len(data) + SPARE_BYTES)
        self._reads = Counter(index for each in model.operators for index in each.inputs)
        self._names = value_names(model)

    def name(self, index: int) -> str:
        """Name of a tensor in the graph."""
        return self._names[index]

    def tensor(self, index: int) -> Tensor:
        return self._tensors[index]

    def layer(self, operator: Operator) -> str:
        """What errors call an operator."""
        return f"{readable(operator.name)} '{self.name(operator.outputs[0])}'"

    def is_constant(self, index: int) -> bool:
        return index in self._folded or self._tensors[index].bytes > 0

    def constant(self, index: int, layer: str) -> Constant:
        """Numbers of a constant tensor; FormatError of one that is computed, or not plain."""
        if index in self._folded:
            return self._folded[index]
        tensor = self._tensors[index]
        if not tensor.bytes:
            raise refused(layer, f"'{self.name(index)}' is not constant, as it must be")
        if tensor.type not in _DTYPES or tensor.is_quantized:
            raise refused(layer, QUANTIZED)
        if tensor.is_sparse or not tensor.offset:
            raise refused(layer, f"the data of '{self.name(index)}' is sparse or not in the file")
        count = math.prod(tensor.shape)
        numbers = np.frombuffer(self._data, _DTYPES[tensor.type], count, tensor.offset)
        return numbers.reshape(tensor.shape)

    def dequantized(self, index: int, layer: str) -> Constant:
        """Numbers that constants of int8 stand for, with one scale or one a channel."""
        tensor = self._tensors[index]
        about = tensor.quantization
        plain = tensor.type == INT8 and tensor.offset and not tensor.is_sparse
        if not plain or about is None or about.number(4, "<B"):
            raise refused(layer, QUANTIZED)
        (at, count), (zeros_at, zeros) = about.vector(2, 4), about.vector(3, 8)
        axis = about.number(6, "<i")
        shape = [1] * len(tensor.shape)
        if count > 1 and 0 <= axis < len(shape):
            shape[axis] = tensor.shape[axis]
        if math.prod(shape) != count or zeros not in (0, count):
            raise refused(layer, f"has {count} scales and {zeros} zero points of {tensor.shape}")
        scale = np.frombuffer(self._data, "<f4", count, at).reshape(shape)
        small = np.frombuffer(self._data, "i1", math.prod(tensor.shape), tensor.offset)
        whole = small.reshape(tensor.shape).astype(np.int64)
        if zeros:
            whole -= np.frombuffer(self._data, "<i8", zeros, zeros_at).reshape(shape)
        with np.errstate(all="ignore"):  # what is not finite is refused where it is used
            return np.asarray(whole.astype(np.float32) * scale, np.float32)

    def reserve(self, index: int, read: tuple[int, ...], layer: str) -> tuple[int, ...]:
        """Shape of a constant before it is computed; FormatError if that is out of proportion."""
        self._work_left -= sum(
            4 * math.prod(self._tensors[each].shape) for each in read if each >= 0
        )
        shape = self._tensors[index].shape
        self._bytes_left -= 4 * math.prod(shape)
        if min(self._bytes_left, self._work_left) < 0:
            raise refused(layer, "computes constants far larger than the file")
        return shape

    def fold(self, index: int, value: Constant, layer: str) -> None:
        """Make a tensor constant, for whose place there was a :meth:`reserve`."""
        if value.shape != self._tensors[index].shape:
            raise refused(layer, f"gives {list(value.shape)}, the file says otherwise")
        self._folded[index] = value

    def release(self, operator: Operator) -> None:
        """Forget computed constants that nothing after ``operator`` reads."""
        for index in operator.inputs:
            self._reads[index] -= 1
            if index in self._folded and not self._reads[index]:
                self._bytes_left += 4 * self._folded.pop(index).size

    def shape(self, index: int, layer: str, in_a_row: bool = False) -> Shape:
        """``(H, W, C)`` of a float tensor, words instead of channels of a packed one.

        Args:
            index: of the tensor.
            layer: that reads or gives it.
            in_a_row: whether only the order of its numbers counts, so that ``[1, H, W]`` will do.

        Raises:
            FormatError: quantised, not float32 or packed, no batch of 1, or another rank.
        """
        tensor = self._tensors[index]
        if tensor.is_quantized or tensor.type not in (FLOAT32, INT32):
            raise refused(layer, QUANTIZED)
        if -1 in tensor.signature[1:]:
            raise refused(layer, f"'{self.name(index)}' has sizes that are known only when it runs")
        match tensor.shape:
            case (1, height, width, channels):
                return (height, width, channels)
            case (1, channels):
                return (1, 1, channels)
            case (1, height, width) if in_a_row:
                return (height, width, 1)
        raise refused(
            layer, f"'{self.name(index)}' is {list(tensor.shape)}, not [1, H, W, C] or [1, C]"
        )

    def check_value(self, index: int, shape: Shape, layer: str) -> None:
        """FormatError unless a tensor has ``shape``, in words if it is packed."""
        height, width, channels = shape
        last = lce_words(channels) if self._tensors[index].type == INT32 else channels
        if self.shape(index, layer) != (height, width, last):
            raise refused(
                layer, f"gives {[1, *shape]}, the file says {list(self._tensors[index].shape)}"
            )


def value_names(model: Model) -> list[str]:
    """Names of tensors, with their number where several have one or one has none."""
    names = [readable(tensor.name) for tensor in model.tensors]
    counts = Counter(names)
    found = [
        name if name and counts[name] == 1 else f"{name}#{number}"
        for number, name in enumerate(names)
    ]
    if len(set(found)) != len(found):
        raise FormatError("the names of its tensors cannot be told apart")
    return found
