"""Zero-padded binary convolutions in Larq Compute Engine, whose padding is a mode of TensorFlow's.

A padded tap contributes nothing. LCE does that with float output and padding SAME only. TensorFlow
pads the odd row of SAME after the map, PyTorch's ``padding=1`` pads before it, so for stride 2 on
even sizes they differ. There the map is grown at the bottom and right until SAME pads as many rows
before it as wanted; no row of the result that is kept reads what was added, the rest is cropped.

Where no size does (other pads, a map smaller than the kernel, odd channels, which LCE's reference
kernel refuses) the map is padded with +1 and an ADD of a constant takes back what the weights in
the border added; the constant has the output's size.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from frostbit.export.lce.graph import LceGraph, reach, used_pads
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import Affine, BinaryConv, Threshold, Window


def zero_padded(graph: LceGraph, op: BinaryConv, x: int) -> int:
    """Add ``op`` (one group, ``pad_value`` 0, some pads) to ``graph``; returns its output."""
    if isinstance(op.epilogue, Threshold):
        ones = np.ones(op.channels_out, np.float32)
        levels = -op.epilogue.level.astype(np.float32)
        as_float = replace(op, name=f"{op.name}/margin", epilogue=Affine(ones, levels))
        return graph.quantize(op.name, zero_padded(graph, as_float, x))
    height, width = graph.size(x)
    grown = grown_size(op.window, height, width)
    if grown is not None and op.channels_in % 2 == 0:
        return _grown(graph, op, x, grown)
    border = border_sums(op, height, width) * -op.epilogue.mul.astype(np.float64)
    x = graph.pad(op.name, x, used_pads(op.window, height, width), 0, np.int32)
    with_border = graph.binary_conv(x, op, op.epilogue, f"{op.name}/ones_border", same=False)
    return graph.add_constant(op.name, with_border, border[np.newaxis])


def _grown(graph: LceGraph, op: BinaryConv, x: int, grown: tuple[int, int]) -> int:
    height, width = graph.size(x)
    x = graph.pad(op.name, x, (0, 0, grown[0] - height, grown[1] - width), 0, np.int32)
    wanted = op.window.output(height, width)
    if tuple(graph.same_output(x, op.window)) == wanted:
        return graph.binary_conv(x, op, op.epilogue, op.name, same=True)
    whole = graph.binary_conv(x, op, op.epilogue, f"{op.name}/grown", same=True)
    return graph.crop(op.name, whole, *wanted)


def grown_size(window: Window, height: int, width: int) -> tuple[int, int] | None:
    """The size to grow a map to so that SAME padding computes ``window``; None if there is none.

    The map's own size where SAME computes it as it is.
    """
    sizes = [
        _grown_axis(size, window.stride[axis], span, window.pads[axis], count)
        for axis, (size, span, count) in enumerate(
            zip((height, width), reach(window), window.output(height, width), strict=True)
        )
    ]
    if sizes[0] is None or sizes[1] is None:
        return None
    return sizes[0], sizes[1]


def _grown_axis(size: int, stride: int, span: int, before: int, count: int) -> int | None:
    """:func:`grown_size` of one axis: ``before`` rows of padding, ``count`` rows of output."""
    last = (count - 1) * stride - before + span - 1  # the last row that is read
    for grown in range(size, size + 2 * stride):
        rows = -(-grown // stride)
        total = max((rows - 1) * stride + span - grown, 0)
        reads_added = grown > size and last >= size
        if total // 2 == before and rows >= count and grown >= span and not reads_added:
            return grown
    return None


def border_sums(op: BinaryConv, height: int, width: int) -> NDArray[np.float64]:
    """Sum of the weights whose tap lies in the padding, ``[OH, OW, O]``, one group."""
    taps = op.channels_in - 2.0 * bits.popcount(op.words)
    inside = [
        _inside(
            size,
            count,
            op.window.kernel[axis],
            op.window.stride[axis],
            op.window.dilation[axis],
            op.window.pads[axis],
        )
        for axis, (size, count) in enumerate(
            zip((height, width), op.window.output(height, width), strict=True)
        )
    ]
    kept = np.einsum("ya,xb,oab->yxo", inside[0], inside[1], taps)
    return np.asarray(taps.sum(axis=(1, 2)) - kept)


def _inside(
    size: int, count: int, kernel: int, stride: int, dilation: int, before: int
) -> NDArray[np.float64]:
    """1.0 where tap k of output i lies on the map, ``[count, kernel]``, along one axis."""
    position = np.arange(count)[:, None] * stride + np.arange(kernel) * dilation - before
    return ((position >= 0) & (position < size)).astype(np.float64)
