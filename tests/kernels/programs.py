"""Random valid Programs for tests of anything that runs, exports or stores them.

Parameters lie on a dyadic grid and are small, so that :mod:`frostbit.kernels.ir.exact` proves most
of these Programs exact; ``exact_programs`` filters the rest out. ``Builder`` is for Programs by
hand.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from numpy.typing import NDArray

from frostbit.kernels.ir import bits, exact
from frostbit.kernels.ir.program import (
    INPUT,
    NO_BOUND,
    NO_LIMIT,
    Add,
    Affine,
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
    Preprocessing,
    Program,
    Quantize,
    Repeat,
    Scale,
    Sigmoid,
    Sign,
    Slice,
    Softmax,
    Threshold,
    ToFloat,
    ValueType,
    Window,
)

STEP = 2.0**-6


class Builder:
    """Appends ops to a Program and keeps track of the types; each method returns a name."""

    def __init__(
        self, shape: tuple[int, int, int], seed: int = 0, kind: Literal["u8", "f32"] = "u8"
    ) -> None:
        self.shape, self.kind = shape, kind
        self.rng = np.random.default_rng(seed)
        self.ops: list[Op] = []
        self.types: dict[str, ValueType] = {INPUT: ValueType(kind, shape)}

    def grid(self, shape: tuple[int, ...], largest: int = 32) -> NDArray[np.float32]:
        """float32 of ``shape``: random multiples of ``STEP``, at most ``largest`` steps."""
        steps = self.rng.integers(-largest, largest + 1, shape)
        return np.asarray(steps * STEP, np.float32)

    def weights(self, shape: tuple[int, ...], bits: int) -> NDArray[np.float32]:
        """float32 ``[O, ...]``: whole numbers of ``bits`` bits, and times a scale per row if 8.

        With more than 8 every row has a number that 8 do not hold.
        """
        most = 2 ** (bits - 1) - 1
        steps = self.rng.integers(-most, most + 1, shape)
        if bits == 8:
            steps *= self.rng.integers(1, 4, (shape[0], *[1] * (len(shape) - 1)))
        elif bits > 8:
            steps.reshape(shape[0], -1)[:, :2] = [most, 1] if steps[0].size > 1 else most
        return np.asarray(steps * STEP, np.float32)

    def _append(self, op: Op, kind: Any, shape: tuple[int, int, int]) -> str:
        self.ops.append(op)
        self.types[op.name] = ValueType(kind, shape)
        return op.name

    def _name(self, op: str) -> str:
        return f"{op}{len(self.ops)}"

    def conv(self, source: str, out: int, window: Window, groups: int = 1, bits: int = 4) -> str:
        """Full-precision convolution with random weights of ``bits`` bits."""
        value = self.types[source]
        channels = value.shape[2]
        pad = np.zeros(channels, np.uint8)
        if value.kind == "u8":
            pad = self.rng.integers(0, 256, channels).astype(np.uint8)
        weights = self.weights((out, *window.kernel, channels // groups), bits)
        op = Conv(self._name("conv"), (source,), window, weights, self.grid((out,)), pad, groups)
        return self._append(op, "f32", (*window.output(*value.shape[:2]), out))

    def binary_conv(
        self,
        source: str,
        out: int,
        window: Window,
        *,
        groups: int = 1,
        pad_value: int = 1,
        affine: bool = True,
        limits: tuple[int, int] | None = None,
        words: bits.Words | None = None,
    ) -> str:
        """Binary convolution; random weights and epilogue unless ``words`` are given."""
        height, width, channels = self.types[source].shape
        inside = channels // groups
        if words is None:
            words = bits.pack(self.rng.choice([-1, 1], (out, *window.kernel, inside)))
        taps = window.kernel[0] * window.kernel[1] * inside
        epilogue: Affine | Threshold
        if affine:
            mul, add = self.grid((out,), 16), self.grid((out,))
            epilogue = Affine(mul, add) if limits is None else Affine(mul, add, *limits)
        else:
            spread = max(1, int(2 * taps**0.5))
            level = self.rng.integers(-spread, spread + 1, out).clip(-taps, taps + 1)
            level[self.rng.random(out) < 0.1] = self.rng.choice([-taps, taps, taps + 1])
            epilogue = Threshold(level.astype(np.int32))
        name = self._name("binary")
        op = BinaryConv(name, (source,), window, words, inside, groups, pad_value, epilogue)
        kind = "f32" if affine else "bits"
        return self._append(op, kind, (*window.output(height, width), out))

    def sign(self, source: str) -> str:
        """Signs of a float map."""
        return self._append(Sign(self._name("sign"), (source,)), "bits", self.types[source].shape)

    def clip(self, source: str, low: float = -1.0, high: float = 1.0) -> str:
        """Float map clipped, by default to -1 .. 1."""
        op = Clip(self._name("clip"), (source,), low, high)
        return self._append(op, "f32", self.types[source].shape)

    def mul(self, a: str, b: str) -> str:
        """Product of two float maps, or of one and a ``[1, 1, C]``."""
        return self._append(Mul(self._name("mul"), (a, b)), "f32", self.types[a].shape)

    def scale(self, source: str) -> str:
        """Random factor and addend per channel."""
        shape = self.types[source].shape
        mul, add = self.grid((shape[2],), 16), self.grid((shape[2],))
        return self._append(Scale(self._name("scale"), (source,), mul, add), "f32", shape)

    def prelu(self, source: str) -> str:
        """Random slope per channel where negative."""
        shape = self.types[source].shape
        op = PRelu(self._name("prelu"), (source,), self.grid((shape[2],), 16))
        return self._append(op, "f32", shape)

    def quantize(self, source: str, step: float, low: float, high: float) -> str:
        """Float map rounded to steps."""
        op = Quantize(self._name("quantize"), (source,), step, low, high)
        return self._append(op, "f32", self.types[source].shape)

    def sigmoid(self, source: str) -> str:
        """Logistic function of a float map."""
        shape = self.types[source].shape
        return self._append(Sigmoid(self._name("sigmoid"), (source,)), "f32", shape)

    def softmax(self, source: str) -> str:
        """Softmax of a ``[1, 1, C]``."""
        shape = self.types[source].shape
        return self._append(Softmax(self._name("softmax"), (source,)), "f32", shape)

    def slice(self, source: str, start: int, stop: int) -> str:
        """Some channels."""
        kind, (height, width, _) = self.types[source].kind, self.types[source].shape
        op = Slice(self._name("slice"), (source,), start, stop)
        return self._append(op, kind, (height, width, stop - start))

    def pad(
        self, source: str, pads: tuple[int, int, int, int], channels: tuple[int, int] = (0, 0)
    ) -> str:
        """Zeros around a float map."""
        height, width, inside = self.types[source].shape
        size = (height + pads[0] + pads[2], width + pads[1] + pads[3], inside + sum(channels))
        return self._append(Pad(self._name("pad"), (source,), pads, channels), "f32", size)

    def flatten(self, source: str) -> str:
        """All values of a map as channels of one pixel."""
        kind, (height, width, channels) = self.types[source].kind, self.types[source].shape
        op = Flatten(self._name("flat"), (source,))
        return self._append(op, kind, (1, 1, height * width * channels))

    def to_float(self, source: str) -> str:
        """Bits as floats."""
        op = ToFloat(self._name("float"), (source,))
        return self._append(op, "f32", self.types[source].shape)

    def add(self, a: str, b: str) -> str:
        """Sum of two float maps."""
        return self._append(Add(self._name("add"), (a, b)), "f32", self.types[a].shape)

    def max_pool(self, source: str, window: Window) -> str:
        """Maximum over a window."""
        kind, (height, width, channels) = self.types[source].kind, self.types[source].shape
        op = MaxPool(self._name("max"), (source,), window)
        return self._append(op, kind, (*window.output(height, width), channels))

    def avg_pool(self, source: str, window: Window) -> str:
        """Mean over a window."""
        height, width, channels = self.types[source].shape
        op = AvgPool(self._name("avg"), (source,), window)
        return self._append(op, "f32", (*window.output(height, width), channels))

    def repeat(self, source: str, times: int) -> str:
        """Channels side by side, several times."""
        height, width, channels = self.types[source].shape
        op = Repeat(self._name("repeat"), (source,), times)
        return self._append(op, "f32", (height, width, channels * times))

    def concat(self, *sources: str) -> str:
        """Channels of several maps side by side."""
        kind, (height, width, _) = self.types[sources[0]].kind, self.types[sources[0]].shape
        channels = sum(self.types[source].shape[2] for source in sources)
        op = Concat(self._name("concat"), sources)
        return self._append(op, kind, (height, width, channels))

    def global_sum(self, source: str) -> str:
        """Sum over the map."""
        op = GlobalSum(self._name("sum"), (source,))
        return self._append(op, "f32", (1, 1, self.types[source].shape[2]))

    def dense(self, source: str, out: int, bits: int = 4) -> str:
        """Full-precision dense layer with random weights of ``bits`` bits."""
        weights = self.weights((out, self.types[source].shape[2]), bits)
        op = Dense(self._name("dense"), (source,), weights, self.grid((out,)))
        return self._append(op, "f32", (1, 1, out))

    def finish(self, source: str, classes: int = 5, bits: int = 4) -> Program:
        """Program that ends with sum over the map and dense layer of ``source``."""
        self.dense(self.global_sum(source), classes, bits)
        return self.program()

    def program(self) -> Program:
        """Program of the ops so far."""
        last = self.types[self.ops[-1].name].shape[2]
        names = tuple(f"class {i}" for i in range(last))
        known = None
        if self.kind == "f32":
            channels = self.shape[2]
            known = Preprocessing((2.0 / 255,) * channels, (-1.0,) * channels)
        return Program(self.shape, tuple(self.ops), "", names, "", self.kind, known)

    def images(self, count: int) -> NDArray[Any]:
        """Random images ``[count, H, W, C]``, as :func:`random_images` makes them."""
        return _images(self.rng, (count, *self.shape), self.kind)


def _images(rng: np.random.Generator, shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    """uint8, or float32 multiples of 1/16 in -4 .. 4."""
    if kind == "u8":
        return rng.integers(0, 256, shape, dtype=np.uint8)
    return np.asarray(rng.integers(-64, 65, shape) / 16, np.float32)


def random_images(program: Program, count: int, seed: int = 0) -> NDArray[Any]:
    """Random images ``[count, H, W, C]`` for ``program``: uint8 or float32, as it takes them."""
    rng = np.random.default_rng(seed)
    return _images(rng, (count, *program.input_shape), program.input_kind)


CHANNELS = st.one_of(st.sampled_from([1, 3, 31, 32, 33, 63, 64, 65]), st.integers(1, 200))


BITS = st.sampled_from([4, 8, 8, 10])
"""Of full-precision weights: of 8 with a scale per channel, of more as float32 or int16."""


def _fitted(
    size: tuple[int, int], kernel: list[int], pads: list[int], dilation: tuple[int, int]
) -> tuple[int, int]:
    """``kernel`` with each side halved until it fits the padded map."""
    for axis in (0, 1):
        room = size[axis] + pads[axis] + pads[axis + 2]
        while (kernel[axis] - 1) * dilation[axis] + 1 > room:
            kernel[axis] //= 2
    return kernel[0], kernel[1]


@st.composite
def windows(draw: st.DrawFn, size: tuple[int, int]) -> Window:
    """A window of a convolution that fits a map of ``size`` (H, W)."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    pads = [draw(st.integers(0, 3)) for _ in range(4)]
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    kernel = _fitted(size, [draw(st.integers(1, 4)), draw(st.integers(1, 4))], pads, dilation)
    return Window(kernel, draw(pair), (pads[0], pads[1], pads[2], pads[3]), dilation)


