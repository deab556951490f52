"""A user's network as a graph: traced, and refused where a trace would lose what it does.

torch.fx records which calls ``forward`` makes, not all that happens: hooks, ``no_grad``, work in
place on a value that is read again, code that differs between training and evaluation, random
numbers, parameters that Python computes with. Each of these is looked for and refused by name.
"""

from __future__ import annotations

import contextlib
import inspect
import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument
from torch.nn.utils import parametrize

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.binary_layers import in_mode

OF_TORCH = (
    nn.Conv2d, nn.Linear, nn.BatchNorm1d, nn.BatchNorm2d, nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.PReLU,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, nn.Flatten,
    nn.Identity, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
BATCHES = (2, 3)
"""Every value is computed for two batches: what differs depends on the batch."""

_HARMLESS = frozenset({
    "__init__", "__module__", "__doc__", "__annotations__", "__parameters__", "__orig_bases__",
    "__firstlineno__", "__static_attributes__", "__annotate_func__", "__annotations_cache__",
    "__repr__", "reset_parameters", "extra_repr",
})  # fmt: skip
_HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")
_VIEWS = frozenset({
    "flatten", "view", "reshape", "squeeze", "unsqueeze", "contiguous", "getitem", "Identity",
    "Flatten", "Dropout", "Dropout2d", "dropout", "dropout2d",
})  # fmt: skip
_DROPS = frozenset({"dropout", "dropout2d"})


def known_kind(module: nn.Module) -> type[nn.Module] | None:
    """The class of :data:`OF_TORCH` that ``module`` behaves as, None if there is none.

    A subclass counts as its base unless it overrides something of it.
    """
    line = type(module).__mro__
    kind = next((each for each in line if each in OF_TORCH), None)
    if kind is None:
        return None
    names = set(dir(kind)).union(*(vars(each).get("__annotations__", ()) for each in kind.__mro__))
    own = set().union(*(vars(each) for each in line[: line.index(kind)]))
    return None if (own & names) - _HARMLESS else kind


class _Proxy(fx.Proxy):
    """``x += y`` stays visible as work in place (torch.fx makes ``x + y`` of it)."""

    def _in_place(self, function: Callable[..., object], other: object) -> fx.Proxy:
        made: fx.Proxy = self.tracer.create_proxy("call_function", function, (self, other), {})
        return made

    def __iadd__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.iadd, other)

    def __isub__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.isub, other)

    def __imul__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.imul, other)

    def __itruediv__(self, other: object) -> fx.Proxy:
        return self._in_place(operator.itruediv, other)


class _Tracer(fx.Tracer):
    """Keeps the modules of the table whole, also subclasses that compute as they do."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if any(base in OF_TORCH for base in type(m).__mro__):
            return known_kind(m) is not None
        return super().is_leaf_module(m, module_qualified_name)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, kind: str, target: object, *args: object, **more: object) -> fx.Node:
        if not torch.is_grad_enabled():
            raise UserError(
                f"'{getattr(target, '__name__', target)}' is called without gradient "
                "(torch.no_grad or detach), which conversion would lose; use "
                "requires_grad_(False) on the parameters that stay"
            )
        node: fx.Node = super().create_node(kind, target, *args, **more)  # type: ignore[arg-type]
        return node


@dataclass
class Traced:
    """A network's graph and what is known of its values.

    Attributes:
        gm: the graph, with the user's own modules.
        shapes: of every tensor, without the batch.
        numbers: of every value that is no tensor (sizes), the same for every batch.
        scope: name of the module in which each call stands ("" is the network itself).
        in_evaluation: each call as evaluation makes it, by name (``training`` may differ).
        problems: what is wrong with a value, and the remedy.
    """

    gm: fx.GraphModule
    shapes: dict[fx.Node, tuple[int, ...]] = field(default_factory=dict)
    numbers: dict[fx.Node, Argument] = field(default_factory=dict)
    scope: dict[str, str] = field(default_factory=dict)
    in_evaluation: dict[str, fx.Node] = field(default_factory=dict)
    problems: dict[fx.Node, tuple[str, str]] = field(default_factory=dict)


def _extras(model: nn.Module) -> dict[str, object]:
    """Arguments of ``forward`` beyond the first, with the defaults that they keep."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    if not parameters or parameters[0].kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        raise UserError(
            f"{type(model).__name__}.forward must take one tensor: def forward(self, x)"
        )
    for each in parameters[1:]:
        if each.default is inspect.Parameter.empty:
            raise UserError(
                f"{type(model).__name__}.forward takes '{each.name}' too; it must take one tensor "
                "(more arguments need defaults, which stay)"
            )
    return {each.name: each.default for each in parameters[1:]}


