"""What becomes of each thing that a network may call but pools; :mod:`.table` says what calls it.

A rule has the parameters of the function or module that it converts, in torch's order and with
torch's defaults; those that it cannot handle are annotated ``Refused``. See ``call_site``.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx, nn

from frostbit.kernels.ir.program import MAX_PARTS
from frostbit.pipeline.network.call_site import Refused, Site, Value
from frostbit.pipeline.network.channels import ChannelRepeat
from frostbit.pipeline.network.pooling import pair

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


def expand_as(site: Site, input: fx.Node, other: fx.Node) -> fx.Node:
    """A parameter in the shape of a map: sums and products broadcast by themselves."""
    if site.tensor(input) is None or site.shape != site.values[other].shape:
        raise site.refuse("expand_as of a map", "expand parameters only, to a map or vector")
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
