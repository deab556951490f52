"""``torch-fp32``: the full-precision twin of a packed network in PyTorch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frostbit.export.onnx.float_twin import twin_weights
from frostbit.export.runtimes import Images, Milliseconds
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
from frostbit.pipeline.lowering.settled_runtime import pixels_of, time_module
from frostbit.pipeline.parity.torch_ops import imported


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
            case Sign():
                return F.relu(x[0])
            case Clip():
                return F.relu(x[0]) if op.low == -op.high else x[0].clamp(op.low, op.high)
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
                flat = F.linear(x[0].flatten(1), self.weights[op.name])
                return flat[:, :, None, None]
            case ToFloat():
                return x[0]
        return imported(op, *x)


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

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_module(self._twin, pixels_of(image), repeats, self._threads)

    def close(self) -> None:
        """Nothing to release."""
