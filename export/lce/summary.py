"""Summary of any .tflite file, plain or with Larq Compute Engine's operators; no TensorFlow.

Bits travel as int32 words there: from ``LceQuantize`` or ``LceBconv2d`` through pads, slices,
joins and ``LceBMaxPool2d``. Such a map is shown with its real channels and a precision of 1 bit.
Operators on constants alone (a ``DEQUANTIZE`` of float16 weights) belong to who reads the result.
"""

from __future__ import annotations

from collections.abc import Sequence

from frostbit.export.errors import ExportError
from frostbit.export.lce.graph import LCE_WORD_BITS, lce_words
from frostbit.export.lce.tflite_reader import (
    BOOL,
    INT32,
    INT64,
    TYPE_BITS,
    Model,
    Operator,
    custom_option,
    read,
)
from frostbit.export.summary import Layer, Summary, by_layer, product, readable

_MOVES = {
    "CONCATENATION", "EXPAND_DIMS", "LceBMaxPool2d", "PAD", "PADV2", "RESHAPE", "SLICE", "SPLIT",
    "SPLIT_V", "SQUEEZE", "STRIDED_SLICE",
}  # fmt: skip
"""Operators that move packed words without looking at their bits."""

_CONVERTS = {"CAST", "DEQUANTIZE", "DENSIFY"}
"""Operators whose output holds no more information than their input."""

_READS_INTEGERS = {
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "LceBconv2d", "TRANSPOSE_CONV"
}  # fmt: skip

_NOT_COUNTED = {
    "BATCH_MATMUL", "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "CONV_3D",
    "CONV_3D_TRANSPOSE", "IF", "LSTM", "RNN", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM",
    "UNIDIRECTIONAL_SEQUENCE_RNN", "WHILE",
}  # fmt: skip
"""Operators with multiplications that are not counted here, and noted."""

_LCE = {"LceQuantize", "LceDequantize", "LceBconv2d", "LceBMaxPool2d"}


