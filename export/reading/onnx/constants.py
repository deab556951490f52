"""What an ONNX file computes from constants alone, computed while it is read.

ONNX's own operators are evaluated by ``onnx.reference``, one at a time, after a look at how many
numbers come out: a file of a hundred bytes can ask for gigabytes. QONNX's quantizers follow
``qonnx/custom_op/general`` of fastmachinelearning/qonnx.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import checker, helper
from onnx.reference import ReferenceEvaluator

from frostbit.export.onnx.quantizers import DOMAINS, MOST_BITS
from frostbit.export.reading.graph import F32, refused
from frostbit.export.reading.onnx.file import Array, Source, layer_of
from frostbit.export.summary import product
from frostbit.kernels.ir.program import FormatError

Inputs = Sequence[Array | None]
NUMBERS_A_BYTE = 64
"""Numbers that all constants may have together, for each byte of the file: packed weights become
eight a byte, and pass through some operators."""
SPARE_NUMBERS = 1 << 24
_FAULTS = (
    ArithmeticError, AttributeError, LookupError, MemoryError, NotImplementedError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip
"""What the evaluator raises where constants do not go together."""
ROUNDINGS: dict[str, Callable[[F32], F32]] = {
    "ROUND": np.round,
    "HALF_EVEN": np.round,
    "CEIL": np.ceil,
    "FLOOR": np.floor,
    "UP": lambda x: np.sign(x) * np.ceil(np.abs(x)),
    "DOWN": np.trunc,
    "HALF_UP": lambda x: np.sign(x) * np.floor(np.abs(x) + np.float32(0.5)),
    "HALF_DOWN": lambda x: np.sign(x) * np.ceil(np.abs(x) - np.float32(0.5)),
}
"""QONNX's rounding modes."""


def _given(inputs: Inputs) -> list[Array]:
    return [value for value in inputs if value is not None]


def _as_first(node: onnx.NodeProto, inputs: Inputs) -> int:
    return int(_given(inputs)[0].size)


def _joined(*shapes: Sequence[int]) -> int:
    """Numbers in an array to which all broadcast, if they do."""
    aligned = zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1)
    return product(max(sizes) for sizes in aligned)


def _broadcast(node: onnx.NodeProto, inputs: Inputs) -> int:
    return _joined(*(value.shape for value in _given(inputs)))


def _concat(node: onnx.NodeProto, inputs: Inputs) -> int:
    return sum(value.size for value in _given(inputs))


