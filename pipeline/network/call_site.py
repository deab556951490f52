"""One call in a user's network: its arguments by name, and what stands there afterwards.

A *rule* (:mod:`frostbit.pipeline.network.rules`) is a function with the parameters of the torch
function or module that it converts. A parameter annotated ``Refused`` must have its default; an
argument that is no parameter of the rule is refused too. So no argument can be dropped.
"""

from __future__ import annotations

import copy
import inspect
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Argument

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.binary_layers import BinaryActivation
from frostbit.pipeline.network.channels import ChannelAffine
from frostbit.pipeline.network.trace import Traced, attribute, known_kind

Refused: TypeAlias = object
Map = tuple[int, int, int]
Rule = Callable[..., fx.Node]

_OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim"}
_NOT_KEPT = ("self", "device", "dtype", "args", "kwargs")


def _differs(value: object, default: object) -> bool:
    return isinstance(value, Tensor) or bool(value != default)


@dataclass(frozen=True)
class Value:
    """A value of the network as converted.

    Attributes:
        shape: what the user's code sees, without the batch.
        map: (C, H, W) of the map that holds it; a vector is a map that was flattened. What is
            neither has another view of its map, which only reductions and reshapes read.
    """

    shape: tuple[int, ...]
    map: Map

    @property
    def is_map(self) -> bool:
        return self.shape == self.map

    @property
    def is_vector(self) -> bool:
        return self.shape == (math.prod(self.map),)


