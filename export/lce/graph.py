"""TFLite and LCE operators as Python calls: tensors in, tensor out, shapes inferred.

Every method adds one operator to the file and returns the index of its output tensor. The
rules in :mod:`frostbit.export.lce.convert` are written with these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from frostbit.export.lce.tflite_writer import ABSENT, SAME, VALID, GraphWriter
from frostbit.kernels.ir.bits import Words
from frostbit.kernels.ir.integer_weights import as_int8
from frostbit.kernels.ir.program import NO_BOUND, Affine, BinaryConv, Threshold, Window

Pads = tuple[int, int, int, int]
Floats = NDArray[np.floating]

LCE_WORD_BITS = 32
ACTIVATIONS = {
    (0.0, NO_BOUND): "RELU", (-1.0, 1.0): "RELU_N1_TO_1", (0.0, 6.0): "RELU6",
}  # fmt: skip
"""Operators by what they clip to."""


def lce_words(channels: int) -> int:
    """Number of int32 words that hold ``channels`` bits."""
    return -(-channels // LCE_WORD_BITS)


def to_words(packed: NDArray[np.generic]) -> Words:
    """LCE's int32 ``[..., ceil(C / 32)]`` as our uint64 ``[..., ceil(C / 64)]``."""
    count = packed.shape[-1]
    padded = np.zeros((*packed.shape[:-1], count + count % 2), "<i4")
    padded[..., :count] = packed
    return padded.view("<u8").astype(np.uint64, copy=False)


def reach(window: Window) -> tuple[int, int]:
    """Rows and columns that one dilated window spans."""
    return (
        (window.kernel[0] - 1) * window.dilation[0] + 1,
        (window.kernel[1] - 1) * window.dilation[1] + 1,
    )


def used_pads(window: Window, height: int, width: int) -> Pads:
    """The pads that some window reads: at the bottom and right there can be fewer than stated."""
    out_h, out_w = window.output(height, width)
    span_h, span_w = reach(window)
    top, left = window.pads[:2]
    bottom = max(0, (out_h - 1) * window.stride[0] + span_h - top - height)
    right = max(0, (out_w - 1) * window.stride[1] + span_w - left - width)
    return top, left, bottom, right