class _Reader:
    """Walks the operators in order and keeps what is known of every tensor."""

    def __init__(self, model: Model) -> None:
        self._tensors = model.tensors
        self._made_of: dict[int, tuple[int, ...]] = {
            index: () for index, tensor in enumerate(model.tensors) if tensor.bytes
        }
        self._packed: dict[int, int] = {}  # tensor of packed words -> its real channels
        self._bits: dict[int, int] = {}
        self._counted: set[int] = set()
        self._buffers: set[int] = set()

    def _precision(self, index: int) -> int:
        if index in self._packed:
            return 1
        return self._bits.get(index, TYPE_BITS.get(self._tensors[index].type, 32))

    def _constant_inputs(self, operator: Operator) -> list[int]:
        """All arrays of the file behind ``operator`` that no earlier operator has counted."""
        found, waiting = [], [index for index in operator.inputs if index in self._made_of]
        while waiting:
            index = waiting.pop()
            if index in self._counted:
                continue
            self._counted.add(index)
            if self._made_of[index]:
                waiting += [part for part in self._made_of[index] if part in self._made_of]
            else:
                found.append(index)
        return found

    def _is_parameter(self, operator: Operator, index: int) -> bool:
        """Whether a constant is more than plumbing: int32 only as bias, threshold or bits."""
        tensor = self._tensors[index]
        if not tensor.shape or tensor.type in (BOOL, INT64) or tensor.type not in TYPE_BITS:
            return False
        return tensor.type != INT32 or (
            operator.name in _READS_INTEGERS and index != operator.inputs[0]
        )

    def _parameters(self, operator: Operator) -> tuple[dict[int, int], int]:
        """Parameters by bits, and bytes of the buffers that are new."""
        counts: dict[int, int] = {}
        size = 0
        for index in self._constant_inputs(operator):
            if not self._is_parameter(operator, index):
                continue
            tensor = self._tensors[index]
            bits, count = TYPE_BITS[tensor.type], product(tensor.shape)
            if operator.name == "LceBconv2d" and index == operator.inputs[1]:
                bits, count = 1, product(tensor.shape[:3]) * self._filter_channels(operator)
            counts[bits] = counts.get(bits, 0) + count
            if tensor.scales > 1 and index not in operator.inputs:  # behind a DEQUANTIZE
                counts[32] = counts.get(32, 0) + tensor.scales
                size += 4 * tensor.scales
            size += 0 if tensor.buffer in self._buffers else tensor.bytes
            self._buffers.add(tensor.buffer)
        return counts, size

    def _filter_channels(self, operator: Operator) -> int:
        """Input channels that one output channel of an LceBconv2d reads."""
        source, weights = (self._shape(operator, position) for position in (0, 1))
        if len(source) != 4 or len(weights) != 4:
            raise ExportError("the TFLite file is damaged: LceBconv2d reads maps without four axes")
        channels = custom_option(operator, "channels_in")
        if channels < 1 or lce_words(channels) != source[3]:
            raise ExportError(
                f"the TFLite file is damaged: LceBconv2d reads {source[3]} words as {channels} "
                "channels"
            )
        return channels if weights[3] == source[3] else weights[3] * LCE_WORD_BITS

    def _shape(self, operator: Operator, position: int) -> tuple[int, ...]:
        """Shape of an input; no axes if it is absent."""
        index = operator.inputs[position] if position < len(operator.inputs) else -1
        return self._tensors[index].shape if index >= 0 else ()

    def _mac_count(self, operator: Operator) -> int:
        """Multiply-accumulates of an operator; 0 where it has none."""
        output = product(self._tensors[operator.outputs[0]].shape)
        weights = self._shape(operator, 1)
        match operator.name:
            case "LceBconv2d":
                taps = product(weights[1:3]) * self._filter_channels(operator)
                pixels = product(self._tensors[operator.outputs[0]].shape[:-1])
                return pixels * weights[0] * taps
            case "CONV_2D" | "FULLY_CONNECTED" if weights:
                return output * product(weights[1:])
            case "DEPTHWISE_CONV_2D" if len(weights) == 4:
                return output * weights[1] * weights[2]
            case "TRANSPOSE_CONV" if len(weights) == 4:
                return product(self._shape(operator, 2)) * product(weights[:3])
        return 0

    def _macs(self, operator: Operator) -> dict[int, int]:
        count = self._mac_count(operator)
        if not count:
            return {}
        if operator.name == "LceBconv2d":
            return {1: count}
        factors = operator.inputs[1:3] if operator.name == "TRANSPOSE_CONV" else operator.inputs[:2]
        return {max(self._precision(index) for index in factors if index >= 0): count}

    def _note_outputs(self, operator: Operator) -> None:
        """Precision and channels of what ``operator`` makes."""
        first = operator.outputs[0]
        sources = [index for index in operator.inputs if index >= 0]
        match operator.name:
            case "LceQuantize" if sources:
                self._packed[first] = (self._tensors[sources[0]].shape or (1,))[-1]
            case "LceBconv2d" if self._tensors[first].type == INT32:
                self._packed[first] = (self._shape(operator, 1) or (1,))[0]
            case "LceDequantize":
                self._bits[first] = 1
            case name if name in _CONVERTS and sources:
                self._bits[first] = min(self._precision(sources[0]), self._precision(first))
            case name if name in _MOVES and sources and sources[0] in self._packed:
                for output in operator.outputs:
                    self._packed[output] = self._moved_channels(sources, output)

    def _moved_channels(self, sources: Sequence[int], output: int) -> int:
        """Channels of a packed map made of ``sources``: unchanged, or whole words.

        Of several maps in a row the last may end within a word.
        """
        words = (self._tensors[output].shape or (1,))[-1]
        if (self._tensors[sources[0]].shape or (1,))[-1] == words:
            return self._packed[sources[0]]
        last = self._packed.get(sources[-1], 0) if len(sources) > 1 else 0
        spare = -last % LCE_WORD_BITS
        return words * LCE_WORD_BITS - spare

    def _output(self, index: int) -> tuple[int, ...]:
        """Shape of one image's map, with real channels."""
        shape = self._tensors[index].shape
        return (*shape[1:-1], self._packed.get(index, shape[-1])) if len(shape) > 1 else shape

    def row(self, operator: Operator) -> Layer | None:
        """Account for one operator; None if it works on constants alone."""
        present = [index for index in operator.inputs if index >= 0]
        if present and all(index in self._made_of for index in present):
            for output in operator.outputs:
                self._made_of[output] = tuple(present)
            self._note_outputs(operator)
            return None
        self._note_outputs(operator)
        inputs = [self._precision(index) for index in present if index not in self._made_of]
        width = 1 if operator.name == "LceBconv2d" else max(inputs, default=None)
        parameters, size = self._parameters(operator)
        first = operator.outputs[0]
        name = self._tensors[first].name or f"tensor {first}"
        shape, macs = self._output(first), self._macs(operator)
        return Layer(name, operator.name, width, shape, parameters, size, macs)


def _notes(model: Model) -> tuple[str, ...]:
    unknown = {op.name for op in model.operators if op.is_custom} - _LCE
    unknown |= {op.name for op in model.operators} & _NOT_COUNTED
    notes = []
    if unknown:
        listed = ", ".join(readable(name) for name in sorted(unknown))
        notes.append(f"MACs inside these operators are not counted: {listed}")
    if model.further_graphs:
        notes.append(f"only the main graph is counted; the file has {model.further_graphs} more")
    batches = {shape[0] for index in model.inputs if (shape := model.tensors[index].shape)}
    if batches - {1}:
        notes.append(f"MACs are for a batch of {max(batches)}, as the file says")
    return tuple(notes)


def summarise_tflite(data: bytes) -> Summary:
    """Summary of the bytes of a .tflite file.

    Raises:
        ExportError: it is not TFLite, or it is damaged; the text says how.
    """
    model = read(data)
    reader = _Reader(model)
    rows = [reader.row(operator) for operator in model.operators]
    layers = by_layer([row for row in rows if row is not None])
    return Summary("TFLite", len(data), layers, _notes(model))