def _graph(model: nn.Module, training: bool) -> tuple[fx.GraphModule, dict[str, str]]:
    tracer, extras = _Tracer(), _extras(model)
    known = set(vars(model))
    try:
        with in_mode(model, training), torch.enable_grad():
            graph = tracer.trace(model, concrete_args=extras or None)
            gm = fx.GraphModule(model, graph)
    except UserError:
        raise
    except Exception as error:  # torch.fx raises whatever the model's own code raises
        raise UserError(
            f"cannot trace {type(model).__name__} ({' '.join(str(error).split())}); its forward "
            "must not depend on the values of tensors"
        ) from error
    finally:
        for name in set(vars(model)) - known:
            delattr(model, name)  # constants that the tracer leaves on the network
    _drop_extras(gm)
    return gm, {name: str(scope[0]) for name, scope in tracer.node_name_to_scope.items()}


def _drop_extras(gm: fx.GraphModule) -> None:
    """Erase what the tracer adds to check the arguments that keep their defaults."""
    extra = {node for node in gm.graph.nodes if node.op == "placeholder"}
    extra.remove(next(iter(gm.graph.nodes)))
    for node in gm.graph.nodes:
        if node.all_input_nodes and extra.issuperset(node.all_input_nodes):
            extra.add(node)
    for node in reversed(list(gm.graph.nodes)):
        if node in extra:
            gm.graph.erase_node(node)


def _refuse_hidden(model: nn.Module) -> None:
    """Refuse what no graph shows: hooks, parametrizations, replaced forwards, shared weights."""
    owner: dict[int, str] = {}
    for name, module in model.named_modules():
        where = f"'{name}'" if name else type(model).__name__
        if parametrize.is_parametrized(module):
            raise UserError(
                f"{where} has a parametrization; torch.nn.utils.parametrize."
                "remove_parametrizations makes a plain weight of it"
            )
        if any(getattr(module, hooks, None) for hooks in _HOOKS):
            raise UserError(
                f"{where} has a hook (weight_norm, spectral_norm and pruning use them too), which "
                "conversion would lose; remove it"
            )
        if "forward" in vars(module):
            raise UserError(f"{where} has a forward of its own instance; write it in its class")
        for kind, tensor in module.named_parameters(recurse=False):
            if tensor.dtype != torch.float32:
                raise UserError(f"{where}: its {kind} is {tensor.dtype}; call .float() first")
            other = owner.setdefault(id(tensor), f"{name}.{kind}".lstrip("."))
            if other != f"{name}.{kind}".lstrip("."):
                raise UserError(
                    f"{where} shares its {kind} with '{other}'; give each its own parameter"
                )


def _same_in_both_modes(model: nn.Module, training: fx.GraphModule, other: fx.GraphModule) -> None:
    """Refuse code that depends on ``self.training`` (dropout may) or on random numbers."""
    pairs = list(zip(training.graph.nodes, other.graph.nodes, strict=False))
    same_length = len(training.graph.nodes) == len(other.graph.nodes)
    for a, b in pairs:
        alike = (a.op, a.name, str(a.target)) == (b.op, b.name, str(b.target))
        drops = getattr(a.target, "__name__", "") in _DROPS
        if (
            not same_length
            or not alike
            or not (drops or str((a.args, a.kwargs)) == str((b.args, b.kwargs)))
        ):
            raise UserError(
                f"{type(model).__name__}.forward does something else in training than in "
                f"evaluation (first at '{a.name}'); only dropout may depend on self.training"
            )
        if a.op == "get_attr" and a.name.startswith("_tensor_constant"):
            if not torch.equal(attribute(training, a), attribute(other, b)):
                raise UserError(
                    f"'{a.name}': a value that changes from call to call (random numbers?) is "
                    "added to the network; leave it out, or use dropout"
                )
            if attribute(training, a).requires_grad:
                raise UserError(
                    f"'{a.name}': forward computes with a parameter before it meets the image; "
                    "use the parameter itself"
                )


def attribute(gm: fx.GraphModule, node: fx.Node) -> Tensor:
    """The parameter, buffer or constant that a ``get_attr`` node reads."""
    value: object = gm
    for part in str(node.target).split("."):
        value = getattr(value, part)
    if not isinstance(value, Tensor):
        raise UserError(f"'{node.target}' is a {type(value).__name__}; only tensors can be read")
    return value


