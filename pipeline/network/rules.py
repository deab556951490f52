"""What becomes of each thing that a network may call; :mod:`.table` says what calls it.

A rule has the parameters of the function or module that it converts, in torch's order and with
torch's defaults; those that it cannot handle are annotated ``Refused``. See ``call_site``.
"""

from __future__ import annotations

import operator
from dataclasses import replace

import torch
from torch import Tensor, fx, nn

from frostbit.kernels.ir.program import MAX_PARTS, Window
from frostbit.pipeline.network.call_site import Refused, Site, Value
from frostbit.pipeline.network.channels import ChannelRepeat

# ---------------------------------------------------------------- layers with weights


def conv(
    site: Site,
    input: fx.Node,
    in_channels: int,
    out_channels: int,
    kernel_size: object,
    stride: object,
    padding: object,
    dilation: object,
    groups: int,
    bias: object,
    padding_mode: Refused = "zeros",
) -> fx.Node:
    site.map_of(input)
    site.once()
    channels, height, width = site.shape
    if isinstance(padding, str):
        site.replace_padding(_padding_of_word(site, padding, kernel_size, stride, dilation))
    return site.keep(Value(site.shape, (channels, height, width)))


def _padding_of_word(
    site: Site, word: str, kernel_size: object, stride: object, dilation: object
) -> tuple[int, int]:
    if word == "valid":
        return (0, 0)
    total = [
        d * (k - 1) for d, k in zip(pair(site, dilation), pair(site, kernel_size), strict=True)
    ]
    if any(each % 2 for each in total):
        raise site.refuse("padding='same' of an even kernel pads unevenly", "give it as numbers")
    return total[0] // 2, total[1] // 2


def linear(
    site: Site, input: fx.Node, in_features: int, out_features: int, bias: object
) -> fx.Node:
    site.vector_of(input)
    site.once()
    return site.keep(Value((out_features,), (out_features, 1, 1)))


def batch_norm(
    site: Site,
    input: fx.Node,
    num_features: int,
    eps: float,
    momentum: object,
    affine: bool,
    track_running_stats: Refused = True,
    bias: object = True,
) -> fx.Node:
    site.once()
    value = site.values[input]
    if isinstance(site.module, nn.BatchNorm1d):
        if site.vector_of(input)[1:] != (1, 1):
            raise site.refuse("BatchNorm1d of a flattened map", "use BatchNorm2d before flattening")
    else:
        site.map_of(input)
    return site.keep(value)


# ---------------------------------------------------------------- activations


def relu(site: Site, input: fx.Node, inplace: bool = False) -> fx.Node:
    return _activation(site, input)


def hardtanh(
    site: Site,
    input: fx.Node,
    min_val: Refused = -1.0,
    max_val: Refused = 1.0,
    inplace: bool = False,
) -> fx.Node:
    return _activation(site, input)


def prelu(
    site: Site,
    input: fx.Node,
    weight: object = None,
    num_parameters: int = 1,
    init: float = 0.25,
) -> fx.Node:
    return _activation(site, input)


def clamp(site: Site, input: fx.Node, min: object = None, max: object = None) -> fx.Node:
    if (min, max) not in ((-1, 1), (0, None), (0, 6)):
        raise site.refuse(
            f"{site.called} to ({min}, {max}) has no binary form", "clamp to (-1, 1) or use ReLU"
        )
    return _activation(site, input)


def _activation(site: Site, input: fx.Node) -> fx.Node:
    value = site.values[input]
    if not (value.is_map or value.is_vector):
        site.map_of(input)
    return site.activation(input)


# ---------------------------------------------------------------- pooling


