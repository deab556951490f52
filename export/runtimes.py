"""One interface over everything that can run a packed model.

Names (tables, JSON, options): ``reference``, ``engine`` (``engine:<kernel>``), ``ort``
(``ort:disabled|basic|extended``), ``lce:default|indirect|reference``, ``torch``; peers of the
same architecture: ``ort-fp32``, ``torch-fp32``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from frostbit.export.inputs import Images as Images
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.bits import Words
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.verify import infer_types

Logits = NDArray[np.float32]
Milliseconds = NDArray[np.float64]


class Timed(Protocol):
    """What the benchmark asks of everything it times, full-precision twins included."""

    @property
    def name(self) -> str:
        """Name as in tables, e.g. ``lce:indirect``."""
        ...

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        """Time ``repeats`` runs of a batch ``[N, H, W, C]``; milliseconds each.

        A runtime whose model has batch 1 runs the images one after the other.
        """
        ...

    def close(self) -> None:
        """Release processes and memory."""
        ...


@runtime_checkable
class Runtime(Timed, Protocol):
    """A runtime that runs the packed model itself, and so can be compared with the reference."""

    def logits(self, images: Images) -> Logits:
        """Logits float32 ``[N, classes]`` of ``[N, H, W, C]``, from the shipped bytes."""
        ...

    def signs(self, images: Images) -> dict[str, Words]:
        """Every ``bits`` value of the Program by op name, uint64 ``[N, H, W, ceil(C/64)]``.

        Where a runtime hides intermediate values this runs a debug form of the same graph,
        written by the same builder.
        """
        ...


class ReferenceRuntime:
    """The NumPy definition itself; slow, never a competitor."""

    name = "reference"

    def __init__(self, program: Program) -> None:
        self.program = program

    def logits(self, images: Images) -> Logits:
        return reference.run(self.program, images)

    def signs(self, images: Images) -> dict[str, Words]:
        values, types = reference.trace(self.program, images), infer_types(self.program)
        names = [op.name for op in self.program.ops if types[op.name].kind == "bits"]
        return {name: bits.pack(values[name]) for name in names}

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_calls(lambda: reference.run(self.program, image), repeats)

    def close(self) -> None:
        """Nothing to release."""


class EngineRuntime:
    """Our Numba engine; its name carries the micro-kernel, e.g. ``engine:xnor``."""

    def __init__(self, program: Program, threads: int = 1, kernel: str = "") -> None:
        self._engine = Engine(program, threads=threads, kernel=kernel)
        self._keeping: Engine | None = None
        self.name = f"engine:{self._engine.kernel}"

    def logits(self, images: Images) -> Logits:
        return self._engine.run(images)

    def signs(self, images: Images) -> dict[str, Words]:
        if self._keeping is None:
            # a second plan: the timed one reuses buffers and hides fused signs
            kernel = self._engine.kernel
            self._keeping = Engine(self._engine.program, keep=True, kernel=kernel)
        return self._keeping.signs(images)

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_calls(lambda: self._engine.run(image), repeats)

    def close(self) -> None:
        """Nothing to release."""


def time_calls(call: Callable[[], object], repeats: int) -> Milliseconds:
    """Milliseconds of ``repeats`` calls, each timed alone."""
    times = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter_ns()
        call()
        times[i] = (time.perf_counter_ns() - start) / 1e6
    return times
