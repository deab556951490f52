"""Rules of convolutions and dense layers: in bits, in integers, in quads and in floats.

As in :mod:`frostbit.kernels.plan.rules`, a rule returns columns of the op table and adds weights
and tables to the constants.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.integer_weights import as_int8
from frostbit.kernels.ir.program import (
    Affine,
    BinaryConv,
    Conv,
    Dense,
    Threshold,
    Window,
)
from frostbit.kernels.micro.floats import GROUP_BYTES
from frostbit.kernels.micro.vector import BLOCK, LANES
from frostbit.kernels.plan import integer_layout, weight_layout
from frostbit.kernels.plan.columns import (
    Lowering,
    Row,
    distances,
    outputs,
    residual,
    result_limits,
)
from frostbit.kernels.plan.fusion import Step
from frostbit.kernels.plan.integer_layout import WholeConv
from frostbit.kernels.plan.quads import Difference, QuadConv, quad_order, quad_taps


def _convolve(
    low: Lowering, step: Step, window: Window, shape: tuple[int, int], values: int
) -> Row:
    """Columns shared by all convolutions; the pixel table is added by the caller.

    ``shape`` is that of the weights, ``[out, taps]``, ``values`` the 4-byte values of one tap.
    """
    layout = low.layouts[step.source]
    padded = (window.pads[0] * layout.row, window.pads[1] * layout.pixel)
    return {
        **outputs(low, step),
        **residual(low, step.residual),
        t.CODE: t.CONVOLVE,
        t.SOURCE: low.origin(step.source) - padded[0] - padded[1],
        t.BLOCKS: weight_layout.blocks_for(shape[0]),
        t.TAPS: shape[1],
        t.OFFSETS: low.constants.add(
            weight_layout.tap_offsets(window, layout.row, layout.pixel, values)
        ),
    }


def _pixels(
    low: Lowering, step: Step, window: Window, size: tuple[int, int], classes: NDArray[np.int32]
) -> Row:
    """The pixel table of a convolution; ``classes`` are byte distances into START (or from OUT)."""
    layout = low.layouts[step.source]
    table = weight_layout.pixel_table(
        [
            weight_layout.pixel_distances(
                size, window.stride[0] * layout.row, window.stride[1] * layout.pixel
            ),
            classes,
            distances(low, step.bits, size[0] * size[1]),
            distances(low, step.residual, size[0] * size[1]),
        ]
    )
    return {t.PIXELS: size[0] * size[1], t.PIXEL_TABLE: low.constants.add(table)}


def _float_conv(low: Lowering, step: Step, window: Window, op: Conv | Dense, micro: int) -> Row:
    lanes, out = GROUP_BYTES // 4, op.weights.shape[0]
    height, width, _ = low.types[op.name].shape
    if isinstance(op, Conv) and micro == t.FLOAT and op.groups > 1:
        weights, first = weight_layout.by_group(op.weights, op.groups, lanes)
    else:
        weights = weight_layout.by_block(op.weights.reshape(out, -1), lanes)
        first = np.arange(len(weights)) * (lanes if micro == t.DEPTHWISE else 0)
    taps = weights.shape[1]
    away = np.zeros(height * width, np.int32)
    if step.out is not None:
        layout = low.layouts[step.out]
        away = weight_layout.pixel_distances(layout.size, layout.row, layout.pixel)
    values = taps // (window.kernel[0] * window.kernel[1])
    return {
        **_convolve(low, step, window, (out, taps), values),
        **_pixels(low, step, window, (height, width), away),
        **result_limits(step),
        t.MICRO: micro,
        t.CHANNELS: out,
        t.LANES: low.constants.add((4 * first).astype(np.int32)),
        t.WEIGHTS: low.constants.add(weights),
        t.ADD: low.constants.add(weight_layout.per_lane(op.add)),
    }


def _quad_conv(low: Lowering, step: Step, op: QuadConv) -> Row:
    """A convolution in integers, four pixels at a time, whose signs alone are wanted."""
    layout = low.layouts[step.source]
    maps = [low.offsets[name] - low.offsets[step.source] for name in step.reads]
    taps = quad_taps(op, layout.row, layout.pixel, maps)
    height, width, _ = low.types[op.name].shape
    order = quad_order(height, width)
    columns = (
        weight_layout.pixel_distances(
            (height, width), op.window.stride[0] * layout.row, op.window.stride[1] * layout.pixel
        ),
        np.zeros(height * width, np.int32),
        distances(low, step.bits, height * width),
    )
    table = weight_layout.pixel_table([column[order] for column in (*columns, columns[1])])
    return {
        **_convolve(low, step, op.window, taps.rows.shape, 1),
        **_threshold(low, op),
        t.MICRO: t.QUADS,
        t.PIXELS: height * width,
        t.OUT_WIDTH: width,
        t.PIXEL_TABLE: low.constants.add(table),
        t.OFFSETS: low.constants.add(taps.offsets),
        t.WEIGHTS: low.constants.add(weight_layout.by_block(taps.rows)),
        t.TABLES: low.constants.add(taps.ends),
    }


def difference(low: Lowering, step: Step, op: Difference) -> Row:
    layout = low.layouts[step.source]
    distance = op.shift[0] * layout.row + op.shift[1] * layout.pixel
    return {
        t.CODE: t.DIFFERENCE,
        t.SOURCE: low.offsets[step.source],
        t.OUT: low.offsets[op.name],
        t.OUT_ROW: layout.row,
        t.OUT_HEIGHT: layout.bytes // layout.row - op.shift[0],
        t.OUT_WIDTH: layout.row // BLOCK,
        t.BLOCKS: 1,
        t.SECOND: distance,
    }


def _threshold(low: Lowering, op: WholeConv) -> Row:
    """Columns of the threshold epilogue."""
    level, _ = weight_layout.sign_levels(op.epilogue(), 0.0, op.bound)
    limits = weight_layout.threshold_limits(level, op.starts(), op.bound)
    return {t.MUL: t.THRESHOLD, t.START: low.constants.add(limits)}


def _whole_conv(low: Lowering, step: Step, op: WholeConv) -> Row:
    """A convolution in integers; its epilogue is a binary convolution's."""
    layout = low.layouts[step.source]
    rows: NDArray[np.integer]
    if op.micro == t.LANES16:
        rows = integer_layout.lane_rows(op)
        offsets = integer_layout.lane_offsets(op.window, layout.row, layout.pixel)
    else:
        joined = integer_layout.is_joined(op, layout.pixel)
        rows = integer_layout.word_rows(op, joined)
        offsets = integer_layout.word_offsets(op, layout.row, layout.pixel, joined)
    height, width, out = low.types[op.name].shape
    row = {
        **_convolve(low, step, op.window, (out, rows.shape[1]), 1),
        **_pixels(low, step, op.window, (height, width), np.zeros(height * width, np.int32)),
        t.OFFSETS: low.constants.add(offsets),
        t.WEIGHTS: low.constants.add(weight_layout.by_block(rows)),
        t.MICRO: op.micro,
    }
    if step.out is None and step.clip is None:
        return {**row, **_threshold(low, op)}
    return {**row, **_affine(low, step, op.epilogue(), op.starts())}


