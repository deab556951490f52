"""``torch``: the settled trained module itself, and ``torch-fp32``: its full-precision twin."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from frostbit.export.onnx.float_twin import twin_weights
from frostbit.export.runtimes import Images, Logits, Milliseconds
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import (
    INPUT,
    Add,
    AvgPool,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    GlobalSum,
    MaxPool,
    Op,
    Program,
    Repeat,
    Sign,
    Threshold,
    ToFloat,
    Window,
)
from frostbit.pipeline.lowering.to_program import sign_nodes


@contextmanager
def threads_of(count: int) -> Iterator[None]:
    """torch uses ``count`` intra-op threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def planar(x: Tensor) -> Tensor:
    """``x`` with the strides of a C array, also where an axis of size 1 leaves them open.

    torch 2.14 takes such a map with one channel for channels-last, and its oneDNN convolution with
    stride (1, 3) is then wrong (found by the random Programs of ``tests/kernels/programs.py``).
    """
    plain = torch.empty(x.shape, dtype=x.dtype)
    return x if x.stride() == plain.stride() else plain.copy_(x)


def pixels_of(images: Images, dtype: torch.dtype = torch.float32) -> Tensor:
    """uint8 ``[N, H, W, C]`` as numbers ``[N, C, H, W]``."""
    return planar(torch.from_numpy(images.transpose(0, 3, 1, 2)).to(dtype))


@torch.inference_mode()
def _time(module: nn.Module, pixels: Tensor, repeats: int, threads: int) -> Milliseconds:
    times = np.empty(repeats)
    with threads_of(threads):
        for i in range(repeats):
            start = time.perf_counter_ns()
            module(pixels)
            times[i] = (time.perf_counter_ns() - start) / 1e6
    return times


class _Recorder(fx.Interpreter):
    """Runs a settled module and keeps what the nodes in ``wanted`` give."""

    def __init__(self, gm: fx.GraphModule, wanted: set[str]) -> None:
        super().__init__(gm)
        self.wanted = wanted
        self.kept: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.wanted:
            self.kept[n.name] = value
        return value


class TorchRuntime:
    """The settled module of a run folder, on the CPU in float32.

    Args:
        gm: from :func:`frostbit.pipeline.lowering.pack.load_settled`, whose hash the caller has
        checked. image_shape: ``(C, H, W)``. threads: intra-op threads.
    """

    name = "torch"

    def __init__(
        self, gm: fx.GraphModule, image_shape: tuple[int, int, int], threads: int = 1
    ) -> None:
        self._gm, self._threads = gm.eval(), threads
        self._nodes = sign_nodes(gm, image_shape)
        self.size_bytes = sum(v.numel() * v.element_size() for v in gm.state_dict().values())

    @torch.inference_mode()
    def logits(self, images: Images) -> Logits:
        with threads_of(self._threads):
            return np.asarray(self._gm(pixels_of(images)).numpy(), dtype=np.float32)

    @torch.inference_mode()
    def signs(self, images: Images) -> dict[str, bits.Words]:
        recorder = _Recorder(self._gm, set(self._nodes.values()))
        with threads_of(self._threads):
            recorder.run(pixels_of(images))
        found = {}
        for name, node in self._nodes.items():
            value = recorder.kept[node]
            nhwc = value[:, None, None, :] if value.dim() == 2 else value.permute(0, 2, 3, 1)
            found[name] = bits.pack(nhwc.contiguous().numpy())
        return found

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return _time(self._gm, pixels_of(image), repeats, self._threads)

    def close(self) -> None:
        """Nothing to release."""


class _Twin(nn.Module):
    """A Program's architecture with random float32 weights and ReLU for sign."""

    def __init__(self, program: Program, seed: int = 0) -> None:
        super().__init__()
        self.ops = program.ops
        weighted = (Conv, BinaryConv, Dense)
        self.weights = {
            op.name: torch.from_numpy(twin_weights(op, seed + index))
            for index, op in enumerate(program.ops)
            if isinstance(op, weighted)
        }

    def forward(self, x: Tensor) -> Tensor:
        values = {INPUT: x}
        for op in self.ops:
            values[op.name] = self._apply(op, *(values[name] for name in op.inputs))
        return values[self.ops[-1].name]

    def _apply(self, op: Op, *x: Tensor) -> Tensor:
        match op:
            case Conv() | BinaryConv():
                weight, window = self.weights[op.name], op.window
                symmetric = window.pads[:2] == window.pads[2:]
                source = x[0] if symmetric else framed(x[0], window)
                pads = window.pads[:2] if symmetric else 0
                y = F.conv2d(source, weight, None, window.stride, pads, window.dilation, op.groups)
                relu = isinstance(op, BinaryConv) and isinstance(op.epilogue, Threshold)
                return F.relu_(y) if relu else y
            case Sign() | Clip():
                return F.relu(x[0])
            case Add():
                return x[0] + x[1]
            case MaxPool():
                padded = framed(x[0], op.window, float("-inf"))
                return F.max_pool2d(padded, op.window.kernel, op.window.stride)
            case AvgPool():
                return F.avg_pool2d(framed(x[0], op.window), op.window.kernel, op.window.stride)
            case Repeat():
                return x[0].repeat(1, op.times, 1, 1)
            case Concat():
                return torch.cat(x, dim=1)
            case GlobalSum():
                return x[0].mean(dim=(2, 3), keepdim=True)
            case Dense():
                return F.linear(x[0].flatten(1), self.weights[op.name])
            case ToFloat():
                return x[0]
        raise TypeError(f"no twin for {type(op).__name__}")


def framed(x: Tensor, window: Window, value: float = 0.0) -> Tensor:
    """``[N, C, H, W]`` with the pads of ``window`` around it."""
    top, left, bottom, right = window.pads
    return F.pad(x, (left, right, top, bottom), value=value) if any(window.pads) else x


class TorchTwin:
    """``torch-fp32``: the full-precision twin in PyTorch. It can be timed, nothing else."""

    name = "torch-fp32"

    def __init__(self, program: Program, threads: int = 1) -> None:
        self._twin = _Twin(program).eval()
        self._threads = threads
        self.size_bytes = sum(4 * weight.numel() for weight in self._twin.weights.values())

    def latency(self, image: NDArray[np.uint8], repeats: int) -> Milliseconds:
        return _time(self._twin, pixels_of(image), repeats, self._threads)

    def close(self) -> None:
        """Nothing to release."""