class Site:
    """The place of one call; rules read and build the graph through it.

    Attributes:
        node: the call; where: its place, for messages; module: what it calls, None for functions.
    """

    def __init__(
        self,
        traced: Traced,
        node: fx.Node,
        values: dict[fx.Node, Value],
        module: nn.Module | None,
    ) -> None:
        self.traced, self.node, self.values, self.module = traced, node, values, module
        scope = traced.scope.get(node.name, "")
        self.where = f"'{node.name}'" + (f" in '{scope}'" if scope else "")
        if module is not None:
            self.where = f"'{node.target}'"
        self.made = 0

    def refuse(self, problem: str, remedy: str) -> UserError:
        return UserError(f"{self.where}: {problem}; {remedy}")

    @property
    def shape(self) -> tuple[int, ...]:
        """What the user's code sees of the result."""
        return self.traced.shapes[self.node]

    # ------------------------------------------------------------ arguments

    def arguments(self, rule: Rule) -> dict[str, object]:
        """The arguments of the call by the names that ``rule`` gives them."""
        signature = inspect.signature(rule)
        given = self._of_module(signature) if self.module is not None else self._of_call(signature)
        for name, value in given.items():
            parameter = signature.parameters[name]
            if parameter.annotation == "Refused" and _differs(value, parameter.default):
                raise self.refuse(
                    f"{self.called}({name}={value!r}) cannot be converted",
                    f"leave {name} at {parameter.default!r}",
                )
        return given

    @property
    def called(self) -> str:
        if self.module is not None:
            return type(self.module).__name__
        return str(getattr(self.node.target, "__name__", self.node.target))

    def _of_module(self, signature: inspect.Signature) -> dict[str, object]:
        kind = known_kind(self.module) if self.module is not None else None
        if set(self.node.kwargs) == {"input"} and not self.node.args:
            self.node.args, self.node.kwargs = (self.node.kwargs["input"],), {}
        if len(self.node.args) != 1 or self.node.kwargs:
            raise self.refuse(f"{self.called} called with more than one map", "give it one")
        found: dict[str, object] = {"input": self.node.args[0]}
        for name, parameter in inspect.signature(kind).parameters.items():  # type: ignore[arg-type]
            value = getattr(self.module, name, parameter.default)
            if name in signature.parameters:
                found[name] = value
            elif name not in _NOT_KEPT and _differs(value, parameter.default):
                raise self.refuse(
                    f"{self.called}({name}={value!r}) cannot be converted",
                    f"leave {name} at {parameter.default!r}",
                )
        return found

    def _of_call(self, signature: inspect.Signature) -> dict[str, object]:
        if inspect.Parameter.VAR_POSITIONAL in {p.kind for p in signature.parameters.values()}:
            return {"input": self.node.all_input_nodes[0]}  # judged by its result alone
        args = fx.map_arg(self.node.args, self._known)
        more = {
            _OTHER_NAMES.get(name, name): fx.map_arg(value, self._known)
            for name, value in self.node.kwargs.items()
        }
        unknown = [name for name in more if name not in signature.parameters]
        if unknown:
            raise self.refuse(
                f"the argument {unknown[0]} of {self.called} cannot be converted", "leave it out"
            )
        try:
            bound = signature.bind(self, *args, **more)
        except TypeError as error:
            raise self.refuse(
                f"{self.called}: {error}", "give what its documentation says"
            ) from error
        return dict(list(bound.arguments.items())[1:])

    def _known(self, node: fx.Node) -> Argument:
        """A size that the network asks for, as a number; other values stay nodes."""
        if node not in self.traced.numbers:
            return node
        value = self.traced.numbers[node]
        if value is None:
            raise self.refuse("it depends on the number of images", "use sizes of one image only")
        return value

    def in_evaluation(self, rule: Rule, name: str) -> object:
        """The argument ``name`` of this call as evaluation makes it."""
        node, signature = self.traced.in_evaluation[self.node.name], inspect.signature(rule)
        bound = signature.bind(self, *node.args, **node.kwargs).arguments
        return bound.get(name, signature.parameters[name].default)

    # ------------------------------------------------------------ values

    def value(self, node: object) -> Value | None:
        """What is known of a map or vector; None for parameters and numbers."""
        return self.values.get(node) if isinstance(node, fx.Node) else None

    def map_of(self, node: object) -> Map:
        """(C, H, W) of a map; UserError for anything else."""
        value = self.value(node)
        if value is None or not value.is_map:
            raise self.refuse(
                f"{self.called} reads {self._seen(value)}", "it must read a map [N, C, H, W]"
            )
        return value.map

    def vector_of(self, node: object) -> Map:
        """(C, H, W) of the map that was flattened to a vector; UserError for anything else."""
        value = self.value(node)
        if value is None or not value.is_vector:
            raise self.refuse(
                f"{self.called} reads {self._seen(value)}", "flatten it to [N, features] before"
            )
        return value.map

    @staticmethod
    def _seen(value: Value | None) -> str:
        return "no map" if value is None else f"[N, {', '.join(str(n) for n in value.shape)}]"

    def tensor(self, operand: object) -> Tensor | None:
        """A parameter, buffer or number as a tensor; None for a map or vector."""
        if isinstance(operand, (int, float)) and not isinstance(operand, bool):
            return torch.tensor(float(operand))
        if isinstance(operand, fx.Node) and operand.op == "get_attr":
            return attribute(self.traced.gm, operand)
        if isinstance(operand, fx.Node) and operand in self.values:
            return None
        raise self.refuse(f"{self.called} of {operand}", "use maps, numbers and parameters")

    # ------------------------------------------------------------ building

    def put(self, module: nn.Module, source: fx.Node, made: Value, name: str = "") -> fx.Node:
        """Call ``module`` with ``source``; the result is ``made``."""
        gm = self.traced.gm
        chosen = name or f"plain_{self.node.name}_{self.made}"
        self.made += 1
        gm.add_submodule(chosen, module)
        with gm.graph.inserting_before(self.node):
            node = gm.graph.call_module(chosen, (source,))
        self.values[node] = made
        return node

    def place(self, module: nn.Module, source: fx.Node, made: Value) -> fx.Node:
        """Like :meth:`put`, but a user's module of the same kind stays, with its name."""
        if type(self.module) is type(module):
            return self.keep(made)
        return self.put(module, source, made)

    def become(
        self, function: Callable[..., object], args: tuple[Argument, ...], made: Value
    ) -> fx.Node:
        """Make the call one of ``function``, which keeps its name."""
        self.node.op, self.node.target = "call_function", function
        self.node.args, self.node.kwargs = args, {}
        return self.keep(made)

    def keep(self, made: Value) -> fx.Node:
        """Leave the call where it is."""
        self.values[self.node] = made
        return self.node

    def replace_padding(self, padding: tuple[int, int]) -> None:
        """Let the convolution pad with numbers, in a copy that shares its weights."""
        made = copy.copy(self.module)
        if not isinstance(made, nn.Conv2d):
            raise self.refuse("padding of no convolution", "use Conv2d")
        made.padding = padding
        self.traced.gm.add_submodule(str(self.node.target), made)

    def once(self) -> None:
        """Refuse a module with weights that is called at several places."""
        same = [
            n
            for n in self.traced.gm.graph.nodes
            if n.op == "call_module" and n.target == self.node.target
        ]
        if len(same) > 1:
            raise UserError(f"{self.where} is used twice; give each place its own module")

    def flattened(self, source: fx.Node) -> fx.Node:
        value = self.values[source]
        if value.is_vector:
            return source
        return self.put(nn.Flatten(1), source, Value((math.prod(value.map),), value.map))

    def activation(self, source: fx.Node) -> fx.Node:
        """A :class:`BinaryActivation` of this place's own, also where a module is shared."""
        names = {name for name, _ in self.traced.gm.named_modules()}
        taken = {str(n.target) for n in self.values if n.op == "call_module"}
        base = str(self.node.target) if self.module is not None else f"activation_{self.node.name}"
        name, count = base, 1
        while name in taken or (name in names and not (self.module is not None and count == 1)):
            count += 1
            name = f"{base}_{count}"
        return self.put(BinaryActivation(), source, self.values[source], name)

    def affine(
        self, source: fx.Node, mul: Tensor | None, times: float, add: Tensor | None, plus: float
    ) -> fx.Node:
        """``source * (times * mul) + plus * add``, with one value a channel or one for all."""
        value = self.values[source]
        if times == 1 and mul is None and add is None:
            return source
        if not (value.is_map or (value.is_vector and value.map[1:] == (1, 1))):
            raise self.refuse(
                f"{self.called} with {self._seen(value)}",
                "use it on a map [N, C, H, W], before it is flattened",
            )
        for tensor in (mul, add):
            self._check_channels(value, tensor)
            self._check_own(tensor)
        return self.put(ChannelAffine(mul, times, add, plus), source, value)

    def _check_own(self, tensor: Tensor | None) -> None:
        """Refuse a learnt parameter that another place learns too: files keep each weight once."""
        if not isinstance(tensor, nn.Parameter):
            return
        for module in self.traced.gm.modules():
            if isinstance(module, ChannelAffine) and (tensor is module.mul or tensor is module.add):
                raise self.refuse(
                    f"{self.called} with a parameter that is used twice",
                    "give each place its own parameter",
                )

    def _check_channels(self, value: Value, tensor: Tensor | None) -> None:
        if tensor is None or tensor.numel() == 1:
            return
        wanted = (1, value.shape[0], *[1] * (len(value.shape) - 1))
        aligned = (*[1] * (len(wanted) - tensor.dim()), *tensor.shape)
        if aligned != wanted:
            raise self.refuse(
                f"{self.called} with a parameter of shape {list(tensor.shape)} on "
                f"{self._seen(value)}",
                f"it needs one value, or one for each channel: {list(wanted[1:])}",
            )


SIZES: Mapping[object, tuple[str, ...]] = {
    "size": (), "dim": (), getattr: ("shape", "ndim"), operator.getitem: (), operator.mul: (),
    operator.add: (), operator.sub: (), operator.floordiv: (), operator.truediv: (),
    operator.neg: (), operator.mod: (),
}  # fmt: skip
"""What may compute sizes, and the attributes that may be read for it."""


def is_size(traced: Traced, node: fx.Node) -> bool:
    """Whether ``node`` is a size of an image (or of the batch), not a value of the network."""
    if node not in traced.numbers or node.target not in SIZES:
        return False
    attributes = SIZES[node.target]
    return not attributes or node.args[1] in attributes