def same_pads(window: Window, height: int, width: int) -> Pads:
    """What TensorFlow's SAME mode pads: the odd one goes to the bottom and right."""
    totals = [
        max((-(-size // stride) - 1) * stride + span - size, 0)
        for size, stride, span in zip((height, width), window.stride, reach(window), strict=True)
    ]
    top, left = totals[0] // 2, totals[1] // 2
    return top, left, totals[0] - top, totals[1] - left


def is_same(window: Window, height: int, width: int) -> bool:
    """Whether there are pads, and SAME mode computes exactly this window."""
    pads = used_pads(window, height, width)
    like_same = (-(-height // window.stride[0]), -(-width // window.stride[1]))
    sizes_agree = window.output(height, width) == like_same
    return any(pads) and sizes_agree and pads == same_pads(window, height, width)


def fused_activation(op: BinaryConv) -> int | None:
    """LCE's number of what clips the sums of ``op`` (0: nothing); None if it has no such."""
    if not isinstance(op.epilogue, Affine):
        return 0
    known = ((-op.taps, op.taps), (0, op.taps), (-1, 1), (0, min(6, op.taps)))
    limits = op.epilogue.limits(op.taps)
    return known.index(limits) if limits in known else None


class LceGraph:
    """A :class:`GraphWriter` that knows the operators; maps are ``[1, H, W, C]``."""

    def __init__(self) -> None:
        self.writer = GraphWriter()

    def size(self, x: int) -> tuple[int, int]:
        """``(H, W)`` of a map."""
        shape = self.writer.shape(x)
        return shape[1], shape[2]

    def _emit(
        self,
        operator: str,
        inputs: Sequence[int],
        name: str,
        shape: Sequence[int],
        dtype: DTypeLike,
        **options: float,
    ) -> int:
        output = self.writer.tensor(name, shape, dtype)
        self.writer.operator(operator, inputs, [output], options)
        return output

    def _ints(self, name: str, values: ArrayLike) -> int:
        return self.writer.constant(name, np.array(values, np.int32))

    def input(self, shape: Sequence[int]) -> int:
        return self.writer.tensor("input", shape, np.float32)

    def pad(self, name: str, x: int, pads: Pads, value: float | int, dtype: DTypeLike) -> int:
        """Pad rows and columns with ``value``; the tensor itself where there is nothing to pad."""
        if not any(pads):
            return x
        top, left, bottom, right = pads
        _, height, width, depth = self.writer.shape(x)
        amounts = self._ints(f"{name}/pads", [[0, 0], [top, bottom], [left, right], [0, 0]])
        shape = (1, height + top + bottom, width + left + right, depth)
        if value == 0:
            return self._emit("PAD", [x, amounts], f"{name}/padded", shape, dtype)
        constant = self.writer.constant(f"{name}/pad_value", np.array(value, dtype))
        return self._emit("PADV2", [x, amounts, constant], f"{name}/padded", shape, dtype)

    def pad_all(self, name: str, x: int, pads: Pads, channels: tuple[int, int]) -> int:
        """Zeros around a map of floats and before and after its channels."""
        top, left, bottom, right = pads
        _, height, width, depth = self.writer.shape(x)
        amounts = self._ints(f"{name}/pads", [[0, 0], [top, bottom], [left, right], [*channels]])
        shape = (1, height + top + bottom, width + left + right, depth + sum(channels))
        return self._emit("PAD", [x, amounts], name, shape, np.float32)

    def quantize(self, name: str, x: int) -> int:
        """LceQuantize: bit = x < 0."""
        *rest, channels = self.writer.shape(x)
        return self._emit("LceQuantize", [x], name, (*rest, lce_words(channels)), np.int32)

    def dequantize(self, name: str, x: int, channels: int) -> int:
        """LceDequantize: bits to +1.0 and -1.0."""
        shape = (*self.writer.shape(x)[:-1], channels)
        return self._emit("LceDequantize", [x], name, shape, np.float32)

    def unary(self, operator: str, name: str, x: int, **options: float) -> int:
        """An operator that gives a float for every float."""
        return self._emit(operator, [x], name, self.writer.shape(x), np.float32, **options)

    def binary(self, operator: str, name: str, a: int, b: int) -> int:
        """An element-wise operator of floats; ``b`` may be broadcast to the shape of ``a``."""
        return self._emit(operator, [a, b], name, self.writer.shape(a), np.float32)

    def add(self, name: str, a: int, b: int) -> int:
        """Element-wise sum; ``b`` may be broadcast to the shape of ``a``."""
        return self.binary("ADD", name, a, b)

    def add_constant(self, name: str, x: int, values: Floats) -> int:
        return self.add(
            name, x, self.writer.constant(f"{name}/constant", values.astype(np.float32))
        )

    def scale(self, name: str, x: int, mul: Floats, add: Floats) -> int:
        """``mul * x + add`` per channel."""
        factor = self.writer.constant(f"{name}/mul", mul.astype(np.float32))
        return self.add_constant(name, self.binary("MUL", f"{name}/scaled", x, factor), add)

    def concatenate(self, name: str, parts: Sequence[int], dtype: DTypeLike) -> int:
        """Join maps along their last axis."""
        shapes = [self.writer.shape(part) for part in parts]
        depth = sum(shape[3] for shape in shapes)
        return self._emit("CONCATENATION", parts, name, (*shapes[0][:3], depth), dtype, axis=3)

    def slice_depth(self, name: str, x: int, start: int, count: int, dtype: DTypeLike) -> int:
        """Entries ``start .. start + count`` of the last axis."""
        shape = (*self.writer.shape(x)[:3], count)
        begin = self._ints(f"{name}/begin", [0, 0, 0, start])
        size = self._ints(f"{name}/size", shape)
        return self._emit("SLICE", [x, begin, size], name, shape, dtype)

    def crop(self, name: str, x: int, height: int, width: int) -> int:
        """The first rows and columns of a map of floats."""
        shape = (1, height, width, self.writer.shape(x)[3])
        begin = self._ints(f"{name}/begin", [0, 0, 0, 0])
        size = self._ints(f"{name}/size", shape)
        return self._emit("SLICE", [x, begin, size], name, shape, np.float32)

    def reshape(
        self, name: str, x: int, shape: Sequence[int], dtype: DTypeLike = np.float32
    ) -> int:
        target = self._ints(f"{name}/shape", shape)
        return self._emit("RESHAPE", [x, target], name, shape, dtype)

    def sum_map(self, name: str, x: int) -> int:
        """Sum over rows and columns: ``[1, 1, 1, C]``."""
        axes = self._ints(f"{name}/axes", [1, 2])
        shape = (1, 1, 1, self.writer.shape(x)[3])
        return self._emit("SUM", [x, axes], name, shape, np.float32, keep_dims=1)

    def dense(self, name: str, x: int, weights: Floats, bias: Floats) -> int:
        """FULLY_CONNECTED with weights ``[O, C]``: output ``[1, O]``."""
        inputs = [
            x,
            self._weights(name, weights, 0),
            self.writer.constant(f"{name}/bias", bias.astype(np.float32)),
        ]
        return self._emit("FULLY_CONNECTED", inputs, name, (1, len(weights)), np.float32)

    def conv(
        self,
        name: str,
        x: int,
        weights: Floats,
        bias: Floats,
        window: Window,
        same: bool,
    ) -> int:
        """CONV_2D with weights OHWI; pads are those of SAME mode or none."""
        return self._weighted("CONV_2D", name, x, weights, bias, window, same)

    def depthwise(
        self,
        name: str,
        x: int,
        weights: Floats,
        bias: Floats,
        window: Window,
        same: bool,
    ) -> int:
        """DEPTHWISE_CONV_2D with weights ``[O, kh, kw, 1]``: O / C outputs per channel."""
        times = len(weights) // self.writer.shape(x)[3]
        stored = weights.transpose(3, 1, 2, 0)
        operator = "DEPTHWISE_CONV_2D"
        return self._weighted(operator, name, x, stored, bias, window, same, depth_multiplier=times)

    def _weights(self, name: str, weights: Floats, channel_axis: int) -> int:
        """Full-precision weights as they are stored, in int8 and a DEQUANTIZE where they fit.

        The interpreter runs it once, when it makes room for the first image.
        """
        values = weights.astype(np.float32)
        found = as_int8(np.moveaxis(values, channel_axis, 0))
        if found is None:
            return self.writer.constant(f"{name}/weights", values)
        small = np.moveaxis(found[0], 0, channel_axis)
        stored = self.writer.quantized(f"{name}/weights", small, found[1], channel_axis)
        return self._emit("DEQUANTIZE", [stored], f"{name}/unpacked", weights.shape, np.float32)

    def _weighted(
        self,
        operator: str,
        name: str,
        x: int,
        weights: Floats,
        bias: Floats,
        window: Window,
        same: bool,
        **options: int,
    ) -> int:
        """A convolution with full-precision ``weights`` as they are stored."""
        inputs = [
            x,
            self._weights(name, weights, 3 if operator == "DEPTHWISE_CONV_2D" else 0),
            self.writer.constant(f"{name}/bias", bias.astype(np.float32)),
        ]
        return self._emit(
            operator,
            inputs,
            name,
            self._output(x, window, same, len(bias)),
            np.float32,
            padding=SAME if same else VALID,
            stride_w=window.stride[1],
            stride_h=window.stride[0],
            **options,  # here: the order of fields decides bytes
            dilation_w_factor=window.dilation[1],
            dilation_h_factor=window.dilation[0],
        )

    def clip(self, name: str, x: int, low: float, high: float) -> int:
        """clip(x, low, high): an activation of TFLite if there is one with these limits."""
        operator = ACTIVATIONS.get((low, high))
        if operator is not None:
            return self.unary(operator, name, x)
        ends = [
            self.writer.constant(f"{name}/{end}", np.array(limit, np.float32))
            for end, limit in (("low", low), ("high", high))
        ]
        raised = self.binary("MAXIMUM", f"{name}/raised", x, ends[0])
        return self.binary("MINIMUM", name, raised, ends[1])

    def _output(self, x: int, window: Window, same: bool, depth: int) -> tuple[int, ...]:
        height, width = self.size(x)
        pads = same_pads(window, height, width) if same else (0, 0, 0, 0)
        bare = Window(window.kernel, window.stride, pads, window.dilation)
        return (1, *bare.output(height, width), depth)

    def same_output(self, x: int, window: Window) -> tuple[int, int]:
        """``(OH, OW)`` of ``window`` in SAME mode."""
        _, height, width, _ = self._output(x, window, True, 1)
        return height, width

    def pool(self, operator: str, name: str, x: int, window: Window, same: bool) -> int:
        """MAX_POOL_2D or AVERAGE_POOL_2D of floats."""
        return self._emit(
            operator,
            [x],
            name,
            self._output(x, window, same, self.writer.shape(x)[3]),
            np.float32,
            padding=SAME if same else VALID,
            stride_w=window.stride[1],
            stride_h=window.stride[0],
            filter_width=window.kernel[1],
            filter_height=window.kernel[0],
        )

    def binary_max_pool(self, name: str, x: int, window: Window, same: bool) -> int:
        """LceBMaxPool2d: AND of the words under the window."""
        return self._emit(
            "LceBMaxPool2d",
            [x],
            name,
            self._output(x, window, same, self.writer.shape(x)[3]),
            np.int32,
            filter_height=window.kernel[0],
            filter_width=window.kernel[1],
            padding=SAME if same else VALID,
            stride_height=window.stride[0],
            stride_width=window.stride[1],
        )

    def binary_conv(
        self,
        x: int,
        op: BinaryConv,
        epilogue: Threshold | Affine,
        name: str,
        same: bool,
        activation: int = 0,
    ) -> int:
        """LceBconv2d of ``op``'s weights with ``epilogue``, padded like SAME mode or not at all.

        LCE's bit output is -1 where popcount > threshold. As acc = K - 2 * popcount, our
        ``acc >= level`` is ``popcount <= floor((K - level) / 2)``. ``activation`` is as from
        :func:`fused_activation`.
        """
        weights = self.writer.constant(f"{name}/weights", _lce_filter(op))
        depth: int = op.channels_out
        dtype: DTypeLike = np.float32
        if isinstance(epilogue, Threshold):
            threshold = (op.taps - epilogue.level.astype(np.int64)) // 2
            parameters = [ABSENT, ABSENT, self._ints(f"{name}/threshold", threshold)]
            depth, dtype = lce_words(op.channels_out), np.int32
        else:
            mul = self.writer.constant(f"{name}/mul", epilogue.mul)
            parameters = [mul, self.writer.constant(f"{name}/add", epilogue.add), ABSENT]
        return self._emit(
            "LceBconv2d",
            [x, weights, *parameters],
            name,
            self._output(x, op.window, same, depth),
            dtype,
            channels_in=op.channels_in,
            dilation_height_factor=op.window.dilation[0],
            dilation_width_factor=op.window.dilation[1],
            fused_activation_function=activation,
            pad_values=op.pad_value,
            padding=SAME if same else VALID,
            stride_height=op.window.stride[0],
            stride_width=op.window.stride[1],
        )


def _lce_filter(op: BinaryConv) -> NDArray[np.int32]:
    """Packed weights as int32 ``[O, kh, kw, ceil(I / 32)]``: the same bytes, tail word cut."""
    halves = np.ascontiguousarray(op.words.astype("<u8", copy=False)).view("<i4")
    return halves[..., : lce_words(op.channels_in)].astype(np.int32)
