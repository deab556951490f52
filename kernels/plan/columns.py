"""Columns of the op table that rules share: where a step reads and writes, and its window."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.program import (
    INPUT,
    NO_BOUND,
    NO_LIMIT,
    Affine,
    BinaryConv,
    ValueType,
    Window,
)
from frostbit.kernels.plan import weight_layout
from frostbit.kernels.plan.arena import Constants, Layout
from frostbit.kernels.plan.fusion import Step
from frostbit.kernels.plan.views import View

Row = dict[int, int]
KINDS = {"u8": t.U8, "f32": t.F32, "bits": t.BITS}


@dataclass(frozen=True, eq=False)
class Lowering:
    """What the rules look things up in."""

    types: dict[str, ValueType]
    layouts: dict[str, Layout]
    offsets: dict[str, int]
    micro: int
    narrow: dict[str, int]
    views: dict[str, View]
    constants: Constants = field(default_factory=Constants)

    def origin(self, name: str) -> int:
        """Arena offset of pixel (0, 0)."""
        return self.offsets[name] + self.layouts[name].origin

    def kind(self, name: str) -> int:
        if name in self.narrow:
            return t.I16
        value = self.types.get(name)
        if name == INPUT and value is not None and value.kind == "f32":
            return t.F32_IMAGE
        return t.F32 if value is None else KINDS[value.kind]


def source_map(low: Lowering, name: str) -> Row:
    """Columns that describe the map a step reads."""
    height, width, channels = low.types[name].shape
    shape = {t.HEIGHT: height, t.WIDTH: width, t.CHANNELS: channels, t.KIND: low.kind(name)}
    if name == INPUT:
        pixel = channels * (1 if shape[t.KIND] == t.U8 else 4)
        return {**shape, t.SOURCE_ROW: width * pixel, t.SOURCE_PIXEL: pixel}
    layout = low.layouts[name]
    return {
        **shape,
        t.SOURCE: low.origin(name),
        t.SOURCE_ROW: layout.row,
        t.SOURCE_PIXEL: layout.pixel,
        t.SOURCE_BLOCK: layout.block,
    }


def cleared(low: Lowering, name: str) -> Row:
    return {t.CLEAR: low.offsets[name], t.CLEAR_BYTES: low.layouts[name].bytes}


def out_map(low: Lowering, name: str) -> Row:
    """Columns of an output map that is written in place, margins cleared."""
    layout = low.layouts[name]
    return {
        **(cleared(low, name) if any(layout.margins) else {}),
        t.OUT: low.origin(name),
        t.OUT_ROW: layout.row,
        t.OUT_PIXEL: layout.pixel,
        t.OUT_BLOCK: layout.block,
        t.OUT_HEIGHT: layout.size[0],
        t.OUT_WIDTH: layout.size[1],
        t.BLOCKS: weight_layout.blocks_for(low.types[name].shape[2]),
        t.PIXELS: layout.size[0] * layout.size[1],
    }


def outputs(low: Lowering, step: Step) -> Row:
    """Columns of float and sign outputs; what is not wanted goes to the sinks."""
    row = {t.OUT: t.SINK, t.BITS_OUT: t.BITS_SINK, t.OUT_KIND: t.F32}
    if step.out is not None:
        row.update(out_map(low, step.out))
        row[t.OUT_KIND] = low.kind(step.out)
    exponents = [low.narrow[name] for name in (step.out, step.residual) if name in low.narrow]
    if exponents:
        row[t.EXPONENT] = exponents[0]
    if step.bits is not None:
        layout = low.layouts[step.bits]
        row.update({t.BITS_OUT: low.origin(step.bits), t.BITS_BLOCK: layout.block})
        if any(layout.margins):
            row.update(cleared(low, step.bits))
    return row


def distances(low: Lowering, name: str | None, pixels: int) -> NDArray[np.int32]:
    """Per-pixel distances in the map ``name`` if it is bits (floats need no table)."""
    if name is None or low.kind(name) != t.BITS:
        return np.zeros(pixels, np.int32)
    layout = low.layouts[name]
    return weight_layout.pixel_distances(layout.size, layout.row, layout.pixel)


def residual(low: Lowering, name: str | None) -> Row:
    if name is None:
        return {t.RESIDUAL: t.ZEROS, t.RESIDUAL_KIND: t.F32}
    layout, kind = low.layouts[name], low.kind(name)
    return {
        t.RESIDUAL: low.origin(name),
        t.RESIDUAL_KIND: kind,
        t.RESIDUAL_PIXEL: 0 if kind == t.BITS else layout.pixel,
        t.RESIDUAL_BLOCK: layout.block,
    }


def result_limits(step: Step) -> Row:
    """Columns of limits of accumulators (of an affine epilogue) and of results."""
    epilogue = step.op.epilogue if isinstance(step.op, BinaryConv) else None
    low, high = -NO_LIMIT, NO_LIMIT
    if isinstance(epilogue, Affine):
        low, high = epilogue.low, epilogue.high
    ends = step.clip or (-NO_BOUND, NO_BOUND)
    least, most = np.array(ends, np.float32).view(np.int32).tolist()
    return {
        t.HAS_LIMITS: int(step.clip is not None or (low, high) != (-NO_LIMIT, NO_LIMIT)),
        t.LOW: low,
        t.HIGH: high,
        t.LEAST: least,
        t.MOST: most,
    }


def geometry(window: Window) -> Row:
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
