"""Folding: a trained module becomes a graph of settled modules, values not yet on a grid.

The module is traced with torch.fx, then, step by step:

1. what does nothing in evaluation goes;
2. BatchNorm and other factors and addends of a channel become *scales* (``mul * x + add``);
3. every convolution and dense layer takes the scales behind it into its weights; a binary one
   takes the sign behind them too, as integer thresholds;
4. an average becomes a sum and a scale, but where its area is a power of two;
5. a scale that is left goes into the scale, dense layer or convolution behind it. Before a sign
   only the place where it crosses zero counts, so factors of +1 and -1 do, which cost no bits
   (:mod:`frostbit.kernels.ir.exact`). What remains is a scale for good.

What has no rule is refused by name.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from frostbit.kernels.ir.exact import grids
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering import settled_layers as st
from frostbit.pipeline.lowering.folded_layers import (
    BATCH_NORMS,
    fold_batchnorm,
    folded_binary,
    folded_conv,
    folded_dense,
    folded_stem,
    pair,
    windowed_sum,
)
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.network.binary import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    StemConv2d,
    StemLinear,
)
from frostbit.pipeline.network.channels import ChannelAffine, ChannelRepeat

_OURS = (
    BinaryActivation, BinaryConv2d, BinaryLinear, StemConv2d, StemLinear, ChannelRepeat,
    ChannelAffine,
)  # fmt: skip
_NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
_AS_THEY_ARE = (nn.Flatten, nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, ChannelRepeat)
_KEEPS_SIGNS = (nn.Flatten, nn.MaxPool2d, ChannelRepeat)
"""A sign behind one of these depends on the signs before it alone."""


class _Tracer(fx.Tracer):
    """Symbolic tracer that keeps our modules whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, _OURS) or super().is_leaf_module(m, module_qualified_name)


