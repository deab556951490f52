"""The engine: runs a Program on uint8 images, from Python, on one CPU.

>>> engine = load("model.bnn")
>>> logits = engine.run(images)  # uint8 [N, H, W, C] -> float32 [N, classes]

A plan (:mod:`frostbit.kernels.plan.plan`) is made once; a run is one call into compiled code, which
walks the op table for every image over one preallocated arena. Results do not depend on batch size
or thread count, and are bit-identical to :mod:`frostbit.kernels.ir.reference` where
:mod:`frostbit.kernels.ir.exact` proves the Program exact.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: compiled functions have no annotations

from __future__ import annotations

import os
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.file import load_program
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.reference import check_images
from frostbit.kernels.loops.steps import step
from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.jit import entry
from frostbit.kernels.micro.vector import copy
from frostbit.kernels.plan.arena import Layout, allocate
from frostbit.kernels.plan.plan import make_plan

Images = NDArray[np.uint8]
Logits = NDArray[np.float32]


@entry
def run_plan(table, arena, constants, result, images, logits, first, stop):  # type: ignore[no-untyped-def]
    """Run the op table on images ``first`` to ``stop - 1``.

    ``table`` int64 [steps, COLUMNS], ``images`` uint8 [N, H, W, C], ``logits`` float32
    [N, classes], all contiguous; ``arena`` and ``constants`` are addresses, ``result`` the
    offset of the logits in the arena.
    """
    image_bytes = images.size // max(1, images.shape[0])
    logit_bytes = logits.shape[1] * 4
    for n in range(first, stop):
        image = images.ctypes.data + n * image_bytes
        for i in range(table.shape[0]):
            step(table.ctypes.data + i * (table.shape[1] * 8), arena, constants, image)
        copy(logits.ctypes.data + n * logit_bytes, arena + result, logit_bytes)


def _canonical(arena: NDArray[np.uint8], offset: int, layout: Layout) -> bits.Words:
    """Copy a bits map out of the arena: uint64 ``[H, W, ceil(C / 64)]``."""
    top, left, _, _ = layout.margins
    height, width = layout.size
    whole = arena[offset : offset + layout.bytes].view("<u4")
    words = whole.reshape(-1, layout.row // layout.pixel, layout.pixel // 4)
    inside = words[top : top + height, left : left + width]
    even = np.pad(inside, [(0, 0), (0, 0), (0, inside.shape[2] % 2)])
    return np.ascontiguousarray(even).view("<u8").astype(np.uint64, copy=False)


class Engine:
    """A Program ready to run. Safe to share between Python threads: calls take turns.

    Attributes:
        program: what it runs.
        input_shape: ``(H, W, C)`` of one image.
        classes: one name per logit.
        kernel: name of the micro-kernel (``FROSTBIT_KERNEL`` overrides the choice).
        peak_bytes: working memory of all threads together, in bytes, weights excluded.
    """

    def __init__(
        self,
        program: Program,
        *,
        threads: int = 1,
        keep: bool = False,
        kernel: str = "",
        narrow: bool = True,
    ) -> None:
        """Plan ``program`` and compile the engine if no cached code is found.

        Args: program: any Program. threads: how many images are computed at once; one image uses
            one thread. keep: give every value its own memory, which :meth:`signs` needs. kernel:
            micro-kernel; the default is ``FROSTBIT_KERNEL``, else the CPU's best. narrow: whether
            residual streams may take 16 bits (:mod:`frostbit.kernels.plan.int16_streams`); no bit
                of any result depends on it.

        Raises:
            FormatError: if the Program is malformed or an op has no rule here.
            ValueError: if ``threads`` is less than 1, or the micro-kernel unknown or not for
                this CPU.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.program = program
        self.input_shape = program.input_shape
        self.classes = program.classes
        self.kernel = cpu.chosen_kernel(kernel)
        self._keep = keep
        self._plan = make_plan(program, self.kernel, not keep, narrow)
        self._arenas = [allocate(self._plan.arena_bytes) for _ in range(threads)]
        self.peak_bytes = threads * self._plan.arena_bytes
        self._begin()
        _ENGINES.add(self)
        self._addresses = [arena.ctypes.data for arena in self._arenas]
        self._constants = self._plan.constants.ctypes.data
        self._call(0, *self._buffers(np.zeros((1, *self.input_shape), np.uint8)), 0, 0)

    def _begin(self) -> None:
        """Lock and threads, which belong to one process: a forked child makes its own."""
        threads = len(self._arenas)
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads) if threads > 1 else None

    def _buffers(self, images: Images) -> tuple[Images, Logits]:
        """``images``, checked, contiguous and writeable (one type to compile for), and logits."""
        check_images(images, self.input_shape)
        if not (images.flags.c_contiguous and images.flags.writeable):
            images = images.copy()
        return images, np.empty((len(images), len(self.classes)), np.float32)

    def _call(
        self,
        worker: int,
        images: Images,
        logits: Logits,
        first: int,
        stop: int,
        table: NDArray[np.int64] | None = None,
    ) -> None:
        """Run ``table`` (the whole plan) on images ``first`` to ``stop - 1`` in one arena."""
        plan = self._plan
        run_plan(
            plan.table if table is None else table,
            self._addresses[worker],
            self._constants,
            plan.result,
            images,
            logits,
            first,
            stop,
        )

    def run(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits float32 ``[N, classes]`` of uint8 ``images`` ``[N, H, W, C]``.

        Raises:
            ValueError: if ``images`` has another dtype or shape.
        """
        images, logits = self._buffers(images)
        count = len(images)
        with self._lock:
            if self._pool is None or count == 1:
                self._call(0, images, logits, 0, count)
            else:
                self._run_parts(images, logits)
        return logits

    def _run_parts(self, images: Images, logits: Logits) -> None:
        """Split the images evenly over the workers."""
        assert self._pool is not None
        workers = len(self._arenas)
        cuts = [len(images) * i // workers for i in range(workers + 1)]
        jobs = [
            self._pool.submit(self._call, i, images, logits, cuts[i], cuts[i + 1])
            for i in range(workers)
        ]
        for job in jobs:
            job.result()

    @property
    def steps(self) -> tuple[str, ...]:
        """Name of the op whose work each step of the plan does."""
        return self._plan.ops

    def time_steps(self, first: int, stop: int, images: NDArray[np.uint8]) -> float:
        """Seconds that steps ``first`` to ``stop - 1`` take for ``images``, in one call.

        They find what the last run left in memory; :mod:`frostbit.kernels.profile` is made of this.

        Raises:
            ValueError: if ``images`` is wrong.
        """
        images, logits = self._buffers(images)
        table = np.ascontiguousarray(self._plan.table[first:stop])
        with self._lock:
            start = time.perf_counter()
            self._call(0, images, logits, 0, len(images), table)
            return time.perf_counter() - start

    def signs(self, images: NDArray[np.uint8]) -> dict[str, bits.Words]:
        """Every ``bits`` value by op name, uint64 ``[N, H, W, ceil(C / 64)]``.

        Raises:
            ValueError: if ``images`` is wrong, or the engine was made without ``keep=True``.
        """
        if not self._keep:
            raise ValueError("intermediate values are not kept: make the engine with keep=True")
        images, logits = self._buffers(images)
        found: dict[str, list[bits.Words]] = {name: [] for name in self._plan.bits}
        with self._lock:
            for n in range(len(images)):
                self._call(0, images, logits, n, n + 1)
                for name, (offset, layout) in self._plan.bits.items():
                    found[name].append(_canonical(self._arenas[0], offset, layout))
        return {name: np.stack(maps) for name, maps in found.items()}


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_ENGINES):
        engine._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def load(path: str | os.PathLike[Any], *, threads: int = 1) -> Engine:
    """Engine for the packed model at ``path`` (``model.bnn``).

    Args:
        path: file written by ``pipeline pack``.
        threads: how many images are computed at once.

    Raises:
        FormatError: if the file is damaged or not a model.
        OSError: if it cannot be read.
    """
    return Engine(load_program(Path(path)), threads=threads)
