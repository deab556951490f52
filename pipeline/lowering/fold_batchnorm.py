"""Folding: a trained module becomes a graph of settled modules, values not yet on a grid.

The module is traced with torch.fx; each ``convolution -> BatchNorm [-> sign]`` becomes one module
of :mod:`frostbit.pipeline.lowering.settled_layers`. A table of rules says what becomes of each kind
of module; what has no rule is refused by name.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering import settled_layers as st
from frostbit.pipeline.network.binary import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    StemConv2d,
    StemLinear,
    sign,
)
from frostbit.pipeline.network.models import ChannelRepeat

_OURS = (BinaryActivation, BinaryConv2d, BinaryLinear, StemConv2d, StemLinear, ChannelRepeat)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
_AS_THEY_ARE = (nn.Flatten, nn.AvgPool2d, nn.MaxPool2d, ChannelRepeat)


class _Tracer(fx.Tracer):
    """Symbolic tracer that keeps our modules whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _OURS) or super().is_leaf_module(m, module_qualified_name)


def fold_batchnorm(norm: nn.Module | None, bias: Tensor | None, channels: int) -> st.Folded:
    """``BatchNorm(acc + bias)`` in evaluation mode as ``mul * acc + add``, in float64."""
    shift = torch.zeros(channels, dtype=torch.float64) if bias is None else bias.detach().double()
    if norm is None:
        return st.Folded(torch.ones(channels, dtype=torch.float64), shift)
    assert isinstance(norm, BATCH_NORMS)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gamma = torch.ones(channels) if norm.weight is None else norm.weight.detach()
    beta = torch.zeros(channels) if norm.bias is None else norm.bias.detach()
    mul = gamma.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return st.Folded(mul, beta.double() + (shift - norm.running_mean.double()) * mul)


def _pair(value: Any) -> tuple[int, int]:
    vertical, horizontal = (value, value) if isinstance(value, int) else value
    return int(vertical), int(horizontal)


def _symmetric(padding: Any) -> tuple[int, int, int, int]:
    return (*_pair(padding), *_pair(padding))


def _stem(module: StemConv2d | StemLinear, norm: nn.Module | None) -> nn.Module:
    """Fold ``(x / 255 - mean) / std``, the convolution and BatchNorm into pixel-space weights."""
    weight = module.weight.detach().double()
    fold = fold_batchnorm(norm, module.bias, weight.shape[0])
    mean, std = module.mean.double(), module.std.double()
    scaled = weight * fold.mul.view(-1, *[1] * (weight.dim() - 1))
    if isinstance(module, StemLinear):
        per_input = weight.shape[1] // len(mean)
        mean, std = mean.repeat_interleave(per_input), std.repeat_interleave(per_input)
        return st.SettledDense(scaled / (255 * std), fold.add - (scaled * (mean / std)).sum(1))
    shape = (1, -1, 1, 1)
    offset = (scaled * (mean / std).view(shape)).sum(dim=(1, 2, 3))
    return st.SettledConv(
        scaled / (255 * std).view(shape),
        fold.add - offset,
        module.zero_point.detach(),
        _pair(module.stride),
        _symmetric(module.padding),
        (1, 1),
    )


def _binary(
    module: BinaryConv2d | BinaryLinear, norm: nn.Module | None, to_bits: bool
) -> nn.Module:
    weight = sign(module.weight.detach())
    fold = fold_batchnorm(norm, module.bias, weight.shape[0])
    if isinstance(module, BinaryLinear):
        return st.SettledBinaryLinear(weight, fold, to_bits)
    return st.SettledBinaryConv(
        weight,
        fold,
        to_bits,
        _pair(module.stride),
        _symmetric(module.padding),
        _pair(module.dilation),
        module.groups,
        int(module.pad_value),
    )