class _Folder:
    """Rewrites a traced graph in place, step by step (see the module's text)."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        self.gm = graph_module

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.gm.get_submodule(str(node.target)) if node.op == "call_module" else None

    def calls(self, *kinds: type[nn.Module]) -> list[fx.Node]:
        return [node for node in self.gm.graph.nodes if isinstance(self.module(node), kinds)]

    def shape(self, node: fx.Node) -> tuple[int, ...]:
        """Of a value, with the batch."""
        return tuple(node.meta["tensor_meta"].shape)

    def replace(self, node: fx.Node, module: nn.Module) -> None:
        """Let ``node`` call ``module``; one that several places share stays for the others."""
        sharing = [
            n for n in self.gm.graph.nodes if n.op == "call_module" and n.target == node.target
        ]
        if len(sharing) > 1:
            node.target = f"settled_{node.name}"
        self.gm.add_submodule(str(node.target), module)

    def put_after(self, node: fx.Node, name: str, module: nn.Module) -> fx.Node:
        """Call ``module`` with what ``node`` gives; the users of ``node`` then read the result."""
        self.gm.add_submodule(name, module)
        with self.gm.graph.inserting_after(node):
            made = self.gm.graph.call_module(name)
        node.replace_all_uses_with(made)
        made.args, made.meta = (node,), dict(node.meta)
        return made

    def remove(self, node: fx.Node) -> None:
        node.replace_all_uses_with(node.all_input_nodes[0])
        self.gm.graph.erase_node(node)

    def only_user(self, node: fx.Node) -> fx.Node | None:
        return next(iter(node.users)) if len(node.users) == 1 else None

    # ------------------------------------------------------------ the steps

    def fold(self) -> None:
        for node in self.calls(*_NOTHING):
            self.remove(node)
        for node in self.calls(*BATCH_NORMS, ChannelAffine):
            channels = self.shape(node)[1]
            self.replace(node, st.SettledScale(fold_batchnorm(self.required(node), channels)))
        for node in self.calls(
            StemConv2d, StemLinear, BinaryConv2d, BinaryLinear, nn.Conv2d, nn.Linear
        ):
            self.layer(node)
        for node in self.calls(nn.AdaptiveAvgPool2d, nn.AvgPool2d):
            self.average(node)
        for node in self.calls(st.SettledScale):
            self.scale(node)
        for node in self.calls(BinaryActivation):
            self.replace(node, st.SettledSign() if self.is_sign(node) else st.SettledClip())
        for node in self.calls(nn.Flatten):
            if isinstance(self.module(node.all_input_nodes[0]), st.SettledDense):
                self.remove(node)
        self.refuse_others()

    def refuse_others(self) -> None:
        for node in self.calls(nn.Module):
            if not isinstance(self.module(node), (*_AS_THEY_ARE, *st.SETTLED)):
                raise UserError(
                    f"'{node.target}': a {type(self.module(node)).__name__} cannot be packed; use "
                    "modules that frostbit's binarize makes"
                )

    def required(self, node: fx.Node) -> nn.Module:
        return self.gm.get_submodule(str(node.target))

    def is_sign(self, node: fx.Node) -> bool:
        """Whether an activation is frozen (a sign) rather than a clip for good."""
        activation = self.module(node)
        return isinstance(activation, BinaryActivation) and activation.share >= 1

    def scales_behind(self, node: fx.Node, bias: Tensor | None, channels: int) -> st.Folded:
        """All that a layer's result is scaled by, its bias included; the scales are removed."""
        shift = torch.zeros(channels) if bias is None else bias.detach()
        fold = st.Folded(torch.ones(channels, dtype=torch.float64), shift.double())
        while True:
            user = self.only_user(node)
            scale = self.module(user) if user is not None else None
            if user is None or not isinstance(scale, st.SettledScale):
                return fold
            fold = fold.then(scale.raw)
            self.remove(user)

    def layer(self, node: fx.Node) -> None:
        """A convolution or dense layer takes the scales, a binary one also the sign behind it."""
        module = self.module(node)
        if isinstance(module, (StemConv2d, StemLinear)):
            self.replace(
                node, folded_stem(module, self.scales_behind(node, module.bias, len(module.weight)))
            )
        elif isinstance(module, (BinaryConv2d, BinaryLinear)):
            fold = self.scales_behind(node, module.bias, len(module.weight))
            activation = self.only_user(node)
            to_bits = activation is not None and self.is_sign(activation)
            if activation is not None and to_bits:
                self.remove(activation)
            self.replace(node, folded_binary(module, fold, to_bits))
        elif isinstance(module, nn.Conv2d):
            fold = self.scales_behind(node, module.bias, module.out_channels)
            self.kept_conv(node, module, fold)
        elif isinstance(module, nn.Linear):
            fold = self.scales_behind(node, module.bias, module.out_features)
            self.replace(node, folded_dense(module, fold))

    def kept_conv(self, node: fx.Node, module: nn.Conv2d, fold: st.Folded) -> None:
        """A full-precision convolution; a 1x1 one that gives the logits becomes a dense layer.

        One whose map is averaged averages first: the same sums, and fewer of them.
        """
        made = folded_conv(module, fold)
        if module.kernel_size == (1, 1) and module.groups == 1 and not any(made.pads):
            pool = self.only_user(node)
            averaged = isinstance(self.module(pool), nn.AdaptiveAvgPool2d) if pool else False
            if (
                pool is not None
                and averaged
                and module.stride == (1, 1)
                and self.is_flattened(pool)
            ):
                self.swap(node, pool)
            if self.is_flattened(node) and self.shape(node)[2:] == (1, 1):
                self.replace(node, st.SettledDense(made.raw[0].flatten(1), made.raw[1]))
                return
        self.replace(node, made)

    def is_flattened(self, node: fx.Node) -> bool:
        user = self.only_user(node)
        return user is not None and isinstance(self.module(user), nn.Flatten)

    def swap(self, node: fx.Node, pool: fx.Node) -> None:
        """``pool(node(x))`` becomes ``node(pool(x))``."""
        with self.gm.graph.inserting_before(node):
            first = self.gm.graph.call_module(str(pool.target), tuple(node.args))
        first.meta = dict(pool.meta)
        pool.replace_all_uses_with(node)
        self.gm.graph.erase_node(pool)
        node.args, node.meta = (first,), dict(pool.meta)

    def average(self, node: fx.Node) -> None:
        """Average -> sum and scale, but where float32 divides by the area exactly."""
        module = self.module(node)
        self.scales_after(node)
        _, channels, height, width = self.shape(node.all_input_nodes[0])
        if isinstance(module, nn.AvgPool2d):
            rows, columns = pair(module.kernel_size)
            area = rows * columns
            divisor = module.divisor_override or area
            if divisor == area and area & (area - 1) == 0:
                return
            self.replace(node, windowed_sum(module, channels))
        else:
            divisor = height * width
            self.replace(node, st.GlobalSum())
        mul = torch.full((channels,), 1 / divisor, dtype=torch.float64)
        scale = st.SettledScale(st.Folded(mul, torch.zeros_like(mul)))
        self.put_after(node, f"{node.target}_scale", scale)

    def scales_after(self, pool: fx.Node) -> None:
        """Move the scales before an average behind it: the average of scaled values, scaled."""
        module = self.module(pool)
        if isinstance(module, nn.AvgPool2d) and (
            any(pair(module.padding)) or module.divisor_override
        ):
            return
        source = pool.all_input_nodes[0]
        scale = self.module(source)
        if isinstance(scale, st.SettledScale) and self.only_user(source) is pool:
            self.remove(source)
            self.put_after(pool, f"{source.target}_after", st.SettledScale(scale.raw))
            self.scales_after(pool)  # put between: what came earlier acts earlier

    def scale(self, node: fx.Node) -> None:
        """Put a scale into what follows it, if that can take it."""
        module = self.module(node)
        if not isinstance(module, st.SettledScale):
            return
        raw = module.raw
        if self.only_signs(node):
            if bool((raw.mul > 0).all()) and not bool(raw.add.any()):
                self.remove(node)
            else:
                self.replace(node, st.SettledCrossing(raw))
            return
        user = self.only_user(node)
        flattens = self.is_flattened(node)
        if user is not None and flattens:
            user = self.only_user(user)
        one_value = self.shape(node)[2:] in ((), (1, 1))
        follower = self.module(user) if user is not None else None
        if user is None or (
            flattens and not one_value and not isinstance(follower, st.SettledDense)
        ):
            return
        if isinstance(follower, st.SettledScale):
            self.replace(user, st.SettledScale(raw.then(follower.raw)))
        elif isinstance(follower, (st.SettledDense, st.SettledConv)) and follower.takes(raw):
            self.replace(user, follower.scaled(raw))
        elif user.op == "output" and one_value:
            self.replace(node, st.SettledDense(torch.diag(raw.mul), raw.add))
            return
        else:
            return
        self.remove(node)

    def keeps_signs(self, node: fx.Node) -> bool:
        return isinstance(self.module(node), _KEEPS_SIGNS) or node.target is torch.cat

    def only_signs(self, node: fx.Node) -> bool:
        """Whether nothing but signs reads ``node``."""
        return bool(node.users) and all(
            self.is_sign(user) or (self.keeps_signs(user) and self.only_signs(user))
            for user in node.users
        )


def _limit_crossings(gm: fx.GraphModule, image_shape: tuple[int, int, int]) -> None:
    """Bring crossings that no value reaches just outside the values, where they cost few bits."""
    names = [name for name, m in gm.named_modules() if isinstance(m, st.SettledCrossing)]
    if not names:
        return
    program = lower(gm, image_shape)
    bounds, inputs = grids(program), {op.name: op.inputs[0] for op in program.ops}
    for name in names:
        module = gm.get_submodule(name)
        if isinstance(module, st.SettledCrossing):
            module.limit(torch.from_numpy(bounds[inputs[name]].bound))


def structure(model: nn.Module, image_shape: tuple[int, int, int]) -> fx.GraphModule:
    """Fold a binarized ``model`` into settled modules (values not yet on a grid).

    Args:
        model: made by :func:`frostbit.pipeline.network.binary.binarize`; copied, not changed.
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
    _Folder(gm).fold()
    gm.delete_all_unused_submodules()
    gm.recompile()
    _limit_crossings(gm, image_shape)
    return gm.eval()