@st.composite
def pool_windows(draw: st.DrawFn, size: tuple[int, int]) -> Window:
    """A pooling window that fits ``size``: area a power of two, some tap always in the map."""
    lengths = st.sampled_from([1, 2, 4])
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    kernel = _fitted(size, [draw(lengths), draw(lengths)], [0] * 4, dilation)
    most = min(kernel) - 1
    pads = [draw(st.integers(0, most)) for _ in range(4)]
    window = Window(kernel, stride, (pads[0], pads[1], pads[2], pads[3]), dilation)
    return window if window.always_meets(*size) else Window(kernel, stride)


def _groups(draw: st.DrawFn, channels: int) -> int:
    """A number of groups of ``channels`` channels, often 1."""
    return draw(st.sampled_from([g for g in (1, 1, 1, 2, 3, channels) if channels % g == 0]))


def _conv(draw: st.DrawFn, b: Builder, x: str) -> str:
    """Append a full-precision convolution, perhaps grouped."""
    height, width, channels = b.types[x].shape
    groups = _groups(draw, channels)
    out = draw(st.integers(1, 2)) * groups if groups > 1 else draw(st.integers(1, 40))
    return b.conv(x, out, draw(windows((height, width))), groups, draw(BITS))


def _block(draw: st.DrawFn, b: Builder, x: str, other: str) -> str:
    """Append sign, 3x3 binary convolution and Add of ``other``, which has the shape of ``x``."""
    same = Window((3, 3), pads=(1, 1, 1, 1))
    bits_of_x = b.sign(x)
    y = b.binary_conv(bits_of_x, b.types[x].shape[2], same, pad_value=draw(st.integers(0, 1)))
    if draw(st.booleans()):
        other = b.to_float(bits_of_x)
    return b.add(y, other)


