"""The table of what can be converted: its page, and its parameters against torch's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.fx.operator_schemas import get_signature_for_torch_op

from frostbit.pipeline.network.table import TABLE, Entry
from frostbit.pipeline.network.trace import OF_TORCH
from tests.pipeline.network.page import PAGE, page

BY_RESULT = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
DISPATCHED = {F.max_pool2d: torch.max_pool2d, F.adaptive_max_pool2d: None}
"""Functions that hide their parameters, and where to look for them."""


def test_the_page_is_written_from_the_table() -> None:
    assert PAGE.read_text() == page(), "python -m tests.pipeline.network.page writes it anew"


def test_every_call_stands_in_the_table_once() -> None:
    calls = [call for entry in TABLE for call in (*entry.modules, *entry.calls)]
    assert len(calls) == len(set(calls))
    assert {kind for entry in TABLE for kind in entry.modules} == set(OF_TORCH)


def signatures(call: object) -> list[inspect.Signature]:
    """What torch says that ``call`` takes: every overload that reads a tensor first."""
    if isinstance(call, str):
        call = getattr(torch, call.rstrip("_"), None)
    call = DISPATCHED.get(call, call)  # type: ignore[call-overload]
    found = get_signature_for_torch_op(call) if callable(call) else None
    if found is None and callable(call):
        try:
            found = [inspect.signature(call)]
        except ValueError:
            found = None
    return [
        each
        for each in found or ()
        if "out" not in each.parameters and "Tensor" in str(next(iter(each.parameters.values())))
    ]


def rows() -> Iterator[tuple[str, Entry, object]]:
    for entry in TABLE:
        kinds = {p.kind for p in inspect.signature(entry.rule).parameters.values()}
        if not kinds.intersection(BY_RESULT):
            for call in entry.calls:
                yield str(getattr(call, "__name__", call)), entry, call


@pytest.mark.parametrize(("name", "entry", "call"), list(rows()))
def test_rules_take_what_torch_takes_in_its_order(name: str, entry: Entry, call: object) -> None:
    """A rule may know more (an older spelling); it must not miss or move a parameter."""
    ours = list(inspect.signature(entry.rule).parameters)[1:]
    for theirs in signatures(call):
        names = [each for each in theirs.parameters if not each.startswith("_")]
        places = [each for each in names if each in ours]
        assert ours[: len(places)] == places or places == [n for n in ours if n in places], theirs
        for each in names:
            assert each in ours, f"{name} takes {each}, the rule {entry.rule.__name__} does not"


def test_enough_calls_are_held_against_torch() -> None:
    assert sum(bool(signatures(call)) for _, _, call in rows()) >= 25


@pytest.mark.parametrize("kind", sorted({k for e in TABLE for k in e.modules}, key=str))
def test_defaults_of_refused_arguments_are_those_of_torch(kind: type[nn.Module]) -> None:
    entry = next(each for each in TABLE if kind in each.modules)
    theirs = inspect.signature(kind).parameters
    rule: Callable[..., object] = entry.rule
    for name, parameter in inspect.signature(rule).parameters.items():
        if parameter.annotation == "Refused" and name in theirs:
            assert parameter.default == theirs[name].default
