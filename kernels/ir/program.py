"""The Program: the typed intermediate representation that every stage shares.

``pack`` writes one, the engine runs it, the exporters translate it and the parity check compares
all of them with :mod:`frostbit.kernels.ir.reference`. It is a list of ops in execution order; an op
names its inputs and its output carries the op's own name. Only data here:
:mod:`frostbit.kernels.ir.verify` checks a Program and infers its shapes,
:mod:`frostbit.kernels.ir.file` stores it.

Values are maps ``[H, W, C]`` (batch is implicit) of one of three kinds:

* ``u8``   pixels 0..255, only the program's input;
* ``f32``  float32; of our own networks fixed-point numbers (:mod:`frostbit.kernels.ir.exact`);
* ``bits`` +1/-1, packed along C as in :mod:`frostbit.kernels.ir.bits`.

Arrays are NHWC / OHWI. Pads are four explicit numbers (top, left, bottom, right), never a
mode name: TensorFlow's SAME and PyTorch's ``padding=1`` differ at stride 2.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits, html

Kind = Literal["u8", "f32", "bits"]
F32 = NDArray[np.float32]

INPUT = "input"
NO_BOUND = float(np.finfo(np.float32).max)
"""As a limit of :class:`Clip`: none."""
INPUT_LIMIT = 2.0**24
"""Largest absolute value of a float image: what no camera gives, and far from overflow."""
NO_LIMIT = (1 << 31) - 1
"""As a limit of :class:`Affine`: none, since an accumulator is smaller."""
MAX_DIM = 1 << 16
"""Of a map or kernel, along one axis."""
MAX_ELEMENTS = 1 << 28
"""Of one map: a GiB of float32."""
MAX_OPS = 4096
"""ResNet-152 has some 500."""
MAX_PARTS = 256
"""Inputs of one Concat: a network that joins every layer before it has some dozens."""


class FormatError(ValueError):
    """A model file, or a Program built by hand, that breaks the format; the text says where.

    Source: ``docs/formats.md`` describes the file, :mod:`frostbit.kernels.ir.verify` the Program.
    """


@dataclass(frozen=True)
class ValueType:
    """Kind and shape ``(H, W, C)`` of one value."""

    kind: Kind
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """Geometry of a sliding window.

    Attributes:
        kernel: ``(kh, kw)``.
        stride: ``(sh, sw)``.
        pads: ``(top, left, bottom, right)``.
        dilation: ``(dh, dw)``.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    def output(self, height: int, width: int) -> tuple[int, int]:
        """Output ``(OH, OW)`` for an input map of ``height`` by ``width``; may be < 1."""
        top, left, bottom, right = self.pads
        reach_h = (self.kernel[0] - 1) * self.dilation[0] + 1
        reach_w = (self.kernel[1] - 1) * self.dilation[1] + 1
        return (
            (height + top + bottom - reach_h) // self.stride[0] + 1,
            (width + left + right - reach_w) // self.stride[1] + 1,
        )

    def pads_less_than_kernel(self) -> bool:
        """Whether the padding of each side is smaller than the kernel along it."""
        (rows, columns), (top, left, bottom, right) = self.kernel, self.pads
        return max(top, bottom) < rows and max(left, right) < columns

    def always_meets(self, height: int, width: int) -> bool:
        """Whether every position of the window has a tap inside the map, not only padding."""
        for axis, size in enumerate((height, width)):
            start = np.arange(self.output(height, width)[axis]) * self.stride[axis]
            start -= self.pads[axis]
            step = self.dilation[axis]
            first = -(np.minimum(start, 0) // step)  # first tap at or beyond row 0
            if ((first >= self.kernel[axis]) | (start + first * step >= size)).any():
                return False
        return True


@dataclass(frozen=True, eq=False)
class Threshold:
    """Epilogue to bits: +1 where the accumulator is at least ``level``, int32 ``[O]``.

    Levels lie in ``[-K, K + 1]`` with K the taps per output; -K is always +1, K + 1 always -1.
    """

    level: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Affine:
    """Epilogue to f32: ``y = mul * clip(acc, low, high) + add``.

    Larq Compute Engine fuses an activation there: before the multiplier, which may be negative.

    Attributes:
        mul: float32 ``[O]``.
        add: float32 ``[O]``.
        low, high: limits of the accumulator, for inputs of bits.
    """

    mul: F32
    add: F32
    low: int = -NO_LIMIT
    high: int = NO_LIMIT

    @property
    def is_clipped(self) -> bool:
        return (self.low, self.high) != (-NO_LIMIT, NO_LIMIT)

    def limits(self, taps: int) -> tuple[int, int]:
        """The same limits, those that a sum of ``taps`` products of +-1 never reaches left out."""
        low, high = (min(max(end, self.low), self.high) for end in (-taps, taps))
        return low, high


@dataclass(frozen=True, eq=False)
class Op:
    """Base of all ops: ``name`` is also the name of the output value."""

    name: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Conv(Op):
    """Full-precision convolution of pixels or +-1 maps: ``y = sum(w * x) + add`` -> f32.

    Attributes:
        weights: float32 OHWI, I the channels per group.
        add: float32 ``[O]``.
        pad_value: uint8 ``[C]``, what a padded tap holds per input channel (the zero point of
            the pixels; all 0 for a ``bits`` or ``f32`` input).
        groups: number of channel groups; the input has ``I * groups`` channels.
    """

    window: Window
    weights: F32
    add: F32
    pad_value: NDArray[np.uint8]
    groups: int = 1


@dataclass(frozen=True, eq=False)
class BinaryConv(Op):
    """XNOR-popcount convolution of bits; a binary dense layer is one whose kernel is the map.

    In a binary-weight network the input is f32: +-1 weights on real values, sums not exact.

    Attributes:
        words: uint64 ``[O, kh, kw, ceil(I / 64)]`` packed weights, I the channels per group.
        channels_in: I, channels per group.
        groups: number of channel groups; the input has ``I * groups`` channels.
        pad_value: 0 (padded taps contribute nothing) or 1 (padded taps are +1).
        epilogue: :class:`Threshold` (output bits; of bits only) or :class:`Affine` (output f32).
    """

    window: Window
    words: bits.Words
    channels_in: int
    groups: int
    pad_value: int
    epilogue: Threshold | Affine

    @property
    def channels_out(self) -> int:
        return int(self.words.shape[0])

    @property
    def taps(self) -> int:
        """K, the number of products per output element (padding included)."""
        return self.window.kernel[0] * self.window.kernel[1] * self.channels_in


@dataclass(frozen=True, eq=False)
class Sign(Op):
    """f32 -> bits: +1 where x >= 0, else -1."""


@dataclass(frozen=True, eq=False)
class Clip(Op):
    """f32 -> f32: clip(x, low, high).

    By default the activation of a binary-weight network; 0 and ``NO_BOUND`` make a Relu.
    """

    low: float = -1.0
    high: float = 1.0


@dataclass(frozen=True, eq=False)
class ToFloat(Op):
    """bits -> f32 of +1.0 and -1.0."""


@dataclass(frozen=True, eq=False)
class Add(Op):
    """Element-wise sum of two f32 maps of the same shape."""


@dataclass(frozen=True, eq=False)
class Mul(Op):
    """Element-wise product of two f32 maps; the second may be ``[1, 1, C]``, one per channel."""


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """``y = mul * x + add`` per channel, f32 or pixels -> f32; both float32 ``[C]``."""

    mul: F32
    add: F32


@dataclass(frozen=True, eq=False)
class PRelu(Op):
    """``x`` where x >= 0, else ``slope * x``; f32, slope float32 ``[C]``."""

    slope: F32


@dataclass(frozen=True, eq=False)
class Quantize(Op):
    """``step * clip(round(x / step), low, high)``, f32; halves round to even.

    The quotient is that of float32, as QONNX's ``Quant`` computes it (there the zero point is 0).

    Attributes:
        step: > 0.
        low, high: whole numbers.
    """

    step: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Sigmoid(Op):
    """``1 / (1 + exp(-x))``, f32."""


@dataclass(frozen=True, eq=False)
class Softmax(Op):
    """``exp(x) / sum(exp(x))`` over the channels of an f32 ``[1, 1, C]``."""


@dataclass(frozen=True, eq=False)
class Slice(Op):
    """Channels ``start`` to ``stop - 1``, f32 or bits."""

    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Pad(Op):
    """Zeros around an f32 map and before and after its channels.

    Attributes:
        pads: ``(top, left, bottom, right)``.
        channels: ``(before, after)``.
    """

    pads: tuple[int, int, int, int]
    channels: tuple[int, int]


@dataclass(frozen=True, eq=False)
class Flatten(Op):
    """f32 or bits ``[H, W, C]`` -> ``[1, 1, H * W * C]``, in that order."""


@dataclass(frozen=True, eq=False)
class MaxPool(Op):
    """Maximum over a window, f32 or bits (of +-1: the AND of the bits); pads never win."""

    window: Window


@dataclass(frozen=True, eq=False)
class AvgPool(Op):
    """Sum over a window divided by kh * kw, padded taps counting as 0; f32 only."""

    window: Window


@dataclass(frozen=True, eq=False)
class Repeat(Op):
    """Channel tiling, f32: output channel c is input channel ``c % C``; ``times`` copies."""

    times: int


@dataclass(frozen=True, eq=False)
class Concat(Op):
    """Channels of 2 to ``MAX_PARTS`` maps of one size side by side, all f32 or all bits.

    The output has the inputs' kind; an input may stand there more than once.
    """


@dataclass(frozen=True, eq=False)
class GlobalSum(Op):
    """Sum over H and W, f32 or bits -> f32 ``[1, 1, C]`` (a mean's division sits in Dense)."""


@dataclass(frozen=True, eq=False)
class Dense(Op):
    """Full-precision dense layer on f32 ``[1, 1, C]``: weights float32 ``[O, C]``, add ``[O]``."""

    weights: F32
    add: F32


OP_TYPES: dict[str, type[Op]] = {
    cls.__name__: cls
    for cls in (
        Conv, BinaryConv, Sign, Clip, ToFloat, Add, MaxPool, AvgPool, Repeat, Concat, GlobalSum,
        Dense, Mul, Scale, PRelu, Quantize, Sigmoid, Softmax, Slice, Pad, Flatten,
    )
}  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """How pixels 0..255 become the float32 input of a model: ``mul * pixel + add``.

    Attributes:
        mul, add: one number per input channel.
    """

    mul: tuple[float, ...]
    add: tuple[float, ...]

    @classmethod
    def of_range(cls, low: float, high: float, channels: int) -> Preprocessing:
        """Pixel 0 becomes ``low`` and 255 ``high``, in every channel."""
        return cls(((high - low) / 255,) * channels, (low,) * channels)

    def apply(self, pixels: NDArray[np.uint8]) -> F32:
        """Images float32 ``[N, H, W, C]`` of uint8 ``pixels`` of that shape."""
        mul = np.asarray(self.mul, np.float32).astype(np.float64)
        add = np.asarray(self.add, np.float32).astype(np.float64)
        return np.asarray(pixels * mul + add, np.float32)


@dataclass(frozen=True, eq=False)
class Program:
    """A whole network, from uint8 pixels (an imported one perhaps float32) to float32 logits.

    Attributes:
        input_shape: ``(H, W, C)`` of one image.
        ops: in execution order; the last one gives the logits, f32 ``[1, 1, classes]``.
        dataset: name of the data set it was trained on ("" if none).
        classes: one name per logit.
        settled_hash: SHA-256 (hex) of the settled torch weights it was packed from ("" if none).
        input_kind: ``u8``, or ``f32`` for an imported model that takes floats.
        preprocessing: of pixels for an ``f32`` input, if it is known.

    Source: :mod:`frostbit.kernels.ir.reference` defines what each op computes.
    """

    input_shape: tuple[int, int, int]
    ops: tuple[Op, ...]
    dataset: str
    classes: tuple[str, ...]
    settled_hash: str = ""
    input_kind: Literal["u8", "f32"] = "u8"
    preprocessing: Preprocessing | None = None

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        kinds = Counter(type(op).__name__ for op in self.ops)
        binary = sum(op.channels_out * op.taps for op in self.ops if isinstance(op, BinaryConv))
        pixels = "pixels, uint8" if self.input_kind == "u8" else "floats"
        rows = [
            ("input", f"{' x '.join(map(str, self.input_shape))} {pixels}"),
            ("ops", ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())),
            ("binary weights", f"{binary:,}"),
            ("classes", html.some(self.classes)),
            ("data set", self.dataset or "not named"),
        ]
        return html.table("Program", rows)
