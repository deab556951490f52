"""Function calls of a traced network that mean the same as a module: they become that module."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

FLATTEN: tuple[Any, ...] = (torch.flatten, "flatten")
_RESHAPES = ("view", "reshape")


def plain_calls(gm: fx.GraphModule) -> None:
    """Rewrite ``gm`` in place: functional pools, ``mean`` over a map, ``view(n, -1)``, dropout.

    What is written otherwise stays, for the caller to refuse by name.
    """
    for node in list(gm.graph.nodes):
        made = _modules(node)
        if not made:
            continue
        value = node.args[0]
        with gm.graph.inserting_before(node):
            for index, module in enumerate(made):
                name = f"plain_{node.name}_{index}"
                gm.add_submodule(name, module)
                value = gm.graph.call_module(name, (value,))
        assert isinstance(value, fx.Node)
        node.replace_all_uses_with(value)
        gm.graph.erase_node(node)
    gm.graph.eliminate_dead_code()  # size() and shape that a view asked for
    gm.recompile()


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


def _modules(node: fx.Node) -> list[nn.Module]:
    """The modules that, one after the other, do what ``node`` does; none if there are none."""
    if node.op not in ("call_function", "call_method"):
        return []
    if node.target is F.adaptive_avg_pool2d:
        return [nn.AdaptiveAvgPool2d(_argument(node, 1, "output_size"))]
    if node.target in (F.max_pool2d, torch.max_pool2d):
        return [_max_pool(node)]
    if node.target is F.dropout:
        return [nn.Dropout(_argument(node, 1, "p", 0.5))]
    if node.target in (torch.mean, "mean") and _over_map(node):
        pool = nn.AdaptiveAvgPool2d(1)
        return [pool] if node.kwargs.get("keepdim") else [pool, nn.Flatten(1)]
    if node.target in _RESHAPES and _flattens(node):
        return [nn.Flatten(1)]
    return []


def _max_pool(node: fx.Node) -> nn.Module:
    kernel = _argument(node, 1, "kernel_size")
    stride = _argument(node, 2, "stride")
    return nn.MaxPool2d(kernel, stride, _argument(node, 3, "padding", 0))


def _over_map(node: fx.Node) -> bool:
    dims = _argument(node, 1, "dim")
    return isinstance(dims, (list, tuple)) and sorted(d % 4 for d in dims) == [2, 3]


def _flattens(node: fx.Node) -> bool:
    """Whether this is ``x.view(x.size(0), -1)`` or the same with ``x.shape[0]``."""
    shape = node.args[1:] if len(node.args) > 2 else node.args[-1]
    if not isinstance(shape, (list, tuple)) or len(shape) != 2 or shape[1] != -1:
        return False
    first = shape[0]
    if not isinstance(first, fx.Node):
        return False
    if first.op == "call_method" and first.target == "size":
        return tuple(first.args) == (node.args[0], 0)
    asked = first.args[0] if first.args else None
    is_shape = isinstance(asked, fx.Node) and asked.args[:1] == (node.args[0],)
    return bool(is_shape) and tuple(first.args[1:]) == (0,)
