"""From the settled torch module to the Program: names, layout and bits change, values do not.

Walks the fx graph once; a table maps what a node calls to a rule that appends ops. PyTorch's
NCHW / OIHW arrays become NHWC / OHWI, a flattened map's columns are put back into map order,
and +-1 values are unpacked to float32 where a float op reads them.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import (
    INPUT,
    Add,
    Affine,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    GlobalSum,
    MaxPool,
    Op,
    Program,
    Repeat,
    Sign,
    Threshold,
    ToFloat,
    ValueType,
    Window,
)
from frostbit.kernels.ir.verify import output_type
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering import settled_layers as st
from frostbit.pipeline.network.channels import ChannelRepeat


@dataclass(frozen=True)
class _Value:
    """A lowered value: its name in the Program, and whether torch sees it flattened."""

    name: str
    flat: bool = False


def _numpy(tensor: Tensor) -> NDArray[Any]:
    return np.ascontiguousarray(tensor.detach().cpu().numpy())


def _pair(value: Any) -> tuple[int, int]:
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[1]))


class _Lowering:
    """State of one walk: ops so far, types, and the value of every fx node."""

    def __init__(self, gm: fx.GraphModule, image_shape: tuple[int, int, int]) -> None:
        channels, height, width = image_shape
        self.gm = gm
        self.types = {INPUT: ValueType("u8", (height, width, channels))}
        self.ops: list[Op] = []
        self.values: dict[fx.Node, _Value] = {}
        self.node_of: dict[str, fx.Node] = {}

    def emit(self, op: Op) -> _Value:
        self.types[op.name] = output_type(op, tuple(self.types[name] for name in op.inputs))
        self.ops.append(op)
        return _Value(op.name)

    def as_float(self, value: _Value) -> _Value:
        """``value``, unpacked to f32 first if it is bits (once per value)."""
        if self.types[value.name].kind != "bits":
            return value
        name = f"{value.name}.float"
        if name in self.types:
            return _Value(name, value.flat)
        return self.emit(ToFloat(name, (value.name,)))

    def numbered(self, result: _Value) -> tuple[str, ...]:
        """Class names that are the numbers of the logits."""
        return tuple(str(index) for index in range(self.types[result.name].shape[2]))

    def map_weights(self, value: _Value, weight: Tensor) -> NDArray[Any]:
        """Dense weights ``[O, C*H*W]`` on a flattened map -> OHWI ``[O, H, W, C]``."""
        height, width, channels = self.types[value.name].shape
        array = _numpy(weight).reshape(-1, channels, height, width)
        return np.ascontiguousarray(array.transpose(0, 2, 3, 1))


def _float_conv(lo: _Lowering, name: str, module: st.SettledConv, source: _Value) -> _Value:
    window = Window(
        _pair(tuple(module.weight.shape[2:])), module.stride, module.pads, module.dilation
    )
    weights = _numpy(module.weight.permute(0, 2, 3, 1))
    zero_point = _numpy(module.zero_point)
    add = _numpy(module.add)
    return lo.emit(Conv(name, (source.name,), window, weights, add, zero_point, module.groups))


def _dense(lo: _Lowering, name: str, module: st.SettledDense, source: _Value) -> _Value:
    kind, (height, width, channels) = lo.types[source.name].kind, lo.types[source.name].shape
    if not source.flat and kind != "u8" and (height, width) != (1, 1):
        raise UserError(f"'{name}': flatten the map before a dense layer")
    if kind == "u8" or (height, width) != (1, 1):
        weights = lo.map_weights(source, module.weight)
        zero = np.zeros(channels, np.uint8)
        window = Window((height, width))
        return lo.emit(Conv(name, (source.name,), window, weights, _numpy(module.add), zero))
    source = lo.as_float(source)
    return lo.emit(Dense(name, (source.name,), _numpy(module.weight), _numpy(module.add)))


def _scale(lo: _Lowering, name: str, module: st.SettledScale, source: _Value) -> _Value:
    """A factor and an addend of every channel: a convolution of every channel by itself."""
    channels = len(module.mul)
    weights = _numpy(module.mul).reshape(channels, 1, 1, 1)
    zero = np.zeros(channels, np.uint8)
    window = Window((1, 1))
    op = Conv(name, (source.name,), window, weights, _numpy(module.add), zero, channels)
    return lo.emit(op)


def _epilogue(module: Any) -> Threshold | Affine:
    if module.to_bits:
        return Threshold(_numpy(module.level))
    return Affine(_numpy(module.mul), _numpy(module.add))


def _binary_conv(lo: _Lowering, name: str, module: st.SettledBinaryConv, source: _Value) -> _Value:
    weights = _numpy(module.weight.permute(0, 2, 3, 1))
    window = Window(_pair(weights.shape[1:3]), module.stride, module.pads, module.dilation)
    words, channels = bits.pack(weights), int(weights.shape[3])
    return lo.emit(
        BinaryConv(
            name,
            (source.name,),
            window,
            words,
            channels,
            module.groups,
            module.pad_value,
            _epilogue(module),
        )
    )


def _binary_dense(
    lo: _Lowering, name: str, module: st.SettledBinaryLinear, source: _Value
) -> _Value:
    weights = lo.map_weights(source, module.weight)
    window = Window(_pair(weights.shape[1:3]))
    words, channels = bits.pack(weights), int(weights.shape[3])
    return lo.emit(
        BinaryConv(name, (source.name,), window, words, channels, 1, 0, _epilogue(module))
    )


def _clip(lo: _Lowering, name: str, module: st.SettledClip, source: _Value) -> _Value:
    return lo.emit(Clip(name, (lo.as_float(source).name,)))


def _sign(lo: _Lowering, name: str, module: st.SettledSign, source: _Value) -> _Value:
    if lo.types[source.name].kind == "bits":
        return source
    return lo.emit(Sign(name, (source.name,)))


def _pool_window(module: nn.MaxPool2d | nn.AvgPool2d, height: int, width: int) -> Window:
    """Geometry of a pool; windows that ``ceil_mode`` lets hang over are padded."""
    vertical, horizontal = _pair(module.padding)
    window = Window(
        _pair(module.kernel_size),
        _pair(module.stride),
        (vertical, horizontal, vertical, horizontal),
        _pair(getattr(module, "dilation", 1)),
    )
    if not module.ceil_mode:
        return window
    below = _overhang(window, 0, height, vertical)
    right = _overhang(window, 1, width, horizontal)
    return replace(window, pads=(vertical, horizontal, vertical + below, horizontal + right))


def _overhang(window: Window, axis: int, size: int, pad: int) -> int:
    """How far PyTorch's last window of ``ceil_mode`` reaches beyond the padding."""
    reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1
    stride, free = window.stride[axis], size + 2 * pad - reach
    steps = -(-free // stride)
    if steps * stride >= size + pad:  # it would begin beyond the map
        steps -= 1
    return max(0, steps * stride - free)


def _max_pool(lo: _Lowering, name: str, module: nn.MaxPool2d, source: _Value) -> _Value:
    height, width, _ = lo.types[source.name].shape
    return lo.emit(MaxPool(name, (source.name,), _pool_window(module, height, width)))


def _avg_pool(lo: _Lowering, name: str, module: nn.AvgPool2d, source: _Value) -> _Value:
    source = lo.as_float(source)
    height, width, _ = lo.types[source.name].shape
    window = _pool_window(module, height, width)
    area = window.kernel[0] * window.kernel[1]
    if module.divisor_override not in (None, area) or (
        any(window.pads) and not module.count_include_pad
    ):
        raise UserError(f"'{name}': only average pooling that divides by the kernel's area packs")
    return lo.emit(AvgPool(name, (source.name,), window))


def _repeat(lo: _Lowering, name: str, module: ChannelRepeat, source: _Value) -> _Value:
    return lo.emit(Repeat(name, (lo.as_float(source).name,), int(module.times)))


def _global_sum(lo: _Lowering, name: str, module: st.GlobalSum, source: _Value) -> _Value:
    return lo.emit(GlobalSum(name, (source.name,)))


def _flatten(lo: _Lowering, name: str, module: nn.Flatten, source: _Value) -> _Value:
    return _Value(source.name, flat=True)


RULES: dict[type[nn.Module], Callable[..., _Value]] = {
    st.SettledConv: _float_conv,
    st.SettledDense: _dense,
    st.SettledBinaryConv: _binary_conv,
    st.SettledBinaryLinear: _binary_dense,
    st.SettledScale: _scale,
    st.SettledCrossing: _scale,
    st.SettledSign: _sign,
    st.SettledClip: _clip,
    st.GlobalSum: _global_sum,
    nn.MaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.Flatten: _flatten,
    ChannelRepeat: _repeat,
}


def _joined(lo: _Lowering, node: fx.Node) -> _Value:
    """``torch.cat`` along channels: of bits if all are, else of numbers."""
    parts = [lo.values[part] for part in node.args[0]]  # type: ignore[index, union-attr]
    if any(lo.types[part.name].kind != "bits" for part in parts):
        parts = [lo.as_float(part) for part in parts]
    made = lo.emit(Concat(node.name, tuple(part.name for part in parts)))
    return replace(made, flat=parts[0].flat)


def _lower_node(lo: _Lowering, node: fx.Node) -> _Value:
    sources = [lo.values[source] for source in node.all_input_nodes]
    if node.op == "call_module":
        name = str(node.target)
        module = lo.gm.get_submodule(name)
        rule = RULES.get(type(module))
        if rule is not None:
            used = name if name not in lo.types else f"{name}.{node.name}"
            made = rule(lo, used, module, sources[0])
            return replace(made, flat=made.flat or sources[0].flat)
        raise UserError(f"'{name}': a {type(module).__name__} cannot be packed")
    if node.target is operator.add and all(isinstance(arg, fx.Node) for arg in node.args):
        first, second = (lo.as_float(lo.values[arg]) for arg in node.args)  # type: ignore[index]
        return replace(lo.emit(Add(node.name, (first.name, second.name))), flat=first.flat)
    if node.target is torch.cat:
        return _joined(lo, node)
    raise UserError(
        f"'{node.name}': the operation {getattr(node.target, '__name__', node.target)} cannot be "
        "packed; use modules and `+`"
    )


def _walk(gm: fx.GraphModule, image_shape: tuple[int, int, int]) -> tuple[_Lowering, _Value]:
    lo = _Lowering(gm, image_shape)
    result = _Value(INPUT)
    for node in gm.graph.nodes:
        if node.op == "placeholder":
            lo.values[node] = _Value(INPUT)
        elif node.op == "output":
            result = lo.values[node.all_input_nodes[0]]
        else:
            lo.values[node] = value = _lower_node(lo, node)
            lo.node_of.setdefault(value.name, node)
    return lo, result


def lower(
    gm: fx.GraphModule,
    image_shape: tuple[int, int, int],
    dataset: str = "",
    classes: tuple[str, ...] | None = None,
    settled_hash: str = "",
) -> Program:
    """Translate a settled module into a Program.

    Args:
        gm: from :func:`frostbit.pipeline.lowering.settle.structure`.
        image_shape: ``(C, H, W)``.
        dataset, classes, settled_hash: copied into the Program; without ``classes`` the logits
            are numbered.

    Raises:
        UserError: naming the module or operation that has no op.
    """
    lo, result = _walk(gm, image_shape)
    names = lo.numbered(result) if classes is None else classes
    return Program(lo.types[INPUT].shape, tuple(lo.ops), dataset, names, settled_hash)


def lower_with_targets(
    gm: fx.GraphModule, image_shape: tuple[int, int, int]
) -> tuple[Program, dict[str, str]]:
    """As :func:`lower`, with the target of the module that each op came from, by op name."""
    lo, result = _walk(gm, image_shape)
    program = Program(lo.types[INPUT].shape, tuple(lo.ops), "", lo.numbered(result), "")
    nodes = lo.node_of.items()
    return program, {op: str(node.target) for op, node in nodes if node.op == "call_module"}


def with_numbers(op: Op, module: nn.Module) -> Op:
    """``op``, lowered from ``module`` at another precision, with the numbers it has now."""
    match op, module:
        case BinaryConv(), st.SettledBinaryConv() | st.SettledBinaryLinear():
            return replace(op, epilogue=_epilogue(module))
        case Conv(), st.SettledConv() | st.SettledDense():
            out, height, width, channels = op.weights.shape
            planar = module.weight.reshape(out, channels, height, width)
            return replace(op, weights=_numpy(planar.permute(0, 2, 3, 1)), add=_numpy(module.add))
        case Conv(), st.SettledScale():
            weights = _numpy(module.mul).reshape(op.weights.shape)
            return replace(op, weights=weights, add=_numpy(module.add))
        case Dense(), st.SettledDense():
            return replace(op, weights=_numpy(module.weight), add=_numpy(module.add))
    raise TypeError(f"op '{op.name}': no numbers of a {type(module).__name__}")


def sign_nodes(
    gm: fx.GraphModule, image_shape: tuple[int, int, int]
) -> dict[str, tuple[str, tuple[int, int, int]]]:
    """For every ``bits`` value of the Program: the fx node that computes it, and (H, W, C)."""
    lo, _ = _walk(gm, image_shape)
    return {
        name: (node.name, lo.types[name].shape)
        for name, node in lo.node_of.items()
        if lo.types[name].kind == "bits"
    }