def _concat(draw: st.DrawFn, b: Builder, x: str) -> str:
    """Append ``x`` joined with up to three maps of its kind and size, itself perhaps."""
    kind, size = b.types[x].kind, b.types[x].shape[:2]
    if draw(st.booleans()):
        signs = x if kind == "bits" else b.sign(x)
        b.binary_conv(signs, draw(CHANNELS), Window((1, 1)), affine=kind == "f32")
    like = [n for n, v in b.types.items() if v.kind == kind and v.shape[:2] == size]
    others = draw(st.lists(st.sampled_from(like), min_size=1, max_size=3))
    return b.concat(*draw(st.permutations([x, *others])))


def _next_from_floats(draw: st.DrawFn, b: Builder, x: str) -> str:
    """Append a random op that reads the float map ``x``."""
    value = b.types[x].shape
    size = value[:2]
    same = [n for n, v in b.types.items() if v.kind == "f32" and v.shape == value]
    ops = ["block", "block", "sign", "sign", "add", "max", "avg", "repeat", "concat", "conv"]
    ops += ["clip", "real"]
    match draw(st.sampled_from(ops)):
        case "block":
            return _block(draw, b, x, draw(st.sampled_from(same)))
        case "sign":
            return b.sign(x)
        case "add":
            return b.add(x, draw(st.sampled_from(same)))
        case "max":
            return b.max_pool(x, draw(pool_windows(size)))
        case "avg":
            return b.avg_pool(x, draw(pool_windows(size)))
        case "repeat" if value[2] <= 70:
            return b.repeat(x, draw(st.integers(1, 3)))
        case "concat" if value[2] <= 100:
            return _concat(draw, b, x)
        case "conv" if value[2] <= 40:
            return _conv(draw, b, x)
        case "clip":
            return b.clip(x)
        case "real":
            return _binary_conv(draw, b, b.clip(x))
    return b.sign(x)


