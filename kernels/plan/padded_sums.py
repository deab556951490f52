"""Sums with a map of few channels: ``Add(x, Pad(y))``, where ``Pad`` gives y the channels of x.

MeliusNet corrects the last channels of its features so. Only these are added to, and the others
are copied, or stay where they are (:mod:`frostbit.kernels.plan.views`).
"""

from __future__ import annotations

from frostbit.kernels.ir.program import Add, Concat, Op, Pad, Slice, ValueType
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.plan.fusion import Step, readers

Types = dict[str, ValueType]


def _is_of_blocks(op: Pad, source: ValueType) -> bool:
    """Whether it puts whole blocks of channels around whole blocks, and nothing else."""
    sizes = (*op.channels, source.shape[2])
    return not any(op.pads) and any(op.channels) and all(size % LANES == 0 for size in sizes)


def _split(step: Step, pad: Step, op: Pad, whole: str, types: Types) -> list[Step]:
    """The steps of the sum ``step`` of ``whole`` and what ``pad`` makes."""
    name = step.op.name
    height, width, channels = types[whole].shape
    begin, count = op.channels[0], types[pad.source].shape[2]
    made: list[Step] = []

    def add(made_by: Op, size: int, residual: str | None = None) -> str:
        types[made_by.name] = ValueType("f32", (height, width, size))
        made.append(Step(made_by, made_by.inputs[0], residual, out=made_by.name))
        return made_by.name

    def cut(what: str, start: int, stop: int) -> str:
        return add(Slice(f"{name}:{what}", (whole,), start, stop), stop - start)

    old = cut("old", begin, begin + count)
    parts = [add(Add(f"{name}:sum", (pad.source, old)), count, old)]
    if begin:
        parts.insert(0, cut("before", 0, begin))
    if begin + count < channels:
        parts.append(cut("after", begin + count, channels))
    joined = Concat(name, tuple(parts))
    return [*made, Step(joined, parts[0], out=step.out, more=tuple(parts[1:]))]


def split_padded_sums(steps: list[Step], types: Types, result: str) -> list[Step]:
    """``steps`` with every such sum in parts, whose types are added to ``types``."""
    read = readers(steps)
    pads = {
        step.out: (step, step.op)
        for step in steps
        if isinstance(step.op, Pad) and _is_of_blocks(step.op, types[step.source])
    }
    found: list[Step] = []
    gone: set[str | None] = set()
    for step in steps:
        split = [step]
        if isinstance(step.op, Add):
            for padded, whole in ((step.source, step.residual), (step.residual, step.source)):
                if padded in pads and whole and read[padded or ""] == 1 and padded != result:
                    split = _split(step, *pads[padded], whole, types)
                    gone.add(padded)
                    break
        found += split
    return [step for step in found if step.out not in gone]