def _kept_conv(name: str, conv: nn.Conv2d, norm: nn.Module | None) -> nn.Module:
    """A convolution that stayed full precision (downsample), on +-1 maps."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise UserError(
            f"'{name}': a full-precision convolution with a padding mode or padding given as a "
            "word cannot be packed; use zeros and numbers"
        )
    fold = fold_batchnorm(norm, conv.bias, conv.out_channels)
    weight = conv.weight.detach().double() * fold.mul.view(-1, 1, 1, 1)
    zero = torch.zeros(conv.in_channels)
    return st.SettledConv(
        weight,
        fold.add,
        zero,
        _pair(conv.stride),
        _symmetric(conv.padding),
        _pair(conv.dilation),
        conv.groups,
    )


class _Folder:
    """Rewrites a traced graph in place, one source module after the other."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.gm = graph_module
        self.modules = dict(graph_module.named_modules())

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.modules[str(node.target)] if node.op == "call_module" else None

    def follower(self, node: fx.Node, kinds: tuple[type[nn.Module], ...]) -> fx.Node | None:
        """The only user of ``node``, if it is a module of one of ``kinds``."""
        users = list(node.users)
        if len(users) == 1 and isinstance(self.module(users[0]), kinds):
            return users[0]
        return None

    def absorb(self, node: fx.Node, follower: fx.Node | None) -> nn.Module | None:
        """Remove ``follower``, its users then read ``node``; returns its module."""
        if follower is None:
            return None
        follower.replace_all_uses_with(node)
        self.gm.graph.erase_node(follower)
        return self.module(follower)

    def replace(self, node: fx.Node, module: nn.Module) -> None:
        name = str(node.target)
        parent, _, leaf = name.rpartition(".")
        setattr(self.gm.get_submodule(parent), leaf, module)
        self.modules[name] = module

    def drop_nothing(self) -> None:
        """Erase what does nothing in eval mode, so that what it parts stands together."""
        for node in list(self.gm.graph.nodes):
            if isinstance(self.module(node), _NOTHING):
                node.replace_all_uses_with(node.all_input_nodes[0])
                self.gm.graph.erase_node(node)

    def fold(self, node: fx.Node) -> None:
        """Replace what ``node`` calls by its settled form; UserError if there is none."""
        module = self.module(node)
        if isinstance(module, (StemConv2d, StemLinear)):
            self.replace(node, _stem(module, self.absorb_norm(node)))
        elif isinstance(module, (BinaryConv2d, BinaryLinear)):
            norm = self.absorb_norm(node)
            activation = self.follower(node, (BinaryActivation,))
            to_bits = activation is not None and self.is_sign(activation)
            if to_bits:
                self.absorb(node, activation)
            self.replace(node, _binary(module, norm, to_bits))
        elif isinstance(module, nn.Conv2d):
            self.replace(node, _kept_conv(str(node.target), module, self.absorb_norm(node)))
        elif isinstance(module, nn.AdaptiveAvgPool2d):
            self.global_pool(node, module)
        elif isinstance(module, BinaryActivation):
            self.replace(node, st.SettledSign() if self.is_sign(node) else st.SettledClip())
        elif isinstance(module, nn.Linear):
            fold = fold_batchnorm(self.absorb_norm(node), module.bias, module.out_features)
            weight = module.weight.detach().double() * fold.mul[:, None]
            self.replace(node, st.SettledDense(weight, fold.add))
        elif module is not None and not isinstance(module, (*_AS_THEY_ARE, st.SettledDense)):
            raise UserError(
                f"'{node.target}': a {type(module).__name__} here cannot be packed; put BatchNorm "
                "directly behind a convolution and use modules that `pipeline train` offers"
            )

    def is_sign(self, node: fx.Node) -> bool:
        """Whether an activation is frozen (a sign) rather than a clip for good."""
        activation = self.module(node)
        return isinstance(activation, BinaryActivation) and activation.share >= 1

    def absorb_norm(self, node: fx.Node) -> nn.Module | None:
        return self.absorb(node, self.follower(node, BATCH_NORMS))

    def global_pool(self, node: fx.Node, module: nn.AdaptiveAvgPool2d) -> None:
        """Mean over the map -> sum; the division goes into the dense layer behind it."""
        flatten = next(iter(node.users), None)
        dense = None
        if module.output_size in (1, (1, 1)) and flatten is not None and len(node.users) == 1:
            candidates = [
                user for user in flatten.users if isinstance(self.module(user), nn.Linear)
            ]
            dense = candidates[0] if len(candidates) == len(flatten.users) == 1 else None
        if dense is None or flatten is None:
            raise UserError(
                f"'{node.target}': only AdaptiveAvgPool2d(1) -> flatten -> Linear can be packed"
            )
        linear = self.module(dense)
        assert isinstance(linear, nn.Linear)
        shape = node.all_input_nodes[0].meta["tensor_meta"].shape
        fold = fold_batchnorm(None, linear.bias, linear.out_features)
        weight = linear.weight.detach().double() / (shape[2] * shape[3])
        self.replace(node, st.GlobalSum())
        self.replace(dense, st.SettledDense(weight, fold.add))


def structure(model: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Fold a binarized ``model`` into settled modules (steps 2, values not yet on a grid).

    Args:
        model: made by :func:`frostbit.pipeline.network.binary.binarize`; it is copied, not changed.
        image_shape: ``(C, H, W)``.

    Raises:
        UserError: naming a module that has no settled form.
    """
    model = copy.deepcopy(model).cpu().eval()
    gm = fx.GraphModule(model, _Tracer().trace(model))
    targets = [node.target for node in gm.graph.nodes if node.op == "call_module"]
    repeated = {str(target) for target in targets if targets.count(target) > 1}
    stateless = (*_NOTHING, *_AS_THEY_ARE)
    shared = sorted(t for t in repeated if not isinstance(gm.get_submodule(t), stateless))
    if shared:
        raise UserError(f"'{shared[0]}' is used twice in the model; give each place its own module")
    with torch.no_grad():
        ShapeProp(gm).propagate(torch.zeros(2, *image_shape))
    folder = _Folder(gm)
    folder.drop_nothing()
    for node in list(gm.graph.nodes):
        if node in gm.graph.nodes and node.op == "call_module":
            folder.fold(node)
    gm.delete_all_unused_submodules()
    gm.recompile()
    return gm.eval()