def _binary_conv(draw: st.DrawFn, b: Builder, x: str) -> str:
    """Append a random binary convolution, often with a residual of its own output's shape."""
    height, width, channels = b.types[x].shape
    window = draw(windows((height, width)))
    groups = _groups(draw, channels)
    out = draw(st.integers(1, 3)) * groups if groups > 1 else draw(CHANNELS)
    pad_value = draw(st.sampled_from([0, 1]))
    affine = b.types[x].kind == "f32" or draw(st.booleans())
    name = b.binary_conv(x, out, window, groups=groups, pad_value=pad_value, affine=affine)
    same = [
        n
        for n, v in b.types.items()
        if v.shape == b.types[name].shape and v.kind in ("f32", "bits")
    ]
    if affine and draw(st.booleans()):
        other = draw(st.sampled_from(same))
        if b.types[other].kind == "bits":
            other = b.to_float(other)
        pair = draw(st.permutations([name, other]))
        name = b.add(pair[0], pair[1])
    return name


def _next_from_bits(draw: st.DrawFn, b: Builder, x: str) -> str:
    """Append a random op that reads the bits ``x``."""
    size, channels = b.types[x].shape[:2], b.types[x].shape[2]
    ops = ["binary", "binary", "binary", "max", "float", "conv", "concat"]
    match draw(st.sampled_from(ops)):
        case "max":
            return b.max_pool(x, draw(pool_windows(size)))
        case "float":
            return b.to_float(x)
        case "concat" if channels <= 100:
            return _concat(draw, b, x)
        case "conv" if channels <= 70:
            return _conv(draw, b, x)
    return _binary_conv(draw, b, x)


