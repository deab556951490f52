"""One rule per op: from a step of the schedule to its row of the op table.

A rule returns ``{column: value}`` (columns in :mod:`frostbit.kernels.op_table`) and adds the
weights and tables that its kernel reads to the constants.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.program import (
    Add,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    Flatten,
    GlobalSum,
    MaxPool,
    Mul,
    Op,
    Pad,
    PRelu,
    Quantize,
    Repeat,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    ToFloat,
    Window,
)
from frostbit.kernels.plan import convolutions, copies, weight_layout
from frostbit.kernels.plan.columns import (
    Lowering,
    Row,
    cleared,
    distances,
    geometry,
    out_map,
    outputs,
    residual,
    source_map,
)
from frostbit.kernels.plan.fusion import Step
from frostbit.kernels.plan.integer_layout import WholeConv
from frostbit.kernels.plan.quads import Difference, QuadConv
from frostbit.kernels.plan.schedule import Regroup, Spread, Widen


def _float_bits(value: float) -> int:
    """The bits of a float32."""
    return int(np.float32(value).view(np.int32))


def _function(low: Lowering, op: Op, channels: int) -> Row:
    """Which function an elementwise step is, and its parameters, 0 in spare lanes."""

    def column(values: NDArray[np.float32]) -> int:
        return low.constants.add(weight_layout.per_lane(values))

    match op:
        case Mul():
            return {t.FUNCTION: t.PRODUCT}
        case Clip() | Quantize():
            ends = (np.full(channels, end, np.float32) for end in (op.low, op.high))
            least, most = map(column, ends)
            row = {t.FUNCTION: t.CLIPPED, t.MUL: least, t.ADD: most}
            if isinstance(op, Clip):
                return row
            return {**row, t.FUNCTION: t.QUANTIZED, t.DIVISOR: _float_bits(op.step)}
        case Scale():
            return {t.FUNCTION: t.SCALED, t.MUL: column(op.mul), t.ADD: column(op.add)}
        case PRelu():
            return {t.FUNCTION: t.PRELU, t.MUL: column(op.slope)}
        case Sigmoid():
            return {t.FUNCTION: t.SIGMOID}
    return {t.FUNCTION: t.SUMMED}


def elementwise(low: Lowering, step: Step, op: Op) -> Row:
    height, width, channels = low.types[step.source].shape
    pixels = height * width
    table = weight_layout.pixel_table(
        [
            distances(low, step.source, pixels),
            np.zeros(pixels, np.int32),
            distances(low, step.bits, pixels),
            distances(low, step.residual, pixels),
        ]
    )
    row = {**source_map(low, step.source), **outputs(low, step), **residual(low, step.residual)}
    if row[t.KIND] == t.BITS:
        row[t.SOURCE_PIXEL] = 0
    if isinstance(op, Mul) and low.types[op.inputs[1]].shape[:2] == (1, 1):
        row[t.RESIDUAL_PIXEL] = 0
    return {
        **row,
        **_function(low, op, channels),
        t.CODE: t.ELEMENTWISE,
        t.PIXELS: pixels,
        t.BLOCKS: weight_layout.blocks_for(channels),
        t.PIXEL_TABLE: low.constants.add(table),
    }


def softmax(low: Lowering, step: Step, op: Softmax) -> Row:
    return {**source_map(low, step.source), **out_map(low, op.name), t.CODE: t.SOFTMAX}


def widen(low: Lowering, step: Step, op: Widen) -> Row:
    layout = low.layouts[op.name]
    dtype, shift = {4: np.float32, 2: np.int16, 1: np.uint8}[op.value_bytes], 0
    if isinstance(op.reader, WholeConv):
        shift = op.reader.offset
    pad = np.zeros(layout.pixel // op.value_bytes, dtype)
    pad[: op.reader.pad_value.size] = op.reader.pad_value.astype(np.int16) + shift
    return {
        **source_map(low, step.source),
        **geometry(op.reader.window),
        t.CODE: t.WIDEN,
        t.MICRO: op.micro,
        t.OUT: low.offsets[op.name],
        t.OUT_ROW: layout.row,
        t.OUT_PIXEL: layout.pixel,
        t.OUT_HEIGHT: layout.size[0] + layout.margins[0] + layout.margins[2],
        t.OUT_WIDTH: layout.size[1] + layout.margins[1] + layout.margins[3],
        t.BLOCKS: weight_layout.blocks_for(low.types[step.source].shape[2]),
        t.PAD: low.constants.add(pad),
    }


def regroup(low: Lowering, step: Step, op: Regroup) -> Row:
    return {
        **source_map(low, step.source),
        **out_map(low, op.name),
        **cleared(low, op.name),
        t.CODE: t.REGROUP,
        t.DIVISOR: op.reader.channels_in,
    }


def _pool(low: Lowering, step: Step, op: Op, window: Window, code: int, divisor: int) -> Row:
    return {
        **source_map(low, step.source),
        **out_map(low, op.name),
        **geometry(window),
        t.CODE: code,
        t.DIVISOR: divisor,
    }


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


RULES: dict[type[Op], Callable[..., Row]] = {
    Conv: convolutions.conv,
    WholeConv: convolutions.conv,
    QuadConv: convolutions.conv,
    Difference: convolutions.difference,
    BinaryConv: convolutions.binary_conv,
    Sign: elementwise,
    Clip: elementwise,
    ToFloat: elementwise,
    Add: elementwise,
    Mul: elementwise,
    Scale: elementwise,
    PRelu: elementwise,
    Quantize: elementwise,
    Sigmoid: elementwise,
    Softmax: softmax,
    MaxPool: max_pool,
    AvgPool: avg_pool,
    Repeat: copies.repeat,
    Concat: copies.concat,
    Slice: copies.channels,
    Pad: copies.pad,
    Flatten: copies.flatten,
    Spread: copies.spread,
    GlobalSum: global_sum,
    Dense: convolutions.dense,
    Widen: widen,
    Regroup: regroup,
}
