"""TFLite's operators on constants alone, computed while the file is read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from frostbit.export.lce.graph import lce_words, to_words
from frostbit.export.reading.tflite.call import BOUNDS, Call
from frostbit.export.reading.tflite.options import ACTIVATIONS
from frostbit.export.reading.tflite.source import Constant
from frostbit.kernels.ir import bits


def _give(call: Call, value: Constant) -> None:
    activation = int(call.options.get("fused_activation_function", 0))
    if activation:
        bounds = BOUNDS.get(ACTIVATIONS.get(activation, ""))
        if bounds is None:
            raise call.refused(f"the fused activation {activation} cannot be read")
        value = np.clip(value, np.float32(bounds[0]), np.float32(bounds[1]))
    call.source.fold(call.operator.outputs[0], value, call.layer)


def _reserve(call: Call) -> tuple[int, ...]:
    return call.source.reserve(call.operator.outputs[0], call.operator.inputs, call.layer)


def _dequantize(call: Call) -> None:
    _reserve(call)
    index = call.operator.inputs[0]
    if call.source.tensor(index).is_quantized:
        _give(call, call.source.dequantized(index, call.layer))
        return
    value = call.constant(0)
    if value.dtype != np.float16:
        raise call.refused(f"of {value.dtype} constants cannot be read, only of float16 and int8")
    _give(call, value.astype(np.float32))


def _quantize(call: Call) -> None:
    """Signs of numbers, packed as LCE does."""
    _reserve(call)
    value = call.floats(0)
    if not value.ndim or np.isnan(value).any():
        raise call.refused("of NaN or of a single number")
    packed = bits.pack(value).astype("<u8", copy=False).view("<i4")
    _give(call, packed[..., : lce_words(value.shape[-1])])


def _unpack(call: Call) -> None:
    """Packed signs as numbers."""
    shape = _reserve(call)
    packed = call.constant(0)
    if packed.dtype != np.int32 or not shape or packed.shape[-1:] != (lce_words(shape[-1]),):
        raise call.refused(f"{packed.dtype} {list(packed.shape)} as {list(shape)}")
    _give(call, bits.unpack(to_words(packed), shape[-1]).astype(np.float32))


def _elementwise(function: Callable[..., Constant]) -> Callable[[Call], None]:
    def fold(call: Call) -> None:
        stated = _reserve(call)
        values = [call.floats(position) for position in range(len(call.operator.inputs))]
        try:
            shape = np.broadcast_shapes(*(value.shape for value in values))
        except ValueError as error:
            raise call.refused("constants that do not go together") from error
        if shape != stated:
            raise call.refused(f"gives {list(shape)}, the file says {list(stated)}")
        with np.errstate(all="ignore"):  # what is not finite is refused where it is used
            _give(call, np.asarray(function(*values), np.float32))

    return fold


def _clip(low: float, high: float) -> Callable[..., Constant]:
    return lambda x: np.clip(x, np.float32(low), np.float32(high))


def _axes(call: Call, rank: int) -> tuple[int, ...]:
    axes = tuple(axis + rank if axis < 0 else axis for axis in call.integers(1))
    if not axes or len(set(axes)) != len(axes) or not all(0 <= axis < rank for axis in axes):
        raise call.refused(f"axes {list(axes)} of {rank}")
    return axes


def _mean(call: Call) -> None:
    _reserve(call)
    value = call.floats(0)
    keep = bool(call.options["keep_dims"])
    mean = value.mean(axis=_axes(call, value.ndim), keepdims=keep, dtype=np.float64)
    _give(call, np.asarray(mean, np.float32))


def _transpose(call: Call) -> None:
    _reserve(call)
    value = call.constant(0)
    axes = _axes(call, value.ndim)
    if len(axes) != value.ndim:
        raise call.refused(f"axes {list(axes)} of {value.ndim}")
    _give(call, value.transpose(axes))


def _reshape(call: Call) -> None:
    value, shape = call.constant(0), _reserve(call)
    if value.size != np.prod(shape, dtype=object):
        raise call.refused(f"{list(value.shape)} as {list(shape)}")
    _give(call, value.reshape(shape))


FOLDS: dict[str, tuple[Callable[[Call], None], int, int]] = {
    "ABS": (_elementwise(np.abs), 1, 1),
    "ADD": (_elementwise(np.add), 2, 2),
    "DEQUANTIZE": (_dequantize, 1, 1),
    "DIV": (_elementwise(np.divide), 2, 2),
    "EXPAND_DIMS": (_reshape, 2, 2),
    "LceDequantize": (_unpack, 1, 1),
    "LceQuantize": (_quantize, 1, 1),
    "MEAN": (_mean, 2, 2),
    "MUL": (_elementwise(np.multiply), 2, 2),
    "NEG": (_elementwise(np.negative), 1, 1),
    "RELU": (_elementwise(_clip(*BOUNDS["RELU"])), 1, 1),
    "RELU6": (_elementwise(_clip(*BOUNDS["RELU6"])), 1, 1),
    "RELU_N1_TO_1": (_elementwise(_clip(*BOUNDS["RELU_N1_TO_1"])), 1, 1),
    "RESHAPE": (_reshape, 1, 2),
    "SQUEEZE": (_reshape, 1, 1),
    "SUB": (_elementwise(np.subtract), 2, 2),
    "TRANSPOSE": (_transpose, 2, 2),
}
"""By operator: its rule, and the fewest and most inputs, all of which are constant."""