def _clipped(draw: st.DrawFn, b: Builder, x: str) -> str:
    """Append a binary convolution whose accumulators are clipped."""
    height, width, channels = b.types[x].shape
    window = draw(windows((height, width)))
    low = draw(st.integers(-channels, channels))
    limits = (low, draw(st.sampled_from([low, low + 3, 6 + max(low, 0), NO_LIMIT])))
    return b.binary_conv(x, draw(CHANNELS), window, pad_value=1, limits=limits)


def _next_foreign(draw: st.DrawFn, b: Builder, x: str) -> str:
    """Append a random op that only networks read from other people's files have."""
    kind, (height, width, channels) = b.types[x].kind, b.types[x].shape
    ops = ["slice", *(["flatten"] if height * width * channels <= 300 else [])]
    ops += ["clipped", "clipped"] if kind == "bits" else ["clip", "mul", "vector", "scale"]
    ops += [] if kind == "bits" else ["prelu", "quantize", "sigmoid", "pad", "pad"]
    match draw(st.sampled_from(ops)):
        case "slice":
            start = draw(st.integers(0, channels - 1))
            return b.slice(x, start, draw(st.integers(start + 1, channels)))
        case "flatten":
            return b.flatten(x)
        case "clipped":
            return _clipped(draw, b, x)
        case "clip":
            return b.clip(x, *draw(st.sampled_from([(0.0, NO_BOUND), (0.0, 6.0), (-0.5, 2.0)])))
        case "mul":
            return b.mul(x, x)
        case "vector":
            return b.mul(x, b.sigmoid(b.global_sum(x)))
        case "scale":
            return b.scale(x)
        case "prelu":
            return b.prelu(x)
        case "quantize":
            return b.quantize(x, draw(st.sampled_from([0.25, 0.3])), -8.0, 7.0)
        case "sigmoid":
            return b.sigmoid(x)
    pads = draw(st.tuples(*[st.integers(0, 2)] * 4))
    return b.pad(x, pads, draw(st.tuples(st.integers(0, 40), st.integers(0, 40))))


@st.composite
def programs(draw: st.DrawFn, foreign: bool = False) -> Program:
    """A random valid Program of any ops, from 1x1 to 9x9 pixels.

    With ``foreign`` it has ops that only imported networks have, perhaps a float input, and
    perhaps ends in a Softmax.
    """
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 4)))
    kind = draw(st.sampled_from(["u8", "f32"])) if foreign else "u8"
    b = Builder(shape, draw(st.integers(0, 2**32 - 1)), kind)
    x = INPUT
    if foreign and draw(st.booleans()):
        x = b.scale(x)
    x = b.conv(x, draw(CHANNELS), draw(windows(shape[:2])), bits=draw(BITS))
    for _ in range(draw(st.integers(0, 6))):
        step = _next_from_floats if b.types[x].kind == "f32" else _next_from_bits
        if foreign and draw(st.booleans()):
            step = _next_foreign
        x = step(draw, b, x)
    program = b.finish(x, draw(st.integers(1, 40)), draw(BITS))
    if foreign and draw(st.booleans()):
        b.softmax(program.ops[-1].name)
    return b.program()


@st.composite
def exact_programs(draw: st.DrawFn) -> Program:
    """A random Program whose signs and logits :mod:`frostbit.kernels.ir.exact` proves exact."""
    program = draw(programs())
    verdict = exact.analyse(program)
    assume(verdict.body_exact and verdict.head_exact)
    return program
