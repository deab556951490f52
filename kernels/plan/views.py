"""Maps that lie inside other maps, so that nothing is copied.

A part of a ``Concat`` is written where the joined map has it, and a ``Slice`` is read where its
source has it. A map of which some channels are replaced (cut out, and joined with others in the
place of the rest) becomes the new map, once nobody reads the replaced ones any more. Float maps
only, in whole blocks of channels: then every step can write or read such a map, as one whose pixels
lie further apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from frostbit.kernels.ir.program import Concat, Pad, Slice, ValueType
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.plan.fusion import Step

Types = Mapping[str, ValueType]


@dataclass(frozen=True)
class View:
    """Where a map lies.

    Attributes:
        base: the map that it is a part of, which may be a part itself.
        channel: its first channel there.
    """

    base: str
    channel: int


def places(step: Step, types: Types) -> list[tuple[str, View]]:
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


def find_views(steps: Sequence[Step], types: Types, result: str) -> dict[str, View]:
    """Every map that may lie inside another, which it does once.

    Not what a Pad writes: it clears its whole map first, and so the channels beside.
    """
    found: dict[str, View] = {}
    clearing = [step.out for step in steps if isinstance(step.op, Pad)]
    for step in steps:
        for name, view in places(step, types):
            numbers = (types[name].shape[2], types[view.base].shape[2], view.channel)
            is_whole = all(number % LANES == 0 for number in numbers)
            taken = name in (result, *found) or (isinstance(step.op, Concat) and name in clearing)
            if types[name].kind == "f32" and is_whole and not taken:
                found[name] = view
    for step in steps:
        for name, view in places(step, types):
            if not isinstance(step.op, Concat) or name not in found:
                continue
            old = found[name].base
            stays = found[name].channel == view.channel and types[old] == types[view.base]
            free = stays and old not in (view.base, result, *found)
            if free and _is_replaced(old, view.base, steps, found, types):
                found[old] = View(view.base, 0)
    return found


def _within(name: str, whole: str, views: Mapping[str, View]) -> int | None:
    """The channel of ``whole`` at which ``name`` begins; None if it lies elsewhere."""
    channel = 0
    while name != whole:
        if name not in views:
            return None
        channel += views[name].channel
        name = views[name].base
    return channel


def _is_replaced(
    old: str, new: str, steps: Sequence[Step], views: Mapping[str, View], types: Types
) -> bool:
    """Whether ``old`` is whole, and read no more, when ``new`` is written over it.

    The step that writes first may add what it writes over: every number is read just before.
    """

    def is_inside(names: Sequence[str], whole: str) -> bool:
        return any(_within(name, whole, views) is not None for name in names)

    begun = next(i for i, step in enumerate(steps) if is_inside(step.writes, new))
    for i, step in enumerate(steps[begun:], begun):
        if is_done(step, {**views, old: View(new, 0)}, types):
            continue
        if is_inside(step.writes, old):
            return False
        if not is_inside(step.reads, old):
            continue
        here = None if step.out is None else _within(step.out, new, views)
        there = None if step.residual is None else _within(step.residual, old, views)
        if i > begun or here is None or here != there or is_inside([step.source], old):
            return False
    return True


def root(name: str, views: Mapping[str, View]) -> View:
    """The map in whose memory ``name`` lies, which is no part of another."""
    channel = 0
    while name in views:
        channel += views[name].channel
        name = views[name].base
    return View(name, channel)


def is_there(name: str, view: View, views: Mapping[str, View]) -> bool:
    """Whether ``name`` lies at ``view``."""
    base = root(view.base, views)
    return root(name, views) == View(base.base, base.channel + view.channel)


def is_done(step: Step, views: Mapping[str, View], types: Types) -> bool:
    """Whether all that ``step`` would copy lies where it should."""
    wanted = places(step, types)
    return bool(wanted) and all(is_there(name, view, views) for name, view in wanted)


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
