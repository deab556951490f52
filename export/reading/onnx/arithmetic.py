"""Reading ONNX's element-wise operators, BatchNormalization, activations and QONNX's quantizers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import TensorProto

from frostbit.export.reading.graph import (
    F32,
    Add,
    Clip,
    Mul,
    PRelu,
    Quantize,
    Scale,
    Sigmoid,
    Softmax,
)
from frostbit.export.reading.onnx.call import Call, Map, Signs, less_constant
from frostbit.export.reading.onnx.constants import levels
from frostbit.export.reading.onnx.file import Array
from frostbit.kernels.ir.program import NO_BOUND

ONE, ZERO = np.ones((1, 1, 1), np.float32), np.zeros((1, 1, 1), np.float32)
AT = {
    "Sign": (-1.0, 0.0, 1.0),
    "Greater": (False, False, True),
    "GreaterOrEqual": (False, True, True),
    "Less": (True, False, False),
    "LessOrEqual": (True, True, False),
    "Equal": (False, True, False),
}
"""Results where a value, less what it is compared with, is negative, zero and positive."""
MIRRORED = {
    "Greater": "Less",
    "GreaterOrEqual": "LessOrEqual",
    "Less": "Greater",
    "LessOrEqual": "GreaterOrEqual",
    "Equal": "Equal",
}


def _scaled(call: Call, of: Map, mul: F32, add: F32) -> None:
    """Give ``mul * of + add``, both ``[H, W, C]``."""
    node = Scale(name=call.name, inputs=(of.name,), layer=call.layer, mul=mul, add=add)
    call.give(call.add(node, of.layout))


def _negated(call: Call, of: Map) -> Map:
    name = call.inner("negated")
    node = Scale(
        name=name, inputs=(of.name,), layer=call.layer, is_inner=True, mul=-ONE, add=ZERO
    )  # fmt: skip
    return call.add(node, of.layout)


def _is_constant(call: Call, position: int) -> bool:
    return isinstance(call.value(position), np.ndarray)


def _joined(call: Call, kind: type[Add] | type[Mul], first: Map, second: Map) -> None:
    if first.layout != second.layout:
        raise call.refused(f"joins maps of axes {first.layout} and {second.layout}")
    node = kind(name=call.name, inputs=(first.name, second.name), layer=call.layer)
    call.give(call.add(node, first.layout))


def add(call: Call) -> None:
    call.takes(2, 2)
    if not (_is_constant(call, 0) or _is_constant(call, 1)):
        _joined(call, Add, call.map(0), call.map(1))
        return
    of, other = (1, 0) if _is_constant(call, 0) else (0, 1)
    x = call.map(of)
    _scaled(call, x, ONE, call.on_map(call.floats(other), x))


def subtract(call: Call) -> None:
    call.takes(2, 2)
    if _is_constant(call, 0):
        x = call.map(1)
        _scaled(call, x, -ONE, call.on_map(call.floats(0), x))
    elif _is_constant(call, 1):
        x = call.map(0)
        _scaled(call, x, ONE, -call.on_map(call.floats(1), x))
    else:
        _joined(call, Add, call.map(0), _negated(call, call.map(1)))


def multiply(call: Call) -> None:
    call.takes(2, 2)
    if not (_is_constant(call, 0) or _is_constant(call, 1)):
        _joined(call, Mul, call.map(0), call.map(1))
        return
    of, other = (1, 0) if _is_constant(call, 0) else (0, 1)
    x = call.map(of)
    _scaled(call, x, call.on_map(call.floats(other), x), ZERO)


def divide(call: Call) -> None:
    call.takes(2, 2)
    x, divisor = call.map(0), call.floats(1)
    if not divisor.all():
        raise call.refused("divides by 0")
    _scaled(call, x, np.float32(1) / call.on_map(divisor, x), ZERO)


def negate(call: Call) -> None:
    call.takes(1, 1)
    _scaled(call, call.map(), -ONE, ZERO)


def total(call: Call) -> None:
    """Sum of several maps of one shape."""
    maps = [call.map(position) for position in range(len(call.node.input))]
    if len(maps) < 2:
        raise call.refused(f"of {len(maps)} values is not read")
    sum_, *others = maps
    for position, other in enumerate(others):
        is_last = position == len(others) - 1
        if other.layout != sum_.layout:
            raise call.refused(f"joins maps of axes {sum_.layout} and {other.layout}")
        name = call.name if is_last else call.inner(f"first {position + 2}")
        node = Add(
            name=name, inputs=(sum_.name, other.name), layer=call.layer, is_inner=not is_last
        )
        sum_ = call.add(node, sum_.layout)
    call.give(sum_)


def batch_normalization(call: Call) -> None:
    """One multiplier and one addend, in float32, as ONNX Runtime computes them."""
    call.takes(5, 5)
    epsilon = np.float32(call.attributes.number("epsilon", 1e-5))
    call.attributes.number("momentum", 0.9)
    if call.attributes.integer("training_mode", 0) or not call.attributes.integer("spatial", 1):
        raise call.refused("only inference with one mean a channel is read")
    x = call.map()
    if x.layout[1:2] != "C":
        raise call.refused(f"normalizes axis 1 of a map of axes {x.layout}, which is not C")
    channels = call.reading.size(x, "C")
    scale, bias, mean, variance = (call.floats(position) for position in range(1, 5))
    if not {scale.shape, bias.shape, mean.shape, variance.shape} == {(channels,)}:
        raise call.refused(f"needs one number for each of {channels} channels")
    if not (variance + epsilon > 0).all():
        raise call.refused("a variance is negative")
    mul = scale * (np.float32(1) / np.sqrt(variance + epsilon))
    add = bias - mean * mul
    _scaled(call, x, mul.reshape(1, 1, -1), add.reshape(1, 1, -1))


def _clipped(call: Call, of: Map, low: float, high: float) -> None:
    """Give ``clip(of, low, high)``: nothing where it never clips, a sign where it can only be."""
    if not low <= high:  # nor if one is NaN
        raise call.refused(f"clips to {low} .. {high}")
    low, high = max(low, -NO_BOUND), min(high, NO_BOUND)
    known = call.reading.facts[of.name]
    if low <= -known.limit and known.limit <= high:
        call.give(of)
        return
    if (low, high) == (-1.0, 1.0) and known.is_whole and known.is_never_zero:
        call.give(Signs(of, _at((-1.0, 1.0, 1.0))))
        return
    node = Clip(name=call.name, inputs=(of.name,), layer=call.layer, low=low, high=high)
    call.give(call.add(node, of.layout))


def relu(call: Call) -> None:
    call.takes(1, 1)
    _clipped(call, call.map(), 0.0, NO_BOUND)


def clip(call: Call) -> None:
    if call.opset < 11:
        call.takes(1, 1)
        low = call.attributes.number("min", -NO_BOUND)
        high = call.attributes.number("max", NO_BOUND)
    else:
        call.takes(1, 3)
        low = call.number(1) if call.has(1) else -NO_BOUND
        high = call.number(2) if call.has(2) else NO_BOUND
    _clipped(call, call.map(), low, high)


def _limit(call: Call) -> tuple[Map, float]:
    """The map and the number of a ``Max`` or ``Min``."""
    call.takes(2, 2)
    of, other = (1, 0) if _is_constant(call, 0) else (0, 1)
    return call.map(of), call.number(other)


def minimum(call: Call) -> None:
    x, high = _limit(call)
    _clipped(call, x, -NO_BOUND, high)


def maximum(call: Call) -> None:
    x, low = _limit(call)
    _clipped(call, x, low, NO_BOUND)


def _sloped(call: Call, slope: F32) -> None:
    x = call.map()
    node = PRelu(name=call.name, inputs=(x.name,), layer=call.layer, slope=call.on_map(slope, x))
    call.give(call.add(node, x.layout))


def prelu(call: Call) -> None:
    call.takes(2, 2)
    _sloped(call, call.floats(1))


def leaky_relu(call: Call) -> None:
    call.takes(1, 1)
    _sloped(call, np.asarray(call.attributes.number("alpha", 0.01), np.float32))


def sigmoid(call: Call) -> None:
    call.takes(1, 1)
    x = call.map()
    call.give(call.add(Sigmoid(name=call.name, inputs=(x.name,), layer=call.layer), x.layout))


def _hard_sigmoid(call: Call, x: Map, alpha: float, beta: float, name: str) -> Map:
    """``clip(alpha * x + beta, 0, 1)``."""
    inner = call.inner("before it is clipped")
    mul, add_ = np.full((1, 1, 1), alpha, np.float32), np.full((1, 1, 1), beta, np.float32)
    node = Scale(
        name=inner, inputs=(x.name,), layer=call.layer, is_inner=True, mul=mul, add=add_
    )  # fmt: skip
    call.add(node, x.layout)
    clipped = Clip(
        name=name, inputs=(inner,), layer=call.layer, is_inner=name != call.name, low=0.0, high=1.0
    )
    return call.add(clipped, x.layout)


def hard_sigmoid(call: Call) -> None:
    call.takes(1, 1)
    alpha, beta = call.attributes.number("alpha", 0.2), call.attributes.number("beta", 0.5)
    call.give(_hard_sigmoid(call, call.map(), alpha, beta, call.name))


def hard_swish(call: Call) -> None:
    call.takes(1, 1)
    x = call.map()
    _joined(call, Mul, x, _hard_sigmoid(call, x, 1 / 6, 0.5, call.inner("hard sigmoid")))


def softmax(call: Call) -> None:
    call.takes(1, 1)
    x = call.map()
    letter = call.axis(x, -1 if call.opset >= 13 else 1)
    height, width, _ = call.reading.builder.shape(x.name)
    if letter != "C" or (height, width) != (1, 1):
        raise call.refused("is read over the channels of [N, C] only")
    call.give(call.add(Softmax(name=call.name, inputs=(x.name,), layer=call.layer), x.layout))


def same(call: Call) -> None:
    """The value itself: its name in the small graph is that of the input."""
    call.takes(1, 1)
    call.give(call.map())


def dropout(call: Call) -> None:
    call.takes(1, 3)
    call.attributes.number("ratio", 0.5)
    call.attributes.integer("seed", 0)
    if call.has(1):
        call.constant(1)
    if call.has(2) and call.constant(2).any():
        raise call.refused("in training is not read")
    call.give(call.map())


def cast(call: Call) -> None:
    call.takes(1, 1)
    call.attributes.integer("saturate", 1)
    if call.attributes.integer("to", 0) != TensorProto.FLOAT:
        raise call.refused("to another type than float32 is not read")
    call.give(call.map())


def _at(values: tuple[float, float, float]) -> tuple[Array, Array, Array]:
    kind = np.bool_ if isinstance(values[0], bool) else np.float32
    negative, zero, positive = values
    return np.asarray(negative, kind), np.asarray(zero, kind), np.asarray(positive, kind)


def sign(call: Call) -> None:
    call.takes(1, 1)
    call.give(Signs(call.map(), _at(AT["Sign"])))


def compare(call: Call) -> None:
    """A map with a constant."""
    call.takes(2, 2)
    kind = call.node.op_type
    if _is_constant(call, 0):
        of, other, kind = call.map(1), call.floats(0), MIRRORED[kind]
    else:
        of, other = call.map(0), call.floats(1)
    call.give(Signs(less_constant(call, of, other), _at(AT[kind])))


def bipolar_quant(call: Call) -> None:
    call.takes(2, 2)
    x, scale = call.map(), call.floats(1)
    call.give(Signs(x, (np.asarray(-scale), scale, scale)))


def quant(call: Call) -> None:
    """Several bits are steps of one size around 0; one bit is a choice by sign."""
    call.takes(4, 4)
    for name in ("signed", "narrow"):
        call.attributes.integer(name, 1)
    call.attributes.text("rounding_mode", "ROUND")
    x, scale, zero = call.map(), call.floats(1), call.floats(2)
    how = levels(call.node, call.constant(3), call.layer)
    if zero.any():
        raise call.refused("with a zero point other than 0 is read of constants only")
    if not (scale > 0).all():
        raise call.refused("a scale is not positive")
    if how.is_sign:
        call.give(Signs(x, (np.asarray(-scale), scale, scale)))
        return
    if how.rounding not in ("ROUND", "HALF_EVEN"):
        raise call.refused(f"the rounding {how.rounding} is read of constants only")
    if (how.low, how.high) == (0.0, 1.0):  # rounds half a step down, to the even 0
        nothing = np.zeros_like(scale)
        call.give(Signs(less_constant(call, x, scale / np.float32(2)), (nothing, nothing, scale)))
        return
    if scale.size != 1:
        raise call.refused("one scale for each channel is read of constants only")
    node = Quantize(
        name=call.name, inputs=(x.name,), layer=call.layer, step=float(scale.item()),
        low=how.low, high=how.high,
    )  # fmt: skip
    call.give(call.add(node, x.layout))


RULES: dict[str, Callable[[Call], None]] = {
    "Add": add,
    "BatchNormalization": batch_normalization,
    "Cast": cast,
    "Clip": clip,
    "Div": divide,
    "Dropout": dropout,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": hard_swish,
    "Identity": same,
    "LeakyRelu": leaky_relu,
    "Max": maximum,
    "Min": minimum,
    "Mul": multiply,
    "Neg": negate,
    "PRelu": prelu,
    "Relu": relu,
    "Sigmoid": sigmoid,
    "Sign": sign,
    "Softmax": softmax,
    "Sub": subtract,
    "Sum": total,
    **dict.fromkeys(MIRRORED, compare),
}
QUANTIZERS: dict[str, Callable[[Call], None]] = {
    "BipolarQuant": bipolar_quant,
    "IntQuant": quant,
    "Quant": quant,
}
