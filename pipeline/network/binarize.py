"""``binarize``: an ordinary network becomes a binary one.

What becomes what, by rule, in execution order (torch.fx):

* the first convolution or dense layer becomes a stem, which takes pixels; full precision;
* the last dense layer, or 1x1 convolution, stays as it is;
* a 1x1 convolution on a shortcut (its input also goes elsewhere, its output goes into a sum) is a
  downsample and stays as it is; so does every depthwise convolution, and every layer whose name
  matches a pattern in ``keep``;
* every other convolution and dense layer becomes binary, and every activation becomes a
  :class:`BinaryActivation` of its own, also where the network shares one ReLU;
* where a layer between the first and the last would read a real map (a linear bottleneck, a
  residual sum), a :class:`BinaryActivation` is put before it.

Weights are kept (clipped to [-1, 1] where they become binary), so a trained network can be
binarized too. :mod:`frostbit.pipeline.network.table` lists what a network may consist of; what
is not there is refused by name.
"""

from __future__ import annotations

import fnmatch
import operator
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, fx, nn

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.binary_layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Maskable,
    number_layers,
)
from frostbit.pipeline.network.channels import ChannelAffine
from frostbit.pipeline.network.pixel_layers import StemConv2d, StemLinear
from frostbit.pipeline.network.table import to_plain_calls
from frostbit.pipeline.network.trace import trace

_WEIGHTED = (nn.Conv2d, nn.Linear)
_KEEPS_BITS = (nn.MaxPool2d, nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d)
_PER_CHANNEL = (nn.BatchNorm1d, nn.BatchNorm2d, ChannelAffine, nn.Identity, nn.Dropout2d)


def is_depthwise(module: nn.Module | None) -> bool:
    """Whether ``module`` is a convolution of every channel by itself."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


class _Conversion:
    """One network being converted: its graph of plain calls, and the rules of the module's text."""

    def __init__(self, model: nn.Module, example: Tensor, keep: Sequence[str]) -> None:
        traced = trace(model, example)
        self.gm = traced.gm
        self.values = to_plain_calls(traced)
        self.keep = keep
        self.weighted = [n for n in self.gm.graph.nodes if isinstance(self.module(n), _WEIGHTED)]
        if len(self.weighted) < 2:
            raise UserError("nothing to binarize: the network needs at least two weighted layers")
        names = [str(node.target) for node in self.weighted]
        for pattern in keep:
            if not fnmatch.filter(names, pattern):
                raise UserError(f"keep: no layer matches '{pattern}'; they are {', '.join(names)}")

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.gm.get_submodule(str(node.target)) if node.op == "call_module" else None

    def replace(self, node: fx.Node, module: nn.Module) -> None:
        self.gm.add_submodule(str(node.target), module)

    def stem(self, mean: Sequence[float], std: Sequence[float]) -> None:
        """Replace the first layer; it alone must read the network's input."""
        node, module = self.weighted[0], self.module(self.weighted[0])
        source = node.all_input_nodes[0]
        if isinstance(self.module(source), nn.Flatten):
            source = source.all_input_nodes[0]
        if source.op != "placeholder":
            raise UserError(
                f"'{node.target}' is the first layer but does not read the input directly"
            )
        node.args = (source,)
        self.gm.graph.eliminate_dead_code()
        others = [user for user in source.users if user is not node]
        if others:
            raise UserError(
                f"'{others[0].name}' reads the image too; only the first layer "
                f"('{node.target}') may"
            )
        stem = _stem(str(node.target), module, mean, std)
        self.replace(node, stem)

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
                    *_geometry(module),
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
        while isinstance(self.module(user), _PER_CHANNEL):
            user = next(iter(user.users))
        return user.target is operator.add

    def signs(self) -> None:
        """Put an activation before every layer that would read a real map, one per map.

        The last layer may read one: no sign depends on it. A full-precision layer whose result is
        signed cannot: its products would need more bits than float32 has.
        """
        made: dict[fx.Node, fx.Node] = {}
        for node in self.weighted[1:-1]:
            source = node.all_input_nodes[0]
            if self.is_bits(source):
                continue
            if source not in made:
                name = f"sign_{source.name}"
                self.gm.add_submodule(name, BinaryActivation())
                with self.gm.graph.inserting_after(source):
                    made[source] = self.gm.graph.call_module(name, (source,))
            node.replace_input_with(source, made[source])

    def is_bits(self, node: fx.Node) -> bool:
        if isinstance(self.module(node), _KEEPS_BITS) or node.target is torch.cat:
            return all(self.is_bits(source) for source in node.all_input_nodes)
        return isinstance(self.module(node), BinaryActivation)

    def check_result(self) -> None:
        """Refuse what is no vector of logits."""
        output = next(node for node in self.gm.graph.nodes if node.op == "output")
        result = output.args[0]
        value = self.values.get(result) if isinstance(result, fx.Node) else None
        if value is None or not value.is_vector or value.map[1:] != (1, 1):
            seen = (
                f"[N, {', '.join(map(str, value.shape))}]"
                if value
                else f"a {type(result).__name__.removeprefix('immutable_')}"
            )
            raise UserError(
                f"the network must return one tensor [N, classes], not {seen}; return the logits"
            )
        if isinstance(result, fx.Node) and self.is_bits(result):
            raise UserError(
                f"'{result.name}': the logits come out of an activation; return what the last "
                "layer gives"
            )


