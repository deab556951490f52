"""``binarize``: an ordinary network becomes a binary one.

What becomes what, by rule, in execution order (torch.fx):

* the first convolution or dense layer becomes a stem, which takes pixels; full precision;
* the last dense layer stays as it is;
* a 1x1 convolution on a shortcut (its input also goes elsewhere, its output goes into a sum) is a
  downsample and stays as it is; so does every depthwise convolution, and every layer whose name
  matches a pattern in ``keep``;
* every other convolution and dense layer becomes binary, and every activation becomes a
  :class:`BinaryActivation` of its own, also where the network shares one ReLU;
* where a binary layer would read a real map (a linear bottleneck, a residual sum), a
  :class:`BinaryActivation` is put before it.

Weights are kept (clipped to [-1, 1] where they become binary), so a trained network can be
binarized too. What cannot be handled is refused by name.
"""

from __future__ import annotations

import fnmatch
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.binary_layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Maskable,
    number_layers,
)
from frostbit.pipeline.network.functional_calls import FLATTEN, plain_calls
from frostbit.pipeline.network.pixel_layers import StemConv2d, StemLinear

_WEIGHTED = (nn.Conv2d, nn.Linear)
_ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.PReLU)
_ACTIVATION_CALLS: tuple[Any, ...] = (
    F.relu, F.relu6, F.hardtanh, torch.relu, "relu", "relu_",
)  # fmt: skip
_KEEPS_BITS = (nn.MaxPool2d, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_ALLOWED = (*_KEEPS_BITS, *_NORMS, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_SUMS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add)


def is_depthwise(module: nn.Module | None) -> bool:
    """Whether ``module`` is a convolution of every channel by itself."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


class _Conversion:
    """One network being converted: its graph, and the rules of the module's text."""

    def __init__(self, model: nn.Module, keep: Sequence[str]) -> None:
        try:
            self.gm = fx.symbolic_trace(model)
        except Exception as error:  # fx raises whatever the model's own code raises
            raise UserError(
                f"cannot trace {type(model).__name__} ({error}); its forward must not depend on "
                "the values of tensors"
            ) from error
        self.keep = keep
        plain_calls(self.gm)
        self.weighted = [n for n in self.gm.graph.nodes if isinstance(self.module(n), _WEIGHTED)]
        if len(self.weighted) < 2:
            raise UserError("nothing to binarize: the network needs at least two weighted layers")

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.gm.get_submodule(str(node.target)) if node.op == "call_module" else None

    def replace(self, node: fx.Node, module: nn.Module) -> None:
        parent, _, leaf = str(node.target).rpartition(".")
        setattr(self.gm.get_submodule(parent), leaf, module)

    def activations(self) -> None:
        """Give every activation call a BinaryActivation of its own."""
        nodes = [
            (node, isinstance(self.module(node), _ACTIVATIONS))
            for node in self.gm.graph.nodes
            if isinstance(self.module(node), _ACTIVATIONS) or node.target in _ACTIVATION_CALLS
        ]
        taken = {name for name, _ in self.gm.named_modules()}
        replaced: set[str] = set()
        for node, is_module in nodes:
            name = str(node.target) if is_module else f"activation_{node.name}"
            count = 1
            while name in replaced or (name in taken and not (is_module and count == 1)):
                count += 1
                name = f"{node.target if is_module else node.name}_{count}"
            replaced.add(name)
            self.gm.add_submodule(name, BinaryActivation())
            with self.gm.graph.inserting_after(node):
                call = self.gm.graph.call_module(name, (node.args[0],))
            node.replace_all_uses_with(call)
            self.gm.graph.erase_node(node)

    def stem(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Replace the first layer; it must read the network's input."""
        node = self.weighted[0]
        source = node.all_input_nodes[0]
        if source.target in FLATTEN or isinstance(self.module(source), nn.Flatten):
            source = source.all_input_nodes[0]
        if source.op != "placeholder":
            raise UserError(
                f"'{node.target}' is the first layer but does not read the input directly"
            )
        node.args = (source,)
        module = self.module(node)
        assert isinstance(module, _WEIGHTED)
        has_bias = module.bias is not None
        if isinstance(module, nn.Conv2d):
            shape = _plain_geometry(str(node.target), module)
            if module.groups != 1 or tuple(module.dilation) != (1, 1):
                raise UserError(f"'{node.target}': a first layer with groups or dilation")
            stem: nn.Module = StemConv2d(
                module.in_channels, module.out_channels, *shape, mean=mean, std=std, bias=has_bias
            )
        else:
            stem = StemLinear(
                module.in_features, module.out_features, mean=mean, std=std, bias=has_bias
            )
        self.replace(node, _with_weights(stem, module))

    def binary(self, pad_value: int) -> None:
        """Replace the layers between the first and the last, but for what stays as it is."""
        for node in self.weighted[1:-1]:
            name, module = str(node.target), self.module(node)
            if any(fnmatch.fnmatch(name, pattern) for pattern in self.keep) or is_depthwise(module):
                continue
            if isinstance(module, nn.Conv2d) and not self.is_downsample(node, module):
                made: nn.Module = BinaryConv2d(
                    module.in_channels,
                    module.out_channels,
                    *_plain_geometry(name, module),
                    dilation=(module.dilation[0], module.dilation[1]),
                    groups=module.groups,
                    pad_value=pad_value,
                    bias=module.bias is not None,
                )
            elif isinstance(module, nn.Linear):
                made = BinaryLinear(
                    module.in_features, module.out_features, bias=module.bias is not None
                )
            else:
                continue
            self.replace(node, _with_weights(made, module))

    def is_downsample(self, node: fx.Node, module: nn.Conv2d) -> bool:
        if module.kernel_size != (1, 1) or len(node.all_input_nodes[0].users) < 2:
            return False
        user = next(iter(node.users))
        if isinstance(self.module(user), _NORMS):
            user = next(iter(user.users))
        return user.target in _SUMS

    def signs(self) -> None:
        """Put an activation before every binary layer that would read a real map, one per map."""
        made: dict[fx.Node, fx.Node] = {}
        for node in list(self.gm.graph.nodes):
            if isinstance(self.module(node), (BinaryConv2d, BinaryLinear)):
                source = node.all_input_nodes[0]
                if self.reads_bits(node):
                    continue
                if source not in made:
                    name = f"sign_{source.name}"
                    self.gm.add_submodule(name, BinaryActivation())
                    with self.gm.graph.inserting_after(source):
                        made[source] = self.gm.graph.call_module(name, (source,))
                node.replace_input_with(source, made[source])

    def check(self) -> None:
        """Refuse modules and calls that have no binary form, by name."""
        used: set[str] = set()
        for node in self.gm.graph.nodes:
            module = self.module(node)
            known = (*_ALLOWED, *_WEIGHTED, Maskable, StemConv2d, StemLinear)
            if module is not None and not isinstance(module, known):
                raise UserError(
                    f"'{node.target}': a {type(module).__name__} has no binary form; use Conv2d, "
                    "Linear, BatchNorm, ReLU, Hardtanh, PReLU, pooling and sums"
                )
            if isinstance(module, (*_WEIGHTED, Maskable)) and str(node.target) in used:
                raise UserError(f"'{node.target}' is used twice; give each place its own module")
            if node.op in ("call_function", "call_method"):
                self.check_call(node)
            used.add(str(node.target))

    def check_call(self, node: fx.Node) -> None:
        if node.target is operator.iadd:
            node.target = operator.add
        if node.target not in (*_SUMS, *FLATTEN):
            name = getattr(node.target, "__name__", node.target)
            raise UserError(
                f"'{node.name}': a call of {name} has no binary form; use modules, sums and flatten"
            )

    def reads_bits(self, node: fx.Node) -> bool:
        source = node.all_input_nodes[0]
        while isinstance(self.module(source), _KEEPS_BITS) or source.target in FLATTEN:
            source = source.all_input_nodes[0]
        return isinstance(self.module(source), BinaryActivation)


def _plain_geometry(
    name: str, conv: nn.Conv2d
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, stride and padding of a convolution; UserError where padding is unusual."""
    if conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        raise UserError(f"'{name}': give its padding as numbers, with padding_mode='zeros'")
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    return (kernel[0], kernel[1]), (stride[0], stride[1]), (padding[0], padding[1])


def _with_weights(made: nn.Module, source: nn.Module) -> nn.Module:
    """``made`` with the weights of ``source``, clipped where they are latents."""
    state = source.state_dict()
    if isinstance(made, Maskable):
        state["weight"] = state["weight"].clamp(-1, 1)
    made.load_state_dict({**made.state_dict(), **state})
    return made


def binarize(
    model: nn.Module,
    example: Tensor,
    *,
    mean: Sequence[float],
    std: Sequence[float],
    pad_value: int = 0,
    keep: Iterable[str] = (),
) -> fx.GraphModule:
    """Convert an ordinary network; see the module's text for the rules.

    Source: which layers stay in full precision follows the papers of StoMPP (arXiv 2601.22660) and
    Bi-Real Net (arXiv 1808.00278).

    Args:
        model: made of Conv2d, Linear, BatchNorm, ReLU (Hardtanh, PReLU), pooling, flatten and
            sums; float input ``[N, C, H, W]``. It is left as it was; modules
            that stay as they are are shared with it.
        example: any pixels ``[N, C, H, W]``, for the shapes of activations.
        mean, std: per channel, of pixels / 255; the result normalises by itself.
        pad_value: what padded taps of binary convolutions hold: 0 or 1.
        keep: name patterns (as of files) of layers that stay in full precision.

    Returns:
        Network of float pixels (0..255) with its layers numbered.

    Raises:
        UserError: naming the module that cannot be converted.
    """
    conversion = _Conversion(model, tuple(keep))
    conversion.activations()
    conversion.stem(mean, std)
    conversion.binary(pad_value)
    conversion.signs()
    conversion.check()
    gm = conversion.gm
    gm.delete_all_unused_submodules()
    gm.recompile()
    number_layers(gm, example)
    return gm
