"""``torch:program``: a packed model run by PyTorch's own operators, op by op.

It reads what ``pack`` wrote, so unlike ``torch`` (the settled module itself) it proves nothing
about training; it stands in where the run folder is absent, and for networks with random weights.
In float64 it is the other half of the proof that float32 rounds nothing: :meth:`TorchProgram.trace`
gives every value of either precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from frostbit.export.runtimes import Images, Logits, Milliseconds, time_calls
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
from frostbit.kernels.ir.verify import infer_types
from frostbit.pipeline.lowering.settled_layers import pad_pixels, to_sign
from frostbit.pipeline.lowering.settled_runtime import pixels_of, planar, threads_of
from frostbit.pipeline.parity.torch_ops import imported, per_channel
from frostbit.pipeline.parity.torch_twin import framed


class TorchProgram:
    """A Program on the CPU in PyTorch, NCHW.

    Args:
        program: a well-formed Program.
        threads: intra-op threads.
        dtype: ``torch.float32``, as the model promises its bits for, or ``torch.float64``.
    """

    name = "torch:program"

    def __init__(
        self, program: Program, threads: int = 1, dtype: torch.dtype = torch.float32
    ) -> None:
        types = infer_types(program)
        self.program, self._threads, self._dtype = program, threads, dtype
        self._signs = [op.name for op in program.ops if types[op.name].kind == "bits"]
        self._weights = {op.name: self._oihw(op) for op in program.ops if _weights(op) is not None}
        self.size_bytes = sum(4 * weight.numel() for weight in self._weights.values())

    def _oihw(self, op: Op) -> Tensor:
        weights = torch.from_numpy(_weights(op)).to(self._dtype)
        return weights if weights.dim() == 2 else planar(weights.permute(0, 3, 1, 2))

    def _per_channel(self, values: NDArray[Any]) -> Tensor:
        return per_channel(values, self._dtype)

    @torch.inference_mode()
    def trace(self, images: Images) -> dict[str, Tensor]:
        """Every value by name, ``"input"`` included, ``[N, C, H, W]``; bits as +-1."""
        values = {INPUT: pixels_of(images, self._dtype)}
        with threads_of(self._threads):
            for op in self.program.ops:
                values[op.name] = self._apply(op, *(values[name] for name in op.inputs))
        return values

    def _apply(self, op: Op, *x: Tensor) -> Tensor:
        match op:
            case Conv() | BinaryConv():
                return self._convolve(op, x[0])
            case Sign():
                return to_sign(x[0]).to(self._dtype)
            case Clip():
                return x[0].clamp(op.low, op.high)
            case ToFloat():
                return x[0]
            case Add():
                return x[0] + x[1]
            case MaxPool():
                padded, window = framed(x[0], op.window, float("-inf")), op.window
                return F.max_pool2d(padded, window.kernel, window.stride, 0, window.dilation)
            case AvgPool():
                return self._average(op.window, x[0])
            case Repeat():
                return x[0].repeat(1, op.times, 1, 1)
            case Concat():
                return torch.cat(x, dim=1)
            case GlobalSum():
                return x[0].sum(dim=(2, 3), keepdim=True)
            case Dense():
                flat = F.linear(x[0].flatten(1), self._weights[op.name])
                return flat[:, :, None, None] + self._per_channel(op.add)
        return imported(op, *x)

    def _convolve(self, op: Conv | BinaryConv, x: Tensor) -> Tensor:
        if isinstance(op, Conv):
            x = pad_pixels(x, op.window.pads, torch.from_numpy(op.pad_value))
        else:
            x = framed(x, op.window, float(op.pad_value))
        window, weights = op.window, self._weights[op.name]
        acc = F.conv2d(planar(x), weights, None, window.stride, 0, window.dilation, op.groups)
        if isinstance(op, Conv):
            return acc + self._per_channel(op.add)
        if isinstance(op.epilogue, Threshold):
            return to_sign(acc - self._per_channel(op.epilogue.level)).to(self._dtype)
        if op.epilogue.is_clipped:
            acc = acc.clamp(*op.epilogue.limits(op.taps))
        return acc * self._per_channel(op.epilogue.mul) + self._per_channel(op.epilogue.add)

    def _average(self, window: Window, x: Tensor) -> Tensor:
        ones = torch.ones(x.shape[1], 1, *window.kernel, dtype=self._dtype)
        total = F.conv2d(
            framed(x, window), ones, None, window.stride, 0, window.dilation, x.shape[1]
        )
        return total / (window.kernel[0] * window.kernel[1])

    def logits(self, images: Images) -> Logits:
        found = self.trace(images)[self.program.ops[-1].name]
        return np.asarray(found[:, :, 0, 0].numpy(), dtype=np.float32)

    def signs(self, images: Images) -> dict[str, bits.Words]:
        values = self.trace(images)
        return {
            name: bits.pack(values[name].permute(0, 2, 3, 1).contiguous().numpy())
            for name in self._signs
        }

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_calls(lambda: self.trace(image), repeats)

    def close(self) -> None:
        """Nothing to release."""


def _weights(op: Op) -> NDArray[np.float32] | None:
    """Weights OHWI, or ``[O, C]``, of an op that has some."""
    if isinstance(op, BinaryConv):
        return bits.unpack(op.words, op.channels_in).astype(np.float32)
    return op.weights if isinstance(op, (Conv, Dense)) else None