def _stem(
    name: str, module: nn.Module | None, mean: Sequence[float], std: Sequence[float]
) -> nn.Module:
    """The stem that a first layer becomes."""
    if isinstance(module, nn.Conv2d):
        if module.groups != 1 or tuple(module.dilation) != (1, 1):
            raise UserError(f"'{name}': a first layer with groups or dilation; give it neither")
        made: nn.Module = StemConv2d(
            module.in_channels,
            module.out_channels,
            *_geometry(module),
            mean=mean,
            std=std,
            bias=module.bias is not None,
        )
    elif isinstance(module, nn.Linear):
        made = StemLinear(
            module.in_features,
            module.out_features,
            mean=mean,
            std=std,
            bias=module.bias is not None,
        )
    else:
        raise UserError(f"'{name}' cannot be a first layer; use Conv2d or Linear")
    return _with_weights(made, module)


def _geometry(conv: nn.Conv2d) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, stride and padding of a convolution, as numbers."""
    kernel, stride, padding = conv.kernel_size, conv.stride, conv.padding
    return (
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        (int(padding[0]), int(padding[1])),
    )


def _with_weights(made: nn.Module, source: nn.Module) -> nn.Module:
    """``made`` with the weights of ``source``, clipped where they are latents."""
    state = source.state_dict()
    if isinstance(made, Maskable):
        state["weight"] = state["weight"].clamp(-1, 1)
    made.load_state_dict({**made.state_dict(), **state})
    for name, parameter in source.named_parameters(recurse=False):
        made.get_parameter(name).requires_grad_(parameter.requires_grad)
    return made


def _drop_moved(gm: fx.GraphModule) -> None:
    """Remove parameters that the graph read by itself; the modules that do so now have them.

    Under two names a parameter would be saved, and counted, twice.
    """
    called = {str(node.target) for node in gm.graph.nodes if node.op == "call_module"}
    for name, _ in [*gm.named_parameters(remove_duplicate=False), *gm.named_buffers()]:
        owner, _, attribute = name.rpartition(".")
        parts = owner.split(".")
        if not any(".".join(parts[:end]) in called for end in range(1, len(parts) + 1)):
            delattr(gm.get_submodule(owner), attribute)


def _check_pixels(
    example: Tensor, mean: Sequence[float], std: Sequence[float], pad_value: int
) -> None:
    channels = int(example.shape[1]) if example.dim() == 4 else 0
    if example.dim() == 4 and not channels == len(mean) == len(std):
        raise UserError(
            f"{len(mean)} means and {len(std)} deviations for images of {channels} channels; "
            "give one of each a channel"
        )
    if min(std, default=1.0) <= 0:
        raise UserError(f"std is {tuple(std)}; every value must be positive")
    if pad_value not in (0, 1):
        raise UserError(f"pad_value is {pad_value}; binary convolutions pad with 0 or 1")


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
        model: float input ``[N, C, H, W]``, made of what ``docs/what-converts.md`` lists. It is
            left as it was; modules that stay as they are are shared with it.
        example: any pixels ``[N, C, H, W]``, for the shapes of maps: one network for one size.
        mean, std: per channel, of pixels / 255; the result normalises by itself.
        pad_value: what padded taps of binary convolutions hold: 0 or 1.
        keep: name patterns (as of files) of layers that stay in full precision.

    Returns:
        Network of float pixels (0..255) with its layers numbered.

    Raises:
        UserError: naming the module, call or argument that cannot be converted.
    """
    _check_pixels(example, mean, std, pad_value)
    conversion = _Conversion(model, example, tuple(keep))
    conversion.stem(mean, std)
    conversion.binary(pad_value)
    conversion.signs()
    conversion.check_result()
    gm = conversion.gm
    gm.delete_all_unused_submodules()
    _drop_moved(gm)
    gm.recompile()
    number_layers(gm, example)
    return gm
