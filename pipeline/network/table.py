"""The table of what can be converted: one entry for each kind of thing that a network may call.

``docs/what-converts.md`` is written from it. What is not in it is refused by its name; so is
every argument that its rule does not take (:mod:`frostbit.pipeline.network.call_site`).
"""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import fx, nn

from frostbit.pipeline.network import pooling, rules
from frostbit.pipeline.network.call_site import Rule, Site, Value, is_size
from frostbit.pipeline.network.trace import Traced, known_kind


@dataclass(frozen=True)
class Entry:
    """One line of the table.

    Attributes:
        group: heading of the page.
        rule: converts it; its parameters are the arguments that are handled.
        becomes: what it becomes, for the page.
        modules: classes of torch.nn.
        calls: functions, and names of tensor methods.
    """

    group: str
    rule: Rule
    becomes: str
    modules: tuple[type[nn.Module], ...] = ()
    calls: tuple[object, ...] = ()


_ACTIVATION = "a binary activation: clip(x, -1, 1) that becomes sign(x) while training"

TABLE = (
    Entry(
        "Layers",
        rules.conv,
        "a stem (the first layer), a binary convolution, or itself (a 1x1 convolution on a "
        "shortcut, a depthwise one, the last layer, and what `keep` names)",
        (nn.Conv2d,),
    ),
    Entry(
        "Layers",
        rules.linear,
        "a stem (the first layer), a binary dense layer, or itself (the last layer, and what "
        "`keep` names)",
        (nn.Linear,),
    ),
    Entry(
        "Layers",
        rules.batch_norm,
        "itself while training; then thresholds, multipliers and addends",
        (nn.BatchNorm2d, nn.BatchNorm1d),
    ),
    Entry(
        "Activations",
        rules.relu,
        _ACTIVATION,
        (nn.ReLU, nn.ReLU6),
        (F.relu, F.relu6, torch.relu, torch.relu_, "relu", "relu_"),
    ),
    Entry(
        "Activations",
        rules.hardtanh,
        _ACTIVATION,
        (nn.Hardtanh,),
        (F.hardtanh, F.hardtanh_),
    ),
    Entry("Activations", rules.prelu, _ACTIVATION + "; its slopes go", (nn.PReLU,), (F.prelu,)),
    Entry(
        "Activations",
        rules.clamp,
        _ACTIVATION + "; of (-1, 1), (0, None) and (0, 6) only",
        (),
        (torch.clamp, torch.clip, "clamp", "clamp_", "clip"),
    ),
    Entry(
        "Pooling",
        pooling.max_pool,
        "maximum over a window",
        (nn.MaxPool2d,),
        (F.max_pool2d, torch.max_pool2d),
    ),
    Entry(
        "Pooling",
        pooling.avg_pool,
        "average over a window; padded values count as 0. An area that is no power of two is "
        "summed, and its division goes into what follows (exactly before a BatchNorm and sign, or "
        "a sign alone; else the factor is rounded to the grid); ceil_mode only where it cuts no "
        "window",
        (nn.AvgPool2d,),
        (F.avg_pool2d,),
    ),
    Entry(
        "Pooling",
        pooling.adaptive_avg_pool,
        "the average over the whole map, or over windows where the size divides the map's",
        (nn.AdaptiveAvgPool2d,),
        (F.adaptive_avg_pool2d,),
    ),
    Entry(
        "Pooling",
        pooling.adaptive_max_pool,
        "maximum over the whole map, or over windows where the size divides the map's",
        (nn.AdaptiveMaxPool2d,),
        (F.adaptive_max_pool2d,),
    ),
    Entry("Pooling", pooling.mean, "the average over height and width", (), (torch.mean, "mean")),
    Entry("Pooling", pooling.total, "the sum over height and width", (), (torch.sum, "sum")),
    Entry("Pooling", pooling.amax, "the maximum over height and width", (), (torch.amax, "amax")),
    Entry("Shapes", rules.flatten_module, "flattening to [N, features]", (nn.Flatten,)),
    Entry(
        "Shapes",
        rules.reshape,
        "flattening to [N, features], or nothing: any arguments that give one of the two",
        (),
        (
            torch.flatten, torch.reshape, torch.squeeze, torch.unsqueeze, "flatten", "view",
            "reshape", "squeeze", "unsqueeze",
        ),
    ),
    Entry("Shapes", rules.same, "nothing", (nn.Identity,), ("contiguous", "clone", torch.clone)),
    Entry(
        "Shapes",
        rules.concatenate,
        "maps of one size joined along their channels",
        (),
        (torch.cat, torch.concat, torch.concatenate),
    ),
    Entry("Shapes", rules.expand_as, "nothing, for a parameter or a buffer", (), ("expand_as",)),
    Entry("Dropout", rules.dropout, "itself while training", (nn.Dropout,), (F.dropout,)),
    Entry("Dropout", rules.dropout2d, "itself while training", (nn.Dropout2d,), (F.dropout2d,)),
    Entry(
        "Arithmetic",
        rules.add,
        "a sum of two maps, or an addend for each channel (a number, a parameter or a buffer)",
        (),
        (operator.add, operator.iadd, torch.add, "add", "add_"),
    ),
    Entry(
        "Arithmetic",
        rules.sub,
        "as a sum, with the other sign",
        (),
        (operator.sub, operator.isub, torch.sub, torch.subtract, "sub", "sub_"),
    ),
    Entry("Arithmetic", rules.rsub, "as a sum, with the other sign", (), (torch.rsub,)),
    Entry(
        "Arithmetic",
        rules.mul,
        "a factor for each channel (a number, a parameter or a buffer)",
        (),
        (operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_"),
    ),
    Entry(
        "Arithmetic",
        rules.div,
        "a factor, the same for all channels",
        (),
        (operator.truediv, operator.itruediv, torch.div, torch.divide, "div", "div_"),
    ),
    Entry("Arithmetic", rules.neg, "a factor of -1", (), (operator.neg, torch.neg, "neg")),
)  # fmt: skip

_BY_MODULE = {kind: entry for entry in TABLE for kind in entry.modules}
_BY_CALL = {call: entry for entry in TABLE for call in entry.calls}

_MODULES_ONLY = "use the module of torch.nn, so that its weights have a place"
REMEDIES = {
    "softmax": "return the logits; training applies it",
    "log_softmax": "return the logits; training applies it",
    "Softmax": "return the logits; training applies it",
    "LogSoftmax": "return the logits; training applies it",
    "max_pool2d_with_indices": "leave return_indices at False",
    "adaptive_max_pool2d_with_indices": "leave return_indices at False",
    "conv2d": _MODULES_ONLY,
    "linear": _MODULES_ONLY,
    "batch_norm": _MODULES_ONLY,
    "pad": "give the padding to the convolution or the pool",
    "ZeroPad2d": "give the padding to the convolution or the pool",
    "getitem": "use AvgPool2d(1, stride=2) to take every second pixel, and whole channels",
    "GroupNorm": "use BatchNorm2d",
    "LayerNorm": "use BatchNorm2d",
    "InstanceNorm2d": "use BatchNorm2d",
}
"""What to do instead, where the general advice does not say it."""


def _entry(site: Site) -> Entry:
    """The table's line for a call; UserError naming what has none."""
    if site.module is not None:
        kind = known_kind(site.module)
        if kind in _BY_MODULE:
            return _BY_MODULE[kind]
        problem = f"a {site.called} has no binary form"
        general = "use Conv2d, Linear, BatchNorm, ReLU, Hardtanh, PReLU, pooling and sums"
    else:
        if site.node.target in _BY_CALL:
            return _BY_CALL[site.node.target]
        problem = f"a call of {site.called} has no binary form"
        general = "use modules, sums, pooling and flatten"
    raise site.refuse(problem, REMEDIES.get(site.called, general))


def to_plain_calls(traced: Traced) -> dict[fx.Node, Value]:
    """Rewrite ``traced`` in place by the table; what every value is, by its node.

    Only a few kinds of module, and sums and joins of maps, are left in the graph.

    Raises:
        UserError: naming what is not in the table, an argument that its rule does not take, or
            values that do not fit.
    """
    gm, values = traced.gm, dict[fx.Node, Value]()
    calls = [node for node in gm.graph.nodes if node.op.startswith("call")]
    modules = {n: gm.get_submodule(str(n.target)) for n in calls if n.op == "call_module"}
    pixels = next(node for node in gm.graph.nodes if node.op == "placeholder")
    channels, height, width = traced.shapes[pixels]
    values[pixels] = Value(traced.shapes[pixels], (channels, height, width))
    for node in calls:
        if is_size(traced, node):
            continue
        site = Site(traced, node, values, modules.get(node))
        entry = _entry(site)
        arguments = site.arguments(entry.rule)
        if node in traced.problems:
            raise site.refuse(*traced.problems[node])
        made = entry.rule(site, **arguments)
        if made is not node:
            node.replace_all_uses_with(made)
            gm.graph.erase_node(node)
    gm.graph.eliminate_dead_code()
    gm.recompile()
    return values