def _gather(node: onnx.NodeProto, inputs: Inputs) -> int:
    table, places = _given(inputs)
    axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
    return int(table.size // max(table.shape[axis], 1) * places.size)


def _whole(value: Array) -> list[int]:
    return [int(number) for number in value.ravel()]


def _filled(node: onnx.NodeProto, inputs: Inputs) -> int:
    return product(_whole(_given(inputs)[0]))


def _expand(node: onnx.NodeProto, inputs: Inputs) -> int:
    value, shape = _given(inputs)
    return _joined(value.shape, _whole(shape))


def _tile(node: onnx.NodeProto, inputs: Inputs) -> int:
    value, times = _given(inputs)
    return value.size * product(_whole(times))


def _pad(node: onnx.NodeProto, inputs: Inputs) -> int:
    value, pads = _given(inputs)[:2]
    most = 2 * max([0, *_whole(pads)])
    return product([size + most for size in value.shape])


def _range(node: onnx.NodeProto, inputs: Inputs) -> int:
    start, limit, step = (float(value) for value in _given(inputs))
    return max(0, math.ceil((limit - start) / step))


SIZES: dict[str, Callable[[onnx.NodeProto, Inputs], int]] = {
    **dict.fromkeys(
        ("Abs", "Cast", "Ceil", "Clip", "Dropout", "Exp", "Flatten", "Floor", "Identity", "Log",
         "Neg", "Not", "Reciprocal", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd",
         "ReduceSum", "Relu", "Reshape", "Round", "Shape", "Sign", "Size", "Slice", "Split",
         "Sqrt", "Squeeze", "Transpose", "Unsqueeze"),
        _as_first,
    ),
    **dict.fromkeys(
        ("Add", "And", "DequantizeLinear", "Div", "Equal", "Greater", "GreaterOrEqual", "Less",
         "LessOrEqual", "Max", "Min", "Mul", "Or", "Pow", "Sub", "Sum", "Where", "Xor"),
        _broadcast,
    ),
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Gather": _gather,
    "Pad": _pad,
    "Range": _range,
    "Tile": _tile,
}  # fmt: skip
"""Operators that may work on constants alone, and how many numbers come out at most."""
ELEMENTWISE = frozenset({
    "Abs", "Add", "And", "BipolarQuant", "Cast", "Clip", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Identity", "IntQuant", "Less", "LessOrEqual", "Max", "Min", "Mul", "Neg",
    "Not", "Or", "Quant", "Relu", "Sign", "Sub", "Sum", "Where", "Xor",
})  # fmt: skip
"""Those whose every number comes from the numbers at its place."""


@dataclass(frozen=True)
class Levels:
    """The rounding of a ``Quant``.

    Attributes:
        low, high: whole numbers.
        is_sign: one signed bit, which QONNX takes as +1 and -1.
        rounding: a key of :data:`ROUNDINGS`.
    """

    low: float
    high: float
    is_sign: bool
    rounding: str


def levels(node: onnx.NodeProto, bits: Array | None, layer: str) -> Levels:
    """Read the attributes of a ``Quant`` and its bit width, which is a constant input."""
    found = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    signed, narrow = found.pop("signed", None), found.pop("narrow", None)
    mode = found.pop("rounding_mode", b"ROUND")
    rounding = mode.decode(errors="replace").upper() if isinstance(mode, bytes) else ""
    if found:
        raise refused(layer, f"the attribute '{next(iter(found))}' is not known")
    if signed not in (0, 1) or narrow not in (0, 1) or rounding not in ROUNDINGS:
        raise refused(layer, f"signed {signed}, narrow {narrow}, rounding {mode!r} are not known")
    if bits is None or bits.size != 1 or not 1 <= float(bits.item()) <= MOST_BITS:
        raise refused(layer, f"the bit width is not one constant of 1 to {MOST_BITS}")
    width = float(bits.item())
    if width != int(width):
        raise refused(layer, f"a bit width of {width} is not whole")
    most = 2.0 ** (width - 1)
    if signed:
        return Levels(narrow - most, most - 1, width == 1, rounding)
    return Levels(0.0, 2 * most - 1 - narrow, False, rounding)


def bipolar(x: F32, scale: F32) -> F32:
    """QONNX's ``BipolarQuant``."""
    one = np.float32(1)
    return np.where(x >= 0, one, -one) * scale


def quantized(x: F32, scale: F32, zero: F32, how: Levels) -> F32:
    """QONNX's ``Quant``."""
    steps = x / scale + zero
    if how.is_sign:
        steps = bipolar(steps, np.ones((), np.float32))
    else:
        steps = ROUNDINGS[how.rounding](np.clip(steps, np.float32(how.low), np.float32(how.high)))
    return (steps - zero) * scale


class Folder:
    """Evaluates operators on constants, as long as their results stay in proportion to the file."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = NUMBERS_A_BYTE * source.bytes + SPARE_NUMBERS
        self._context = checker.C.CheckerContext()
        self._context.ir_version = onnx.IR_VERSION
        self._context.opset_imports = {"": source.opset}

    def fold(self, node: onnx.NodeProto, inputs: Inputs) -> list[Array]:
        """Results of ``node``, one for each of its outputs.

        Args:
            node: an operator.
            inputs: a constant, or None for one that is left out, for each of its inputs.

        Raises:
            FormatError: it is not one of :data:`SIZES` or a quantizer, or would be too large.
        """
        layer = layer_of(node)
        if node.op_type == "Constant":
            return [self._constant(node, layer)]
        with np.errstate(all="ignore"):  # what is not finite is refused where it is used
            try:
                if node.domain in DOMAINS:
                    return [np.asarray(self._quantizer(node, inputs, layer))]
                if node.op_type not in SIZES:
                    raise refused(layer, "of constants alone is not read")
                self._reserve(SIZES[node.op_type](node, inputs), layer)
                return self._evaluate(node, inputs)
            except FormatError:
                raise
            except checker.ValidationError as error:
                raise refused(layer, f"is not valid: {str(error).splitlines()[0]}") from error
            except _FAULTS as error:
                raise refused(layer, "its constants do not go together") from error

    def _reserve(self, size: int, layer: str) -> None:
        self._left -= size
        if size < 0 or self._left < 0:
            raise refused(layer, "the constants are far more than the file holds")

    def _evaluate(self, node: onnx.NodeProto, inputs: Inputs) -> list[Array]:
        checker.check_node(node, self._context)
        given = zip(node.input, inputs, strict=True)
        feed = {name: value for name, value in given if value is not None}
        plain = onnx.NodeProto()
        plain.CopyFrom(node)
        plain.domain = ""
        evaluator = ReferenceEvaluator(plain, opsets={"": self._source.opset})
        return [np.asarray(value) for value in evaluator.run(None, feed)]

    def _constant(self, node: onnx.NodeProto, layer: str) -> Array:
        if len(node.attribute) != 1 or len(node.output) != 1:
            raise refused(layer, "does not hold one value")
        attribute = node.attribute[0]
        match attribute.name:
            case "value":
                return self._source.array(attribute.t, layer)
            case "value_float" | "value_floats":
                return np.array(helper.get_attribute_value(attribute), np.float32)
            case "value_int" | "value_ints":
                return np.array(helper.get_attribute_value(attribute), np.int64)
        raise refused(layer, f"the attribute '{attribute.name}' is not read")

    def _quantizer(self, node: onnx.NodeProto, inputs: Inputs, layer: str) -> Array:
        values = [floats(value, layer) for value in inputs]
        if node.op_type in ("Quant", "IntQuant") and len(values) == 4:
            x, scale, zero, bits = values
            self._reserve(_broadcast(node, values), layer)
            return quantized(x, scale, zero, levels(node, bits, layer))
        if node.op_type == "BipolarQuant" and len(values) == 2 and not node.attribute:
            self._reserve(_broadcast(node, values), layer)
            return bipolar(*values)
        raise refused(layer, f"with {len(values)} inputs is not read")


def floats(value: Array | None, layer: str) -> F32:
    """A constant that must be there and be float32."""
    if value is None or value.dtype != np.float32:
        raise refused(layer, f"a constant is {getattr(value, 'dtype', 'missing')}, not float32")
    return value.astype(np.float32, copy=False)


def integers(value: Array, layer: str) -> list[int]:
    """A constant that must hold a few whole numbers."""
    if value.dtype.kind not in "iu" or value.size > 1 << 10:
        raise refused(layer, f"a constant is {value.dtype} {list(value.shape)}, not a few integers")
    return _whole(value)


def finite(value: NDArray[np.float32], layer: str) -> F32:
    """``value``, unless it holds NaN or infinity."""
    if not np.isfinite(value).all():
        raise refused(layer, "a constant holds NaN or infinity")
    return value