def pair(site: Site, size: object) -> tuple[int, int]:
    """A size as two numbers (vertical, horizontal)."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, (tuple, list)) and all(isinstance(each, int) for each in size):
        if len(size) == 1:
            return size[0], size[0]
        if len(size) == 2:
            return size[0], size[1]
    raise site.refuse(f"{site.called} with the size {size}", "give one or two whole numbers")


def _with_overhang(window: Window, size: tuple[int, int], result: tuple[int, int]) -> Window:
    """``window`` with the padding that lets it give ``result``, as ``ceil_mode`` asks."""
    top, left, bottom, right = window.pads
    less = window.output(*size)
    return replace(
        window,
        pads=(
            top,
            left,
            bottom + _reach_more(window, 0, size[0], result[0] - less[0]),
            right + _reach_more(window, 1, size[1], result[1] - less[1]),
        ),
    )


def _reach_more(window: Window, axis: int, size: int, more: int) -> int:
    """Padding at the end of an axis for ``more`` further positions of the window."""
    if not more:
        return 0
    reach = (window.kernel[axis] - 1) * window.dilation[axis] + 1
    unused = (size + 2 * window.pads[axis] - reach) % window.stride[axis]
    return more * window.stride[axis] - unused


def _window(
    site: Site, kernel_size: object, stride: object, padding: object, dilation: object
) -> Window:
    kernel = pair(site, kernel_size)
    step = kernel if stride is None or stride == [] else pair(site, stride)
    vertical, horizontal = pair(site, padding)
    pads = (vertical, horizontal, vertical, horizontal)
    return Window(kernel, step, pads, pair(site, dilation))


def max_pool(
    site: Site,
    input: fx.Node,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    dilation: object = 1,
    ceil_mode: bool = False,
    return_indices: Refused = False,
) -> fx.Node:
    _, height, width = site.map_of(input)
    window = _window(site, kernel_size, stride, padding, dilation)
    pads = window.pads[:2]
    window = _with_overhang(window, (height, width), (site.shape[1], site.shape[2]))
    if not window.pads_less_than_kernel() or not window.always_meets(height, width):
        raise site.refuse("a window may lie in the padding alone", "pad less")
    pool = nn.MaxPool2d(window.kernel, window.stride, pads, window.dilation, ceil_mode=ceil_mode)
    return site.place(pool, input, _same_shape(site))


def _same_shape(site: Site) -> Value:
    channels, height, width = site.shape
    return Value(site.shape, (channels, height, width))


def avg_pool(
    site: Site,
    input: fx.Node,
    kernel_size: object,
    stride: object = None,
    padding: object = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> fx.Node:
    source = site.map_of(input)
    window = _window(site, kernel_size, stride, padding, 1)
    if ceil_mode and window.output(*source[1:]) != site.shape[1:]:
        raise site.refuse(
            f"ceil_mode=True cuts a window of the map {list(source[1:])}",
            "leave ceil_mode at False",
        )
    if any(window.pads) and not count_include_pad:
        raise site.refuse("count_include_pad=False cannot be converted", "leave it at True")
    if not window.pads_less_than_kernel():
        raise site.refuse("a window may lie in the padding alone", "pad less")
    pool = nn.AvgPool2d(
        window.kernel, window.stride, window.pads[:2], divisor_override=divisor_override
    )
    return site.place(pool, input, _same_shape(site))


def adaptive_avg_pool(site: Site, input: fx.Node, output_size: object) -> fx.Node:
    if _output(site, input, output_size) == (1, 1):
        return site.place(nn.AdaptiveAvgPool2d(1), input, _same_shape(site))
    kernel = _even_kernel(site, input, output_size)
    return input if kernel == (1, 1) else site.place(nn.AvgPool2d(kernel), input, _same_shape(site))


def adaptive_max_pool(
    site: Site, input: fx.Node, output_size: object, return_indices: Refused = False
) -> fx.Node:
    kernel = _even_kernel(site, input, output_size)
    return input if kernel == (1, 1) else site.place(nn.MaxPool2d(kernel), input, _same_shape(site))


def _output(site: Site, input: fx.Node, output_size: object) -> tuple[int, int]:
    _, height, width = site.map_of(input)
    wanted = output_size if isinstance(output_size, (tuple, list)) else (output_size, output_size)
    vertical, horizontal = (
        size if each is None else each for each, size in zip(wanted, (height, width), strict=True)
    )
    return pair(site, (vertical, horizontal))


def _even_kernel(site: Site, input: fx.Node, output_size: object) -> tuple[int, int]:
    """The window of an adaptive pool whose windows are all alike."""
    _, height, width = site.map_of(input)
    rows, columns = _output(site, input, output_size)
    if height % rows or width % columns:
        raise site.refuse(
            f"adaptive pooling of {height}x{width} to {rows}x{columns} has windows of unequal size",
            "choose a size that divides the map's",
        )
    return height // rows, width // columns


def mean(
    site: Site, input: fx.Node, dim: object = None, keepdim: bool = False, dtype: Refused = None
) -> fx.Node:
    return _reduced(site, input, dim, keepdim, nn.AdaptiveAvgPool2d(1), nn.AvgPool2d)


def amax(site: Site, input: fx.Node, dim: object = (), keepdim: bool = False) -> fx.Node:
    whole = nn.MaxPool2d(site.values[input].map[1:]) if input in site.values else None
    return _reduced(site, input, dim, keepdim, whole, nn.MaxPool2d)


def total(
    site: Site, input: fx.Node, dim: object = None, keepdim: bool = False, dtype: Refused = None
) -> fx.Node:
    """``sum``: the mean, times the number of values."""
    averaged = mean(site, input, dim, keepdim)
    before, after = site.values[input].map, site.values[averaged].map
    area = before[1] * before[2] // (after[1] * after[2])
    return site.affine(averaged, None, float(area), None, 0.0)


def _reduced(
    site: Site,
    input: fx.Node,
    dim: object,
    keepdim: bool,
    whole: nn.Module | None,
    partly: type[nn.AvgPool2d] | type[nn.MaxPool2d],
) -> fx.Node:
    """A pool over the axes ``dim``: the whole map, or its rows or its columns."""
    value = site.value(input)
    axes = (dim,) if isinstance(dim, int) else dim
    if value is None or whole is None or not isinstance(axes, (tuple, list)) or value.is_vector:
        raise site.refuse(f"{site.called} over {dim}", "reduce height and width: dim=(2, 3)")
    rank = len(value.shape) + 1
    reduced = {axis % rank for axis in axes}
    channels, height, width = value.map
    everything = {2, 3} if value.is_map else {2}
    if reduced == everything:
        node = site.put(whole, input, Value((channels, 1, 1), (channels, 1, 1)))
        return node if keepdim else site.flattened(node)
    if not value.is_map or reduced not in ({2}, {3}):
        raise site.refuse(f"{site.called} over {dim}", "reduce height and width: dim=(2, 3)")
    kernel = (height, 1) if reduced == {2} else (1, width)
    made = (channels, height // kernel[0], width // kernel[1])
    return site.put(partly(kernel), input, Value(site.shape, made))


# ---------------------------------------------------------------- shapes


def flatten_module(site: Site, input: fx.Node, start_dim: int, end_dim: int) -> fx.Node:
    return _reshaped(site, input)


def reshape(site: Site, input: fx.Node, *shape: object, **more: object) -> fx.Node:
    return _reshaped(site, input)


def _reshaped(site: Site, input: fx.Node) -> fx.Node:
    """Any change of shape that keeps the map or flattens it, judged by its result."""
    value, shape = site.values[input], site.shape
    channels, height, width = value.map
    if shape == value.shape:
        return input
    if shape == (channels * height * width,):
        return site.flattened(input)
    source = input.all_input_nodes[0] if input.all_input_nodes else input
    if shape == value.map and site.values.get(source) == Value(shape, value.map):
        return source  # it was flattened only to be unflattened
    if value.is_map and shape == (channels, height * width):
        return site.put(nn.Identity(), input, Value(shape, value.map))
    raise site.refuse(
        f"{site.called} makes {list(shape)} of {list(value.shape)} for each image",
        "flatten to [N, features] and leave other shapes alone",
    )


def same(site: Site, input: fx.Node, **more: object) -> fx.Node:
    return input


def dropout(
    site: Site, input: fx.Node, p: float = 0.5, training: bool = True, inplace: bool = False
) -> fx.Node:
    return _dropped(site, input, nn.Dropout(p), training)


def dropout2d(
    site: Site, input: fx.Node, p: float = 0.5, training: bool = True, inplace: bool = False
) -> fx.Node:
    site.map_of(input)
    return _dropped(site, input, nn.Dropout2d(p), training)


def _dropped(site: Site, input: fx.Node, module: nn.Module, training: bool) -> fx.Node:
    value = site.values[input]
    if site.module is not None:
        return site.place(module, input, value)
    if site.in_evaluation(dropout, "training"):
        raise site.refuse(
            f"{site.called}(training=True) drops values in evaluation too",
            "use nn.Dropout, or training=self.training",
        )
    return site.put(module, input, value) if training else input


def concatenate(site: Site, tensors: object, dim: int = 0) -> fx.Node:
    sources: list[fx.Node] = list(tensors) if isinstance(tensors, (tuple, list)) else []
    values = [site.value(source) for source in sources]
    if not sources or any(value is None for value in values):
        raise site.refuse(f"{site.called} of {tensors}", "join maps of the network")
    known = [value for value in values if value is not None]
    alike = {(value.is_map, value.is_vector, value.map[1:]) for value in known}
    rank = len(known[0].shape) + 1
    if len(alike) > 1 or not (known[0].is_map or known[0].is_vector) or dim % rank != 1:
        raise site.refuse(
            f"{site.called} of {[list(value.shape) for value in known]} along {dim}",
            "join maps of one size along their channels: dim=1",
        )
    channels = sum(value.map[0] for value in known)
    made = Value(site.shape, (channels, *known[0].map[1:]))
    if len(sources) == 1:
        return sources[0]
    if len(set(sources)) == 1 and known[0].is_map:
        return site.put(ChannelRepeat(len(sources)), sources[0], made)
    if len(sources) > MAX_PARTS:
        raise site.refuse(f"{site.called} of {len(sources)} maps", f"join {MAX_PARTS} at a time")
    return site.become(torch.cat, (sources, 1), made)


# ---------------------------------------------------------------- arithmetic


def add(site: Site, input: object, other: object, *, alpha: float = 1) -> fx.Node:
    return _sum(site, input, 1.0, other, float(alpha))


def sub(site: Site, input: object, other: object, *, alpha: float = 1) -> fx.Node:
    return _sum(site, input, 1.0, other, -float(alpha))


def rsub(site: Site, input: object, other: object, *, alpha: float = 1) -> fx.Node:
    return _sum(site, other, 1.0, input, -float(alpha))


def neg(site: Site, input: fx.Node) -> fx.Node:
    return site.affine(input, None, -1.0, None, 0.0)


def mul(site: Site, input: object, other: object) -> fx.Node:
    first, second = site.tensor(input), site.tensor(other)
    if first is None and isinstance(input, fx.Node):
        return _times(site, input, second)
    if isinstance(other, fx.Node):
        return _times(site, other, first)
    raise site.refuse(f"{site.called} of two constants", "use each of them itself")


def div(site: Site, input: object, other: object, *, rounding_mode: Refused = None) -> fx.Node:
    divisor = site.tensor(other)
    if site.tensor(input) is not None or not isinstance(input, fx.Node) or divisor is None:
        raise site.refuse("a division by a map", "divide by numbers only")
    if isinstance(divisor, nn.Parameter) or divisor.numel() != 1 or float(divisor) == 0:
        raise site.refuse("a division by more than a number", "multiply by a parameter instead")
    return site.affine(input, None, 1.0 / float(divisor), None, 0.0)


def _times(site: Site, source: fx.Node, factor: Tensor | None) -> fx.Node:
    if factor is None:
        raise site.refuse(
            "a product of two maps has no binary form", "use sums, or a factor for each channel"
        )
    if factor.numel() == 1 and not isinstance(factor, nn.Parameter):
        return site.affine(source, None, float(factor), None, 0.0)
    return site.affine(source, factor, 1.0, None, 0.0)


def _sum(site: Site, a: object, times: float, b: object, plus: float) -> fx.Node:
    """``times * a + plus * b`` of two maps, or of a map and a constant."""
    first, second = site.tensor(a), site.tensor(b)
    if first is not None and second is not None:
        raise site.refuse(f"{site.called} of two constants", "use each of them itself")
    if second is not None and isinstance(a, fx.Node):
        return site.affine(a, None, times, second, plus)
    if first is not None and isinstance(b, fx.Node):
        return site.affine(b, None, plus, first, times)
    if not isinstance(a, fx.Node) or not isinstance(b, fx.Node):
        raise site.refuse(f"{site.called} of {a} and {b}", "add maps, numbers and parameters")
    values = site.values[a], site.values[b]
    if values[0] != values[1] or not (values[0].is_map or values[0].is_vector):
        raise site.refuse(
            f"a sum of {list(values[0].shape)} and {list(values[1].shape)}"
            + (
                ", flattened from maps of other sizes" if values[0].shape == values[1].shape else ""
            ),
            "both must have the same shape",
        )
    scaled = site.affine(a, None, times, None, 0.0), site.affine(b, None, plus, None, 0.0)
    return site.become(operator.add, scaled, values[0])
