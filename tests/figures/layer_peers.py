"""One binary convolution by itself, in the engine and in its peers, for ``tests.figures.layers``.

The engine's layer is a step of a small Program: bits in, bits out, borders, thresholds and packing
included. Peers compute a convolution of that shape in the form they like best, on random numbers:
ONNX Runtime in float32 and in int8 (QLinearConv, unsigned activations, signed weights, either
layout), and the matrix product of PyPI's ``bnn-lab`` at the shape that im2col would give it.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from frostbit.export.errors import RuntimeMissing
from frostbit.export.onnx.runtime import session, time_session
from frostbit.export.runtimes import Images, Milliseconds, time_calls
from frostbit.export.synthetic.builder import Net, window
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import Add, Affine, BinaryConv, Program, Sign

IMAGES_PER_CALL = 8
LAYER = "layer"


@dataclass(frozen=True)
class Shape:
    """A square convolution: map size, channels in and out, kernel, stride, padding (k - 1) / 2."""

    size: int
    channels: int
    out: int
    kernel: int
    stride: int

    @property
    def pixels(self) -> int:
        """Output pixels."""
        height, width = window(self.kernel, self.stride).output(self.size, self.size)
        return height * width

    @property
    def taps(self) -> int:
        """Products of one output."""
        return self.kernel**2 * self.channels

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.pixels * self.taps * self.out

    def __str__(self) -> str:
        stride = f" /{self.stride}" if self.stride > 1 else ""
        return (
            f"{self.kernel}x{self.kernel}{stride}, {self.channels} to {self.out}, "
            f"{self.size}x{self.size}"
        )


STREAMS = ((56, 256), (28, 512), (28, 256))
"""Sizes and channels of the residual streams that are timed in 16 and in 32 bits."""
SHAPES = (
    Shape(56, 64, 64, 3, 1),
    Shape(28, 128, 128, 3, 1),
    Shape(14, 256, 256, 3, 1),
    Shape(7, 512, 512, 3, 1),
    Shape(56, 64, 128, 3, 2),
    Shape(56, 64, 256, 1, 1),
    Shape(14, 1024, 256, 1, 1),
)
"""The convolutions of ResNet-18 and -50 at 224x224."""


def layer_program(shape: Shape, seed: int = 0) -> Program:
    """A Program whose op ``layer`` is the convolution, between signs of a stem and a head."""
    net = Net(np.random.PCG64(seed))
    x = net.stem(1, 1, shape.channels, 0.0)
    sizes = (shape.channels, shape.out)
    x = net.binary(LAYER, x, window(shape.kernel, shape.stride), sizes, last=False)
    net.head(x, shape.out, 2)
    return Program((shape.size, shape.size, 3), tuple(net.ops), "", ("class 0", "class 1"))


def stream_program(size: int, channels: int, seed: int = 0) -> Program:
    """A Program whose op ``layer`` is a binary 1x1 convolution that adds to a residual stream.

    The map has ``size`` x ``size`` pixels and ``channels``; all numbers are multiples of 1/4, so
    that the stream fits 16 bits. The layer's result is added to once more, then pooled.
    """
    net = Net(np.random.PCG64(seed))
    bits_of, total = net.stem(1, 1, channels, 0.0), ""
    for name in ("before", LAYER, "after"):
        words = net.bits(channels, 1, 1, channels)
        quarters = [(net.integers(1, 3, channels) / 4).astype(np.float32) for _ in range(2)]
        affine = Affine(*quarters)
        conv = net.append(BinaryConv(name, (bits_of,), window(1, 1), words, channels, 1, 0, affine))
        total = net.append(Add(f"{name}.sum", (conv, total))) if total else conv
        bits_of = net.append(Sign(f"{name}.sign", (total,)))
    net.head(total, channels, 2)
    return Program((size, size, 3), tuple(net.ops), "", ("class 0", "class 1"))


class EngineLayer:
    """The step ``layer`` of the Program in the engine; without ``narrow``, sums take 32 bits."""

    def __init__(self, program: Program, kernel: str, narrow: bool = True) -> None:
        self.name = f"engine:{kernel}" + ("" if narrow else ":32-bit sums")
        self.kernel = kernel
        self.program = program
        self._engine = Engine(program, kernel=kernel, narrow=narrow)
        self._step = self._engine.steps.index(LAYER)

    def check(self, images: Images) -> int:
        """How many bits of all layers differ from the reference's."""
        found = Engine(self.program, keep=True, kernel=self.kernel).signs(images)
        want = reference.trace(self.program, images)
        return sum(
            int(np.bitwise_count(words ^ bits.pack(want[name])).sum())
            for name, words in found.items()
        )

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        """Milliseconds of the step alone, the mean of ``IMAGES_PER_CALL`` at a time."""
        batch = np.repeat(image[:1], IMAGES_PER_CALL, axis=0)
        self._engine.run(batch[:1])
        step = self._step
        seconds = [self._engine.time_steps(step, step + 1, batch) for _ in range(repeats)]
        return 1e3 / IMAGES_PER_CALL * np.array(seconds)

    def close(self) -> None:
        """Nothing to release."""


