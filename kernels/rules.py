"""One rule per op: from a step of the schedule to its row of the op table.

A rule returns ``{column: value}`` (columns in :mod:`kernels.table`) and adds the weights and
tables that its kernel reads to the constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kernels import table as t
from kernels import weights
from kernels.memory import Constants, Layout
from kernels.program import (
    INPUT,
    Add,
    AvgPool,
    BinaryConv,
    Conv,
    Dense,
    GlobalSum,
    MaxPool,
    Op,
    Repeat,
    Sign,
    Threshold,
    ToFloat,
    ValueType,
    Window,
)
from kernels.schedule import Regroup, Step, Widen
from kernels.vector import LANES

Row = dict[int, int]
KINDS = {"u8": t.U8, "f32": t.F32, "bits": t.BITS}


@dataclass(frozen=True, eq=False)
class Lowering:
    """What the rules look things up in."""

    types: dict[str, ValueType]
    layouts: dict[str, Layout]
    offsets: dict[str, int]
    micro: int
    constants: Constants = field(default_factory=Constants)

    def origin(self, name: str) -> int:
        """Arena offset of pixel (0, 0)."""
        return self.offsets[name] + self.layouts[name].origin

    def kind(self, name: str) -> int:
        value = self.types.get(name)
        return t.F32 if value is None else KINDS[value.kind]


def _source(low: Lowering, name: str) -> Row:
    """Columns that describe the map a step reads."""
    height, width, channels = low.types[name].shape
    shape = {t.HEIGHT: height, t.WIDTH: width, t.CHANNELS: channels, t.KIND: low.kind(name)}
    if name == INPUT:
        return {**shape, t.SOURCE_ROW: width * channels, t.SOURCE_PIXEL: channels}
    layout = low.layouts[name]
    return {
        **shape,
        t.SOURCE: low.origin(name),
        t.SOURCE_ROW: layout.row,
        t.SOURCE_PIXEL: layout.pixel,
        t.SOURCE_BLOCK: layout.block,
    }


def _cleared(low: Lowering, name: str) -> Row:
    return {t.CLEAR: low.offsets[name], t.CLEAR_BYTES: low.layouts[name].bytes}


def _map_out(low: Lowering, name: str) -> Row:
    """Columns of an output map that is written in place, margins cleared."""
    layout = low.layouts[name]
    return {
        **(_cleared(low, name) if any(layout.margins) else {}),
        t.OUT: low.origin(name),
        t.OUT_ROW: layout.row,
        t.OUT_PIXEL: layout.pixel,
        t.OUT_BLOCK: layout.block,
        t.OUT_HEIGHT: layout.size[0],
        t.OUT_WIDTH: layout.size[1],
        t.BLOCKS: layout.pixel // layout.block,
        t.PIXELS: layout.size[0] * layout.size[1],
    }


def _outputs(low: Lowering, step: Step) -> Row:
    """Columns of float and sign outputs; what is not wanted goes to the sinks."""
    row = {t.OUT: t.SINK, t.BITS_OUT: t.BITS_SINK}
    if step.out is not None:
        row.update(_map_out(low, step.out))
    if step.bits is not None:
        layout = low.layouts[step.bits]
        row.update({t.BITS_OUT: low.origin(step.bits), t.BITS_BLOCK: layout.block})
        if any(layout.margins):
            row.update(_cleared(low, step.bits))
    return row


def _distances(low: Lowering, name: str | None, pixels: int) -> NDArray[np.int32]:
    """Per-pixel distances in the map ``name`` if it is bits (floats need no table)."""
    if name is None or low.kind(name) != t.BITS:
        return np.zeros(pixels, np.int32)
    layout = low.layouts[name]
    return weights.pixel_distances(layout.size, layout.row, layout.pixel)


def _residual(low: Lowering, name: str | None) -> Row:
    if name is None:
        return {t.RESIDUAL: t.ZEROS, t.RESIDUAL_KIND: t.F32}
    layout, kind = low.layouts[name], low.kind(name)
    return {
        t.RESIDUAL: low.origin(name),
        t.RESIDUAL_KIND: kind,
        t.RESIDUAL_PIXEL: 0 if kind == t.BITS else layout.pixel,
        t.RESIDUAL_BLOCK: layout.block,
    }


def _window(window: Window) -> Row:
    return {
        t.KERNEL_H: window.kernel[0],
        t.KERNEL_W: window.kernel[1],
        t.STRIDE_H: window.stride[0],
        t.STRIDE_W: window.stride[1],
        t.TOP: window.pads[0],
        t.LEFT: window.pads[1],
        t.DILATION_H: window.dilation[0],
        t.DILATION_W: window.dilation[1],
    }


def _convolve(low: Lowering, step: Step, window: Window, rows: Any, out: int, values: int) -> Row:
    """Columns shared by all convolutions; the pixel table is added by the caller.

    ``rows`` are the weights ``[out, taps]``, ``values`` the 4-byte values of one tap.
    """
    layout = low.layouts[step.source]
    padded = (window.pads[0] * layout.row, window.pads[1] * layout.pixel)
    return {
        **_outputs(low, step),
        **_residual(low, step.residual),
        t.CODE: t.CONVOLVE,
        t.SOURCE: low.origin(step.source) - padded[0] - padded[1],
        t.BLOCKS: weights.blocks_for(out),
        t.TAPS: rows.shape[1],
        t.WEIGHTS: low.constants.add(weights.by_block(rows)),
        t.OFFSETS: low.constants.add(weights.tap_offsets(window, layout.row, layout.pixel, values)),
    }


def _pixels(low: Lowering, step: Step, window: Window, size: tuple[int, int], classes: Any) -> Row:
    """The pixel table of a convolution; ``classes`` are byte distances into START."""
    layout = low.layouts[step.source]
    table = weights.pixel_table(
        [
            weights.pixel_distances(
                size, window.stride[0] * layout.row, window.stride[1] * layout.pixel
            ),
            classes,
            _distances(low, step.bits, size[0] * size[1]),
            _distances(low, step.residual, size[0] * size[1]),
        ]
    )
    return {t.PIXELS: size[0] * size[1], t.PIXEL_TABLE: low.constants.add(table)}


def _float_conv(low: Lowering, step: Step, window: Window, op: Conv | Dense) -> Row:
    out, channels = op.weights.shape[0], op.weights.shape[-1]
    height, width, _ = low.types[op.name].shape
    rows = op.weights.reshape(out, -1)
    return {
        **_convolve(low, step, window, rows, out, channels),
        **_pixels(low, step, window, (height, width), np.zeros(height * width, np.int32)),
        t.MICRO: t.FLOAT,
        t.ADD: low.constants.add(weights.per_lane(op.add)),
    }


def conv(low: Lowering, step: Step, op: Conv) -> Row:
    return _float_conv(low, step, op.window, op)


def dense(low: Lowering, step: Step, op: Dense) -> Row:
    return _float_conv(low, step, Window((1, 1)), op)


def binary_conv(low: Lowering, step: Step, op: BinaryConv) -> Row:
    starts, classes = weights.accumulator_starts(op, low.layouts[step.source].size)
    height, width, _ = low.types[op.name].shape
    rows = weights.binary_rows(op)
    values = weights.blocks_for(op.channels_in)
    row = {
        **_convolve(low, step, op.window, rows, op.channels_out, values),
        t.MICRO: low.micro if op.groups == 1 else t.GROUPED,
    }
    if op.groups > 1:
        row[t.LANES] = low.constants.add(weights.lane_offsets(op))
    if isinstance(op.epilogue, Threshold):
        starts = weights.threshold_limits(op.epilogue, starts, op.taps)
        row[t.MUL] = -1
    else:
        starts = weights.per_lane(starts)
        row[t.MUL] = low.constants.add(weights.per_lane(op.epilogue.mul))
        row[t.ADD] = low.constants.add(weights.per_lane(op.epilogue.add))
    row[t.START] = low.constants.add(starts)
    distances = classes * np.int32(4 * starts.shape[1])
    return {**row, **_pixels(low, step, op.window, (height, width), distances)}


def elementwise(low: Lowering, step: Step, op: Add | Sign | ToFloat) -> Row:
    height, width, channels = low.types[step.source].shape
    pixels = height * width
    table = weights.pixel_table(
        [
            _distances(low, step.source, pixels),
            np.zeros(pixels, np.int32),
            _distances(low, step.bits, pixels),
            _distances(low, step.residual, pixels),
        ]
    )
    row = {**_source(low, step.source), **_outputs(low, step), **_residual(low, step.residual)}
    if row[t.KIND] == t.BITS:
        row[t.SOURCE_PIXEL] = 0
    return {
        **row,
        t.CODE: t.ELEMENTWISE,
        t.PIXELS: pixels,
        t.BLOCKS: weights.blocks_for(channels),
        t.PIXEL_TABLE: low.constants.add(table),
    }


def widen(low: Lowering, step: Step, op: Widen) -> Row:
    layout = low.layouts[op.name]
    pad = np.zeros(layout.pixel // 4, np.float32)
    pad[: op.reader.pad_value.size] = op.reader.pad_value
    return {
        **_source(low, step.source),
        **_window(op.reader.window),
        t.CODE: t.WIDEN,
        t.OUT: low.offsets[op.name],
        t.OUT_ROW: layout.row,
        t.OUT_PIXEL: layout.pixel,
        t.OUT_HEIGHT: layout.size[0] + layout.margins[0] + layout.margins[2],
        t.OUT_WIDTH: layout.size[1] + layout.margins[1] + layout.margins[3],
        t.BLOCKS: weights.blocks_for(low.types[step.source].shape[2]),
        t.PAD: low.constants.add(pad),
    }


def regroup(low: Lowering, step: Step, op: Regroup) -> Row:
    return {
        **_source(low, step.source),
        **_map_out(low, op.name),
        **_cleared(low, op.name),
        t.CODE: t.REGROUP,
        t.DIVISOR: op.reader.channels_in,
    }


def _pool(low: Lowering, step: Step, op: Op, window: Window, code: int, divisor: int) -> Row:
    out = _map_out(low, op.name)
    geometry = {**_window(window), t.CODE: code, t.DIVISOR: divisor}
    return {**_source(low, step.source), **out, **geometry}


def max_pool(low: Lowering, step: Step, op: MaxPool) -> Row:
    code = t.MAX_BITS if low.kind(op.name) == t.BITS else t.MAX_F32
    return _pool(low, step, op, op.window, code, 1)


def avg_pool(low: Lowering, step: Step, op: AvgPool) -> Row:
    area = op.window.kernel[0] * op.window.kernel[1]
    if area & (area - 1) == 0:  # a power of two: multiplying by 1 / area is as exact
        return {**_pool(low, step, op, op.window, t.SUM, 0), t.EXPONENT: 1 - area.bit_length()}
    return _pool(low, step, op, op.window, t.SUM, area)


def global_sum(low: Lowering, step: Step, op: GlobalSum) -> Row:
    height, width, _ = low.types[step.source].shape
    return _pool(low, step, op, Window((height, width)), t.SUM, 1)


def repeat(low: Lowering, step: Step, op: Repeat) -> Row:
    spare = low.types[op.name].shape[2] % LANES
    return {
        **_source(low, step.source),
        **_map_out(low, op.name),
        **(_cleared(low, op.name) if spare else {}),
        t.CODE: t.REPEAT,
        t.DIVISOR: op.times,
    }


RULES: dict[type[Op], Callable[..., Row]] = {
    Conv: conv,
    BinaryConv: binary_conv,
    Sign: elementwise,
    ToFloat: elementwise,
    Add: elementwise,
    MaxPool: max_pool,
    AvgPool: avg_pool,
    Repeat: repeat,
    GlobalSum: global_sum,
    Dense: dense,
    Widen: widen,
    Regroup: regroup,
}
