"""Maps that lie inside other maps, so that nothing is copied.

A part of a ``Concat`` is written where the joined map has it, and a ``Slice`` is read where its
source has it. Float maps only, in whole blocks of channels: then every step can write or read such
a map, as one whose pixels lie further apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frostbit.kernels.ir.program import Concat, Slice, ValueType
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.plan.fusion import Step


@dataclass(frozen=True)
class View:
    """Where a map lies.

    Attributes:
        base: the map that it is a part of, which may be a part itself.
        channel: its first channel there.
    """

    base: str
    channel: int


def places(step: Step, types: Mapping[str, ValueType]) -> list[tuple[str, View]]:
    """The parts of what ``step`` joins, or cuts out, each where it is in the other map."""
    op = step.op
    if isinstance(op, Slice) and step.out is not None:
        return [(step.out, View(step.source, op.start))]
    found, channel = [], 0
    if isinstance(op, Concat) and step.out is not None:
        for name in (step.source, *step.more):
            found.append((name, View(step.out, channel)))
            channel += types[name].shape[2]
    return found


def find_views(
    steps: Sequence[Step], types: Mapping[str, ValueType], result: str
) -> dict[str, View]:
    """Every map that may lie inside another, which it does once."""
    found: dict[str, View] = {}
    for step in steps:
        for name, view in places(step, types):
            numbers = (types[name].shape[2], types[view.base].shape[2], view.channel)
            is_whole = all(number % LANES == 0 for number in numbers)
            if types[name].kind == "f32" and is_whole and name not in (result, *found):
                found[name] = view
    return found


def root(name: str, views: Mapping[str, View]) -> View:
    """The map in whose memory ``name`` lies, which is no part of another."""
    channel = 0
    while name in views:
        channel += views[name].channel
        name = views[name].base
    return View(name, channel)


def is_done(step: Step, views: Mapping[str, View], types: Mapping[str, ValueType]) -> bool:
    """Whether all that ``step`` would copy lies where it should."""
    wanted = places(step, types)
    return bool(wanted) and all(views.get(name) == view for name, view in wanted)


def roots_spans(
    spans: Mapping[str, tuple[int, int]], views: Mapping[str, View]
) -> dict[str, tuple[int, int]]:
    """First and last step that needs each map that is no part, its parts included."""
    found: dict[str, tuple[int, int]] = {}
    for name, (first, last) in spans.items():
        base = root(name, views).base
        others = found.get(base, (first, last))
        found[base] = (min(first, others[0]), max(last, others[1]))
    return found