class OrtLayer:
    """A convolution of that shape in ONNX Runtime."""

    def __init__(self, name: str, model: bytes, feed: NDArray[Any]) -> None:
        self.name = name
        self._session, self._feed = session(model), {"x": feed}

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_session(self._session, self._feed, repeats)

    def close(self) -> None:
        """Drop the session."""
        self._session = None


def _model(node: Any, shape: tuple[int, ...], kind: int, constants: dict[str, Any]) -> bytes:
    graph = helper.make_graph(
        [node],
        LAYER,
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid("com.microsoft", 1)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(model.SerializeToString())


def _attributes(shape: Shape) -> dict[str, Any]:
    pad = (shape.kernel - 1) // 2
    square = [shape.kernel] * 2
    return {"kernel_shape": square, "strides": [shape.stride] * 2, "pads": [pad] * 4}


def ort_float32(shape: Shape) -> OrtLayer:
    """Conv in float32, NCHW."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(shape.out, shape.channels, shape.kernel, shape.kernel))
    node = helper.make_node("Conv", ["x", "w"], ["y"], **_attributes(shape))
    sizes = (1, shape.channels, shape.size, shape.size)
    model = _model(node, sizes, TensorProto.FLOAT, {"w": weights.astype(np.float32)})
    return OrtLayer("ort-fp32", model, rng.normal(size=sizes).astype(np.float32))


def ort_int8(shape: Shape, channels_last: bool) -> OrtLayer:
    """QLinearConv of unsigned activations and signed weights, in NCHW or NHWC."""
    rng = np.random.default_rng(0)
    kernel = (shape.out, shape.channels, shape.kernel, shape.kernel)
    u8, s8 = np.uint8(128), np.int8(0)
    constants = {
        "xs": np.float32(0.02), "xz": u8, "w": rng.integers(-64, 64, kernel).astype(np.int8),
        "ws": np.float32(0.01), "wz": s8, "ys": np.float32(0.5), "yz": u8,
        "b": np.zeros(shape.out, np.int32),
    }  # fmt: skip
    attributes = _attributes(shape)
    if channels_last:
        attributes |= {"channels_last": 1, "domain": "com.microsoft"}
    node = helper.make_node("QLinearConv", ["x", *constants], ["y"], **attributes)
    sizes = (1, shape.channels, shape.size, shape.size)
    if channels_last:
        sizes = (1, shape.size, shape.size, shape.channels)
    name = "ort-int8:nhwc" if channels_last else "ort-int8:nchw"
    model = _model(node, sizes, TensorProto.UINT8, {k: np.asarray(v) for k, v in constants.items()})
    return OrtLayer(name, model, rng.integers(0, 255, sizes).astype(np.uint8))


class BnnLab:
    """``bnn-lab``'s packed matrix product, activations and weights packed beforehand.

    Args:
        shape: the convolution.
        kernel: which of its code paths: ``avx512``, ``avx2`` or ``neon``.

    Raises:
        RuntimeMissing: if the package or its compiled code is not there.
    """

    def __init__(self, shape: Shape, kernel: str) -> None:
        self.name = f"bnn-lab:{kernel}"
        try:
            packed: Any = importlib.import_module("bnn.kernels.packed")
        except ImportError as error:
            raise RuntimeMissing("pip install --no-deps bnn-lab") from error
        if not packed.native_kernel_available():
            raise RuntimeMissing("bnn-lab has no compiled code for this machine")
        packed.set_num_threads(1)
        if kernel not in packed.available_kernels():
            raise RuntimeMissing(f"bnn-lab has no {kernel} code for this CPU")
        rng = np.random.default_rng(0)
        sides = (shape.pixels, shape.out)
        x, w = (packed.pack_binary_pm1(rng.choice([-1.0, 1.0], (n, shape.taps)))[0] for n in sides)
        self._kernel, self._packed = kernel, packed
        self._call: Callable[[], Any] = lambda: packed.binary_gemm_native_prepacked(
            x, w, shape.taps
        )

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        self._packed.set_kernel(self._kernel)
        return time_calls(self._call, repeats)

    def close(self) -> None:
        """Nothing to release."""
