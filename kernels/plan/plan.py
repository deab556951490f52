"""Program -> plan: an op table, its constants and the size of its arena.

``make_plan`` reads as: check -> :mod:`frostbit.kernels.plan.schedule` (helpers, fusion) -> layouts
-> :mod:`frostbit.kernels.plan.arena` (places) -> :mod:`frostbit.kernels.plan.rules` (rows).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.program import INPUT, BinaryConv, FormatError, Program, ValueType
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.micro.vector import BLOCK, LANES
from frostbit.kernels.plan import int16_streams, weight_layout
from frostbit.kernels.plan.arena import Layout, place
from frostbit.kernels.plan.columns import Lowering
from frostbit.kernels.plan.fusion import Step
from frostbit.kernels.plan.quads import Difference
from frostbit.kernels.plan.rules import RULES
from frostbit.kernels.plan.schedule import Regroup, Widen, lifetimes, schedule
from frostbit.kernels.plan.shares import whole
from frostbit.kernels.plan.views import find_views, is_done, root, roots_spans

MICRO = {"xnor": t.XNOR, "lookup": t.LOOKUP, "portable": t.PORTABLE}


@dataclass(frozen=True, eq=False)
class Plan:
    """All that the compiled interpreter needs.

    Attributes:
        table: int64 ``[steps, COLUMNS]``.
        constants: the constant block.
        arena_bytes: size of the arena.
        result: offset of the logits in the arena.
        ops: name of the op whose work each step does (a helper's name ends in ``:what``).
        bits: offset and layout of each bits value of the Program.
    """

    table: NDArray[np.int64]
    constants: NDArray[np.uint8]
    arena_bytes: int
    result: int
    ops: tuple[str, ...]
    bits: dict[str, tuple[int, Layout]]


def _margins(steps: list[Step], name: str) -> tuple[int, int, int, int]:
    """What the binary convolutions that read the bits value ``name`` want around it."""
    pads = [s.op.window.pads for s in steps if isinstance(s.op, BinaryConv) and s.source == name]
    top, left, bottom, right = np.max([(0, 0, 0, 0), *pads], axis=0).tolist()
    return top, left, bottom, right


def _layout(steps: list[Step], types: dict[str, ValueType], name: str) -> Layout:
    """Layout of a value of the Program or of a helper step."""
    maker = next(step for step in steps if name in step.writes)
    op = maker.op
    if isinstance(op, Regroup):
        pixel = 4 * op.reader.groups * weight_layout.blocks_for(op.reader.channels_in)
        return Layout(types[maker.source].shape[:2], pixel, 4, op.reader.window.pads)
    if isinstance(op, Difference):
        return _layout(steps, types, maker.source)
    height, width, channels = types[name].shape
    weight_layout.check_size(height * width, f"pixels in '{name}'")
    blocks = weight_layout.blocks_for(channels)
    if isinstance(op, Widen):
        tight = maker.source == INPUT
        block = LANES * op.value_bytes
        pixel = channels * op.value_bytes if tight else block * blocks
        return Layout((height, width), pixel, block, op.reader.window.pads)
    if types[name].kind == "bits":
        return Layout((height, width), 4 * blocks, 4, _margins(steps, name))
    return Layout((height, width), BLOCK * blocks, BLOCK)


def _narrow_layout(layout: Layout) -> Layout:
    """The same map in 16 bits."""
    return Layout(layout.size, layout.pixel // 2, layout.block // 2, layout.margins)


def _head_bytes(steps: list[Step], kernel: str) -> int:
    """Bytes at the start of the arena that no value may take."""
    if kernel != "lookup":
        return t.HEAD_BYTES
    words = [
        op.words.shape[1] * op.words.shape[2] * weight_layout.blocks_for(op.channels_in)
        for op in (step.op for step in steps)
        if isinstance(op, BinaryConv) and op.groups == 1
    ]
    return t.HEAD_BYTES + max(map(weight_layout.scratch_bytes, words), default=0)


def _table(low: Lowering, steps: list[Step]) -> NDArray[np.int64]:
    rows = np.zeros((len(steps), t.COLUMNS), np.int64)
    for i, step in enumerate(steps):
        for column, value in RULES[type(step.op)](low, step, step.op).items():
            rows[i, column] = value
        columns = (t.BEGIN, t.END, t.FIRST_BLOCK, t.END_BLOCK)
        rows[i, columns] = whole(rows[i].tolist())
    return rows


def make_plan(program: Program, kernel: str, reuse: bool = True, narrow: bool = True) -> Plan:
    """Plan ``program`` for the micro-kernel ``kernel``.

    Args:
        program: any Program.
        kernel: ``xnor``, ``lookup`` or ``portable``.
        reuse: whether values may share memory (False keeps every value until the end).
        narrow: whether residual streams may take 16 bits where that is exact and pays.

    Raises:
        FormatError: if the Program is malformed, has an op without a rule here, or needs more
            than 2 GiB.
    """
    for op in program.ops:
        if type(op) not in RULES:
            raise FormatError(f"op '{op.name}': no engine rule for {type(op).__name__}")
    types = infer_types(program)
    steps = schedule(program, types)
    for step in steps:
        if step.out is not None and step.out not in types:  # a helper's value
            types[step.out] = ValueType("f32", types[step.source].shape)
    result = program.ops[-1].name
    spans = lifetimes(steps, result)
    small = (
        int16_streams.narrow(program, steps, types) if narrow and int16_streams.pays(kernel) else {}
    )
    layouts = {name: _layout(steps, types, name) for name in spans}
    layouts |= {name: _narrow_layout(layouts[name]) for name in small}
    inside = find_views(steps, types, result)
    offsets, size = place(layouts, roots_spans(spans, inside), _head_bytes(steps, kernel), reuse)
    for name in inside:
        view = root(name, inside)
        layouts[name] = replace(layouts[name], pixel=layouts[view.base].pixel)
        offsets[name] = offsets[view.base] + 4 * view.channel
    steps = [step for step in steps if not is_done(step, inside, types)]
    low = Lowering(types, layouts, offsets, MICRO[kernel], small, inside)
    rows = _table(low, steps)
    signs = [name for name in spans if types[name].kind == "bits"]
    return Plan(
        rows,
        low.constants.block(),
        size,
        offsets[result],
        tuple(step.op.name for step in steps),
        {name: (offsets[name], layouts[name]) for name in signs},
    )
