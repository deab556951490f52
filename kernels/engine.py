"""The engine: runs a Program on images, from Python, on one CPU.

>>> engine = load("model.bnn")
>>> logits = engine.run(images)  # uint8 [N, H, W, C] -> float32 [N, classes]

A plan (:mod:`frostbit.kernels.plan.plan`) is made once; compiled code walks its op table for every
image over one preallocated arena. Results do not depend on batch size or thread count, and are
bit-identical to :mod:`frostbit.kernels.ir.reference` where :mod:`frostbit.kernels.ir.exact` proves
the Program exact. An exception in the middle of a call (Ctrl-C, a signal handler's) takes effect
within a slice of the batch and spoils no later answer: :mod:`frostbit.kernels.machine.workers`.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: compiled functions have no annotations

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.file import Source, dumps, load_program, loads
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.reference import check_images
from frostbit.kernels.loops.steps import step
from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.jit import entry
from frostbit.kernels.machine.settings import blaming_numba_settings
from frostbit.kernels.machine.workers import Batch, Workers
from frostbit.kernels.micro.vector import copy
from frostbit.kernels.plan.arena import Layout, allocate
from frostbit.kernels.plan.plan import make_plan

Images = NDArray[np.uint8 | np.float32]
Logits = NDArray[np.float32]
SLICE_SECONDS = 0.025
"""Longest compiled call that is aimed at: an eighth of what Ctrl-C may wait, for machines that slow
down, and many hundred times what a call from Python costs."""


@entry
def run_plan(table, arena, constants, result, images, logits):  # type: ignore[no-untyped-def]
    """Run the op table on every image.

    ``table`` int64 [steps, COLUMNS], ``images`` uint8 [N, H, W, C] (of float images their bytes, so
    that one type is compiled for), ``logits`` float32 [N, classes], all contiguous; ``arena`` and
    ``constants`` are addresses, ``result`` the offset of the logits in the arena.
    """
    image_bytes = images.size // max(1, images.shape[0])
    logit_bytes = logits.shape[1] * 4
    for n in range(images.shape[0]):
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

    A copy, and what another process unpickles, is made anew from the model's bytes.

    Attributes:
        program: what it runs.
        input_shape: ``(H, W, C)`` of one image.
        classes: one name per logit.
        kernel: name of the micro-kernel (``FROSTBIT_KERNEL`` overrides the choice).
        peak_bytes: working memory of all threads together, in bytes, weights excluded.

    Source: ``docs/engine.md`` describes the kernels and their records.
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

        Args:
            program: any Program.
            threads: how many images are computed at once; one image uses one thread.
            keep: give every value its own memory, which :meth:`signs` needs.
            kernel: micro-kernel; the default is ``FROSTBIT_KERNEL``, else the CPU's best.
            narrow: whether residual streams may take 16 bits
                (:mod:`frostbit.kernels.plan.int16_streams`); no bit of any result depends on it.

        Raises:
            FormatError: if the Program is malformed or an op has no rule here.
            SettingError: (a ValueError) if the micro-kernel is unknown or not for this CPU, or
                Numba's settings keep it from compiling.
            ValueError: if ``threads`` is less than 1.
        """
        if threads < 1:
            raise ValueError(f"threads must be at least 1, got {threads}")
        self.program = program
        self.input_shape = program.input_shape
        self.classes = program.classes
        self.kernel = cpu.chosen_kernel(kernel)
        self._arguments = (threads, keep, kernel, narrow)
        self._keep = keep
        self._plan = make_plan(program, self.kernel, not keep, narrow)
        self._arenas = [allocate(self._plan.arena_bytes) for _ in range(threads)]
        self.peak_bytes = threads * self._plan.arena_bytes
        self._constants = self._plan.constants.ctypes.data
        self._here = self._arenas[0].ctypes.data
        self._seconds = 0.0  # that an image of a batch took last; 0 if none was run yet
        self._begin()
        _ENGINES.add(self)
        self._compile()

    def _begin(self) -> None:
        """Lock and threads, which belong to one process: a forked child makes its own."""
        self._lock = threading.RLock()  # a signal handler may run this engine, too
        self._workers = Workers([arena.ctypes.data for arena in self._arenas[1:]])
        weakref.finalize(self, self._workers.dismiss).atexit = False

    def _compile(self) -> None:
        """Make the first call, on no image."""
        dtype = np.uint8 if self.program.input_kind == "u8" else np.float32
        images, logits = self._buffers(np.zeros((1, *self.input_shape), dtype))
        with blaming_numba_settings(
            "the engine cannot be compiled", ValueError, RuntimeError, FileNotFoundError
        ):
            self._call(self._here, images[:0], logits[:0])

    def __reduce__(self) -> tuple[Callable[..., Engine], tuple[bytes, int, bool, str, bool]]:
        """For ``copy`` and ``pickle``: the model's bytes and the arguments."""
        return _engine_of, (dumps(self.program), *self._arguments)

    def _buffers(self, images: Images) -> tuple[Images, Logits]:
        """``images``, checked, as a plain array, and room for their logits."""
        check_images(images, self.program)
        return np.asarray(images), np.empty((len(images), len(self.classes)), np.float32)

    def _call(
        self, arena: int, images: Images, logits: Logits, table: NDArray[np.int64] | None = None
    ) -> None:
        """Run ``table`` (the whole plan) on ``images`` in the arena at this address."""
        if not (images.flags.c_contiguous and images.flags.writeable):
            images = images.copy("C")  # one type to compile for
        plan = self._plan
        run_plan(
            plan.table if table is None else table,
            arena,
            self._constants,
            plan.result,
            images.view(np.uint8),
            logits,
        )

    def _call_timed(self, arena: int, images: Images, logits: Logits) -> None:
        """Run ``images`` and learn how long one takes."""
        start = time.perf_counter()
        self._call(arena, images, logits)
        self._seconds = (time.perf_counter() - start) / len(images)

    def _slice_images(self) -> int:
        """Images that one compiled call may take; 1 as long as nothing is known."""
        return max(1, int(SLICE_SECONDS / self._seconds)) if self._seconds else 1

    def run(self, images: Images) -> NDArray[np.float32]:
        """Logits float32 ``[N, classes]`` of ``images`` ``[N, H, W, C]``.

        Args:
            images: uint8, or float32 if the Program's ``input_kind`` says so.

        Raises:
            ValueError: if ``images`` has another dtype or shape, or is a subclass of an array
                that can mean more (a masked array).
        """
        images, logits = self._buffers(images)
        with self._lock:
            if len(images) == 1:
                self._call(self._here, images, logits)
            else:
                self._run_batch(images, logits)
        return logits

    def _run_batch(self, images: Images, logits: Logits) -> None:
        """Run several images, slice by slice, in all threads."""
        done = 0 if self._seconds else 1
        if done:
            self._call_timed(self._here, images[:done], logits[:done])
        share = -(-(len(images) - done) // len(self._arenas))
        size = min(share, self._slice_images())
        batch = Batch(self._call_timed, images[done:], logits[done:], size)
        self._workers.run(batch, self._here)

    @property
    def steps(self) -> tuple[str, ...]:
        """Name of the op whose work each step of the plan does."""
        return self._plan.ops

    def time_steps(self, first: int, stop: int, images: Images) -> float:
        """Seconds that steps ``first`` to ``stop - 1`` take for ``images``.

        They find what the last run left in memory; :mod:`frostbit.kernels.profile` is made of this.
        A batch that fills no slice of a run is one call.

        Raises:
            ValueError: if ``images`` is wrong.
        """
        images, logits = self._buffers(images)
        table = np.ascontiguousarray(self._plan.table[first:stop])
        with self._lock:
            size = self._slice_images()
            parts = [slice(at, at + size) for at in range(0, len(images), size)]
            start = time.perf_counter()
            for part in parts:
                self._call(self._here, images[part], logits[part], table)
            return time.perf_counter() - start

    def signs(self, images: Images) -> dict[str, bits.Words]:
        """Every ``bits`` value by op name, uint64 ``[N, H, W, ceil(C / 64)]``.

        Raises:
            ValueError: if ``images`` is wrong, or the engine was made without ``keep=True``.
        """
        if not self._keep:
            raise ValueError("intermediate values are not kept: make the engine with keep=True")
        images, logits = self._buffers(images)
        found: dict[str, list[bits.Words]] = {name: [] for name in self._plan.bits}
        arena = allocate(self._plan.arena_bytes)  # its own: read after the call that wrote it
        for n in range(len(images)):
            self._call(arena.ctypes.data, images[n : n + 1], logits[n : n + 1])
            for name, (offset, layout) in self._plan.bits.items():
                found[name].append(_canonical(arena, offset, layout))
        return {name: np.stack(maps) for name, maps in found.items()}


def _engine_of(data: bytes, threads: int, keep: bool, kernel: str, narrow: bool) -> Engine:
    """The engine that :meth:`Engine.__reduce__` describes."""
    return Engine(loads(data), threads=threads, keep=keep, kernel=kernel, narrow=narrow)


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_ENGINES):
        engine._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def load(model: Source, *, threads: int = 1) -> Engine:
    """Engine for a packed model: uint8 ``[N, H, W, C]`` or floats -> float32 ``[N, classes]``.

    Source: the layout of the file is described in ``docs/formats.md``.

    Args:
        model: path of a ``model.bnn`` (text or path-like), its bytes, or a file opened for
            reading in binary mode.
        threads: how many images are computed at once.

    Raises:
        FormatError: if the file is damaged or not a model.
        OSError: if it cannot be read.
        SettingError: (a ValueError) if the environment keeps the engine from running.
        TypeError: if ``model`` is nothing of this.
        ValueError: if ``threads`` is less than 1.
    """
    return Engine(load_program(model), threads=threads)
