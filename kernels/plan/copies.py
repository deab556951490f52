"""Rules of the steps that only move values: from a step of the schedule to its row."""

from __future__ import annotations

import numpy as np

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.program import Concat, Flatten, Pad, Repeat, Slice
from frostbit.kernels.micro.vector import LANES
from frostbit.kernels.plan.columns import Lowering, Row, cleared, out_map, source_map
from frostbit.kernels.plan.fusion import Step
from frostbit.kernels.plan.schedule import Spread
from frostbit.kernels.plan.views import is_there, places


def _joined(low: Lowering, step: Step, parts: list[tuple[str, Row]]) -> Row:
    """A JOIN of parts of maps, each with its map's name; spare lanes are cleared."""
    table = np.zeros((len(parts), t.PART_COLUMNS), np.int64)
    for row, (name, part) in zip(table, parts, strict=True):
        layout = low.layouts[name]
        row[t.PART_SOURCE], row[t.PART_CHANNELS] = low.origin(name), low.types[name].shape[2]
        row[t.PART_ROW], row[t.PART_PIXEL] = layout.row, layout.pixel
        for column, value in part.items():
            row[column] = value
    return {
        **source_map(low, step.source),
        **out_map(low, step.op.name),
        **_spare_cleared(low, step.op.name),
        t.CODE: t.JOIN,
        t.PARTS: len(parts),
        t.PART_TABLE: low.constants.add(table),
    }


def _spare_cleared(low: Lowering, name: str) -> Row:
    value = low.types[name]
    return cleared(low, name) if value.kind == "f32" and value.shape[2] % LANES else {}


def concat(low: Lowering, step: Step, op: Concat) -> Row:
    """What is not written in its place already."""
    parts = [
        (name, {t.PART_AT: view.channel})
        for name, view in places(step, low.types)
        if not is_there(name, view, low.views)
    ]
    return _joined(low, step, parts)


def channels(low: Lowering, step: Step, op: Slice) -> Row:
    count = op.stop - op.start
    part = {t.PART_FIRST: op.start, t.PART_CHANNELS: count}
    return _joined(low, step, [(step.source, part)])


def flatten(low: Lowering, step: Step, op: Flatten) -> Row:
    per_pixel = low.types[step.source].shape[2]
    row = _joined(low, step, [(step.source, {t.PART_STEP: per_pixel})])
    return {**row, t.OUT_ROW: 0, t.OUT_PIXEL: 0}


def pad(low: Lowering, step: Step, op: Pad) -> Row:
    layout = low.layouts[op.name]
    inside = op.pads[0] * layout.row + op.pads[1] * layout.pixel
    row = _joined(low, step, [(step.source, {t.PART_AT: op.channels[0]})])
    return {**row, **cleared(low, op.name), t.OUT: row[t.OUT] + inside}


def repeat(low: Lowering, step: Step, op: Repeat) -> Row:
    return {
        **source_map(low, step.source),
        **out_map(low, op.name),
        **_spare_cleared(low, op.name),
        t.CODE: t.REPEAT,
        t.DIVISOR: op.times,
    }


def spread(low: Lowering, step: Step, op: Spread) -> Row:
    return {
        **source_map(low, step.source),
        **out_map(low, op.name),
        **_spare_cleared(low, op.name),
        t.CODE: t.SPREAD,
    }