def _affine(low: Lowering, step: Step, epilogue: Affine, starts: NDArray[np.int32]) -> Row:
    """Columns of the affine epilogue; ``starts`` int32 ``[classes, O]``."""
    return {
        **result_limits(step),
        t.START: low.constants.add(weight_layout.per_lane(starts)),
        t.MUL: low.constants.add(weight_layout.per_lane(epilogue.mul)),
        t.ADD: low.constants.add(weight_layout.per_lane(epilogue.add)),
    }


def conv(low: Lowering, step: Step, op: Conv) -> Row:
    if isinstance(op, QuadConv):
        return _quad_conv(low, step, op)
    if isinstance(op, WholeConv):
        return _whole_conv(low, step, op)
    is_depthwise = op.groups > 1 and op.weights.shape[0] == op.groups and op.weights.shape[3] == 1
    whole_blocks = low.layouts[step.source].pixel % BLOCK == 0
    micro = t.DEPTHWISE if is_depthwise and whole_blocks else t.FLOAT
    return _float_conv(low, step, op.window, op, micro)


def dense(low: Lowering, step: Step, op: Dense) -> Row:
    found = as_int8(op.weights)
    if found is None:
        return _float_conv(low, step, Window((1, 1)), op, t.FLOAT)
    small, scale = found
    return {
        **outputs(low, step),
        **result_limits(step),
        t.CODE: t.CONVOLVE,
        t.MICRO: t.DENSE,
        t.SOURCE: low.origin(step.source),
        t.BLOCKS: weight_layout.blocks_for(len(small)),
        t.TAPS: small.shape[1],
        t.WEIGHTS: low.constants.add(weight_layout.by_block(small)),
        t.MUL: low.constants.add(weight_layout.per_lane(scale)),
        t.ADD: low.constants.add(weight_layout.per_lane(op.add)),
    }


