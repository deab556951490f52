"""The engine: runs a Program on images, from Python, on one CPU.

>>> engine = load("model.bnn")
>>> logits = engine.run(images)  # uint8 [N, H, W, C] -> float32 [N, classes]

A plan (:mod:`frostbit.kernels.plan.plan`) is made once; compiled code walks its op table for every
image over one preallocated arena, or several threads walk it together for one image. Results do
not depend on batch size or thread count, and are bit-identical to
:mod:`frostbit.kernels.ir.reference` where :mod:`frostbit.kernels.ir.exact` proves the Program
exact. An exception in the middle of a call (Ctrl-C, a signal handler's) takes effect within a slice
of the batch and spoils no later answer: it comes up between compiled calls, when nothing is being
computed.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: compiled functions have no annotations

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits, html
from frostbit.kernels.ir.file import Source, dumps, load_program, loads
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.reference import check_images
from frostbit.kernels.loops.run import CALLER, RING, run_plan
from frostbit.kernels.machine import board as b
from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.settings import blaming_numba_settings
from frostbit.kernels.machine.team import Serve, Team
from frostbit.kernels.machine.threads import Threads, chosen_threads
from frostbit.kernels.micro.atomics import HAS_FUTEX
from frostbit.kernels.micro.products import Products, products_of
from frostbit.kernels.plan.arena import Layout, allocate
from frostbit.kernels.plan.plan import make_plan
from frostbit.kernels.plan.shares import Shares, best_shares

Images = NDArray[np.uint8 | np.float32]
Logits = NDArray[np.float32]
SLICE_SECONDS = 0.025
"""Longest compiled call that is aimed at: an eighth of what Ctrl-C may wait, for machines that slow
down, and many hundred times what a call from Python costs."""


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
        threads: how many threads it may use.
        peak_bytes: working memory of all threads together, in bytes, weights excluded.

    Source: ``docs/engine.md`` describes the kernels and their records.
    """

    def __init__(
        self,
        program: Program,
        *,
        threads: Threads = None,
        keep: bool = False,
        kernel: str = "",
        narrow: bool = True,
    ) -> None:
        """Plan ``program`` and compile the engine if no cached code is found.

        Args:
            program: any Program.
            threads: most threads to use, 1 to 256, or "auto" for one a core (of those that
                affinity and control groups leave to this process); the default is
                ``FROSTBIT_ENGINE_THREADS``, else 1. Of a batch each computes images of its own;
                one image is cut for as many as make it faster, and no more than there are cores.
            keep: give every value its own memory, which :meth:`signs` needs.
            kernel: micro-kernel; the default is ``FROSTBIT_KERNEL``, else the CPU's best.
            narrow: whether residual streams may take 16 bits
                (:mod:`frostbit.kernels.plan.int16_streams`); no bit of any result depends on it.

        Raises:
            FormatError: if the Program is malformed or an op has no rule here.
            SettingError: (a ValueError) if the micro-kernel is unknown or not for this CPU,
                ``FROSTBIT_ENGINE_THREADS`` is no such number, or Numba's settings keep it from
                compiling.
            ValueError: if ``threads`` is none of this.
        """
        self.threads = chosen_threads(threads)
        self.program = program
        self.input_shape = program.input_shape
        self.classes = program.classes
        self.kernel = cpu.chosen_kernel(kernel)
        self._arguments = (threads, keep, kernel, narrow)
        self._keep = keep
        self._plan = make_plan(program, self.kernel, not keep, narrow)
        rows: list[list[int]] = self._plan.table.tolist()
        self._shares = best_shares(rows, min(self.threads, cpu.available_cores()))
        self._arenas = [allocate(self._plan.arena_bytes) for _ in range(self.threads)]
        self.peak_bytes = self.threads * self._plan.arena_bytes
        dtype = np.uint8 if program.input_kind == "u8" else np.float32
        images, logits = self._buffers(np.zeros((1, *self.input_shape), dtype))
        self._nothing = images[:0].view(np.uint8), logits[:0]
        self._seconds = 0.0  # that an image of a batch took last; 0 if none was run yet
        self._begin()
        _ENGINES.add(self)
        self._compile()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        rows = [
            ("input", f"{' x '.join(map(str, self.input_shape))}, {self.program.input_kind}"),
            ("classes", html.some(self.classes)),
            ("micro-kernel", self.kernel),
            ("threads", self.threads),
            ("working memory", f"{self.peak_bytes:,} bytes"),
        ]
        return html.table("Engine", rows)

    def _begin(self) -> None:
        """Lock, board and threads, which belong to one process: a forked child makes its own."""
        self._lock = threading.RLock()  # a signal handler may run this engine, too
        arenas = [arena.ctypes.data for arena in self._arenas]
        self._board = self._new_board(self._plan.table, arenas, self._shares)
        kept = (self._plan, self._arenas, self._shares)
        self._team = Team(self._board, _server(self._board, *self._nothing, kept), RING)
        weakref.finalize(self, self._team.dismiss).atexit = False

    def _new_board(
        self, table: NDArray[np.int64], arenas: list[int], shares: Shares | None = None
    ) -> NDArray[np.int64]:
        """A board for these arenas; without ``shares`` an image is not cut."""
        images, logits = self._nothing
        values = {
            b.TABLE: table.ctypes.data,
            b.ROWS: len(table),
            b.CONSTANTS: self._plan.constants.ctypes.data,
            b.RESULT: self._plan.result,
            b.SPLITS: 1,
            b.IMAGE_BYTES: images.strides[0],
            b.LOGIT_BYTES: logits.strides[0],
            b.SLEEPS: int(HAS_FUTEX),
        }
        if shares is not None:
            values |= {
                b.SPLITS: shares.threads,
                b.CHUNKS: shares.chunks.ctypes.data,
                b.UNITS: shares.units.ctypes.data,
                b.PHASES: shares.phases.ctypes.data,
                b.PHASE_COUNT: len(shares.phases) - 1,
            }
        return b.make_board(values, arenas, 0 if shares is None else len(shares.units) - 1)

    def _compile(self) -> None:
        """Make the first call, on no image."""
        with blaming_numba_settings(
            "the engine cannot be compiled", ValueError, RuntimeError, FileNotFoundError
        ):
            run_plan(self._board, CALLER, *self._nothing)

    def __reduce__(self) -> tuple[Callable[..., Engine], tuple[bytes, Threads, bool, str, bool]]:
        """For ``copy`` and ``pickle``: the model's bytes and the arguments."""
        return _engine_of, (dumps(self.program), *self._arguments)

    def _buffers(self, images: Images) -> tuple[Images, Logits]:
        """``images``, checked, as a plain array, and room for their logits."""
        check_images(images, self.program)
        return np.asarray(images), np.empty((len(images), len(self.classes)), np.float32)

    def _call(self, images: Images, logits: Logits, board: NDArray[np.int64] | None = None) -> None:
        """Run ``images`` by the engine's board, or another one."""
        if not (images.flags.c_contiguous and images.flags.writeable):
            images = images.copy("C")  # one type to compile for
        run_plan(self._board if board is None else board, CALLER, images.view(np.uint8), logits)

    def _call_timed(self, images: Images, logits: Logits) -> None:
        """Run ``images`` and learn how long one takes."""
        start = time.perf_counter()
        self._call(images, logits)
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
                self._team.wake(self._shares.threads)
                self._call(images, logits)
            else:
                self._run_batch(images, logits)
        return logits

    def _run_batch(self, images: Images, logits: Logits) -> None:
        """Run several images, slice by slice, in all threads."""
        done = 0
        while done < len(images):
            self._team.wake(self.threads)
            part = slice(done, done + self._slice_images())
            self._call_timed(images[part], logits[part])
            done = min(part.stop, len(images))

    @property
    def steps(self) -> tuple[str, ...]:
        """Name of the op whose work each step of the plan does."""
        return self._plan.ops

    def products(self, step: int) -> Products | None:
        """How step number ``step`` multiplies integers; None if it does not."""
        return products_of(self._plan.table[step].tolist())

    def time_steps(self, first: int, stop: int, images: Images) -> float:
        """Seconds that steps ``first`` to ``stop - 1`` take for ``images``.

        They find what the last run left in memory; :mod:`frostbit.kernels.profile` is made of this.
        A batch that fills no slice of a run is one call.

        Raises:
            ValueError: if ``images`` is wrong.
        """
        images, logits = self._buffers(images)
        table = np.ascontiguousarray(self._plan.table[first:stop])
        board = self._new_board(table, [self._arenas[0].ctypes.data])
        with self._lock:
            size = self._slice_images()
            parts = [slice(at, at + size) for at in range(0, len(images), size)]
            start = time.perf_counter()
            for part in parts:
                self._call(images[part], logits[part], board)
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
        board = self._new_board(self._plan.table, [arena.ctypes.data])
        for n in range(len(images)):
            self._call(images[n : n + 1], logits[n : n + 1], board)
            for name, (offset, layout) in self._plan.bits.items():
                found[name].append(_canonical(arena, offset, layout))
        return {name: np.stack(maps) for name, maps in found.items()}