class _Recorder(fx.Interpreter):
    """Runs a graph and keeps every tensor's shape and type, and every other value."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.extra_traceback = False
        self.tensors: dict[fx.Node, tuple[tuple[int, ...], torch.dtype]] = {}
        self.numbers: dict[fx.Node, Argument] = {}
        self.failed: dict[fx.Node, str] = {}

    def run_node(self, n: fx.Node) -> object:
        try:
            value: object = super().run_node(n)
        except Exception as error:  # whatever torch or the network's code raises
            self.failed[n] = " ".join(str(error).split())
            raise
        if isinstance(value, Tensor):
            self.tensors[n] = tuple(value.shape), value.dtype
        elif isinstance(value, (int, float, torch.Size)):
            self.numbers[n] = value
        return value


def _record(traced: Traced, example: Tensor) -> None:
    """Fill in shapes, sizes and problems, by running two batches in evaluation mode."""
    runs = [_Recorder(traced.gm) for _ in BATCHES]
    for batch, run in zip(BATCHES, runs, strict=True):
        # an error is told where the call is converted: its argument may be refused there
        with torch.no_grad(), in_mode(traced.gm, training=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with contextlib.suppress(Exception):
                run.run(torch.zeros(batch, *example.shape[1:]))
        for node, what in run.failed.items():
            traced.problems[node] = (f"it fails ({what})", "check the size of images and layers")
    few, more = runs
    fixed = _independent(traced.gm)
    for node, (shape, dtype) in few.tensors.items():
        other = more.tensors.get(node, (shape, dtype))[0]
        if node in fixed:
            traced.problems[node] = (
                "forward computes with a parameter before it meets the image",
                "use the parameter itself",
            )
        elif (shape[:1], other[:1]) != (BATCHES[:1], BATCHES[1:]) or shape[1:] != other[1:]:
            traced.problems[node] = (
                f"it mixes the images of a batch (shape {shape} for {BATCHES[0]}, {other} for "
                f"{BATCHES[1]} images)",
                "keep the first axis",
            )
        elif dtype != torch.float32:
            traced.problems[node] = (f"it gives {dtype}", "values must stay float32")
        traced.shapes[node] = shape[1:]
    for node, value in few.numbers.items():
        traced.numbers[node] = value if value == more.numbers.get(node) else None


def _independent(gm: fx.GraphModule) -> set[fx.Node]:
    """The calls that do not depend on the image."""
    found: set[fx.Node] = set()
    for node in gm.graph.nodes:
        constants = [each for each in node.all_input_nodes if each.op == "get_attr"]
        if node.all_input_nodes and found.union(constants).issuperset(node.all_input_nodes):
            found.add(node)
    return found


def _first_input(node: fx.Node) -> fx.Node | None:
    return node.all_input_nodes[0] if node.all_input_nodes else None


def _name(gm: fx.GraphModule, node: fx.Node) -> str:
    """What ``node`` calls: a module's class, a function or a method."""
    if node.op == "call_module":
        return type(gm.get_submodule(str(node.target))).__name__
    return str(getattr(node.target, "__name__", node.target))


def _works_in_place(gm: fx.GraphModule, node: fx.Node) -> bool:
    if node.op == "call_module":
        return bool(getattr(gm.get_submodule(str(node.target)), "inplace", False))
    name = _name(gm, node)
    return (
        node.kwargs.get("inplace") is True
        or (name.endswith("_") and not name.startswith("_"))
        or node.target in (operator.iadd, operator.isub, operator.imul, operator.itruediv)
        or (name in ("relu", "relu6", "hardtanh", "dropout", "dropout2d") and True in node.args)
    )


def _refuse_overwritten(gm: fx.GraphModule) -> None:
    """Refuse work in place on a value (or a view of it) that is read again later."""
    order = {node: place for place, node in enumerate(gm.graph.nodes)}
    memory: dict[fx.Node, fx.Node] = {}
    for node in gm.graph.nodes:
        source = _first_input(node)
        shares = _name(gm, node) in _VIEWS or _works_in_place(gm, node)
        memory[node] = memory[source] if source is not None and shares else node
    for node in filter(lambda each: _works_in_place(gm, each), gm.graph.nodes):
        for other in order:
            if memory[other] is not memory[node] or order[other] >= order[node]:
                continue
            late = [user for user in other.users if order[user] > order[node]]
            if late:
                raise UserError(
                    f"'{node.name}' works in place on a value that '{late[0].name}' reads "
                    "afterwards; write it without inplace"
                )


def trace(model: nn.Module, example: Tensor) -> Traced:
    """Trace ``model``, which is left as it was.

    Args:
        model: takes one float tensor of images ``[N, C, H, W]``.
        example: any images of the right size.

    Raises:
        UserError: for what a trace would lose, naming the place and the remedy.
    """
    if example.dim() != 4:
        raise UserError(f"the example must be images [N, C, H, W], not {list(example.shape)}")
    _refuse_hidden(model)
    gm, scope = _graph(model, training=True)
    evaluated, _ = _graph(model, training=False)
    _same_in_both_modes(model, gm, evaluated)
    _refuse_overwritten(gm)
    traced = Traced(gm, scope=scope)
    traced.in_evaluation = {node.name: node for node in evaluated.graph.nodes}
    _record(traced, example)
    return traced