def binary_conv(low: Lowering, step: Step, op: BinaryConv) -> Row:
    starts, classes = weight_layout.accumulator_starts(op, low.layouts[step.source].size)
    height, width, _ = low.types[op.name].shape
    rows = weight_layout.binary_rows(op)
    values = weight_layout.blocks_for(op.channels_in)
    micro = low.micro
    if op.groups > 1:
        micro = t.GROUPED
    elif micro == t.LOOKUP and op.taps > weight_layout.MAX_TAPS:
        micro = t.XNOR
    shape = (op.channels_out, rows.shape[1])
    row = {**_convolve(low, step, op.window, shape, values), t.MICRO: micro}
    if micro == t.GROUPED:
        row[t.LANES] = low.constants.add(
            weight_layout.lane_offsets(op.channels_out, op.groups, values)
        )
    elif micro == t.LOOKUP:
        row[t.IN_PAIRS] = weight_layout.is_paired(op.window, values)
        row[t.WEIGHTS] = low.constants.add(weight_layout.by_block(weight_layout.nibble_rows(rows)))
        row[t.TABLES] = low.constants.add(weight_layout.lookup_tables())
        row[t.NIBBLES] = weight_layout.padded_nibbles(rows.shape[1])
        row[t.INDEX_BYTES] = weight_layout.index_bytes(rows.shape[1])
    if t.WEIGHTS not in row:
        row[t.WEIGHTS] = low.constants.add(weight_layout.by_block(rows))
    if isinstance(op.epilogue, Threshold):
        limits = weight_layout.threshold_limits(op.epilogue.level, starts, op.taps)
        row.update({t.MUL: t.THRESHOLD, t.START: low.constants.add(limits)})
    elif _is_switch(low, step):
        row.update(_switch(low, op.epilogue, starts, op.taps))
    else:
        row.update(_affine(low, step, op.epilogue, starts))
    at_start = classes * np.int32(BLOCK * row[t.BLOCKS])
    return {**row, **_pixels(low, step, op.window, (height, width), at_start)}


def _is_switch(low: Lowering, step: Step) -> bool:
    """Whether only the sign of an affine epilogue is wanted, and its residual is bits."""
    if step.out is not None or step.residual is None or step.clip is not None:
        return False
    return low.kind(step.residual) == t.BITS


def _switch(low: Lowering, epilogue: Affine, starts: NDArray[np.int32], taps: int) -> Row:
    """Columns of the switch epilogue; ``starts`` int32 ``[classes, O]``."""
    (plus, falls), (minus, _) = (weight_layout.sign_levels(epilogue, r, taps) for r in (1.0, -1.0))
    limits = [weight_layout.threshold_limits(level, starts, taps) for level in (plus, minus)]
    lanes = weight_layout.per_lane(falls).reshape(-1, LANES)
    return {
        t.MUL: t.SWITCH,
        t.START: low.constants.add(np.stack(limits)),
        t.SECOND: limits[0].nbytes,
        t.FLIPS: low.constants.add(np.packbits(lanes, axis=1, bitorder="little")),
    }