def _server(board: NDArray[np.int64], images: Images, logits: Logits, kept: object) -> Serve:
    """How another thread serves; it holds on to what the board's addresses mean by ``kept``."""

    def serve(number: int) -> None:
        run_plan(board, number, images, logits)

    serve.kept = kept  # type: ignore[attr-defined]
    return serve


def _engine_of(data: bytes, threads: Threads, keep: bool, kernel: str, narrow: bool) -> Engine:
    """The engine that :meth:`Engine.__reduce__` describes."""
    return Engine(loads(data), threads=threads, keep=keep, kernel=kernel, narrow=narrow)


_ENGINES: weakref.WeakSet[Engine] = weakref.WeakSet()


def _after_fork() -> None:
    for engine in list(_ENGINES):
        engine._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@atexit.register
def _at_exit() -> None:
    """No thread may run compiled code while the interpreter takes it down."""
    for engine in list(_ENGINES):
        engine._team.leave()


def load(model: Source, *, threads: Threads = None) -> Engine:
    """Engine for a packed model: uint8 ``[N, H, W, C]`` or floats -> float32 ``[N, classes]``.

    Source: the layout of the file is described in ``docs/formats.md``.

    Args:
        model: path of a ``model.bnn`` (text or path-like), its bytes, or a file opened for
            reading in binary mode.
        threads: most threads to use, or "auto": see :class:`Engine`.

    Raises:
        FormatError: if the file is damaged or not a model.
        OSError: if it cannot be read.
        SettingError: (a ValueError) if the environment keeps the engine from running.
        TypeError: if ``model`` is nothing of this.
        ValueError: if ``threads`` is not 1 to 256 or "auto".
    """
    return Engine(load_program(model), threads=threads)
