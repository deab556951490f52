"""``torch``: the settled trained module itself, as a runtime that can be compared."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from frostbit.export.runtimes import Images, Logits, Milliseconds
from frostbit.kernels.ir import bits
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
    """uint8 or float32 ``[N, H, W, C]`` as numbers ``[N, C, H, W]``."""
    return planar(torch.from_numpy(images.transpose(0, 3, 1, 2)).to(dtype))


@torch.inference_mode()
def time_module(module: nn.Module, pixels: Tensor, repeats: int, threads: int) -> Milliseconds:
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
        recorder = _Recorder(self._gm, {node for node, _ in self._nodes.values()})
        with threads_of(self._threads):
            recorder.run(pixels_of(images))
        found = {}
        for name, (node, (height, width, channels)) in self._nodes.items():
            planes = recorder.kept[node].reshape(len(images), channels, height, width)
            found[name] = bits.pack(planes.permute(0, 2, 3, 1).contiguous().numpy())
        return found

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_module(self._gm, pixels_of(image), repeats, self._threads)

    def close(self) -> None:
        """Nothing to release."""
