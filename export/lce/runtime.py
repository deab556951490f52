"""Larq Compute Engine's genuine interpreter behind the interface of the other runtimes.

The interpreter runs in a worker process (:mod:`frostbit.export.lce.worker`) because it needs numpy
1 and because native code that crashes must not take the caller along: a worker that dies or answers
too late is an :class:`LceError`, never a hang.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from frostbit.export.errors import LceError
from frostbit.export.inputs import Images
from frostbit.export.lce import convert as to_lce
from frostbit.export.lce import environment as lce_environment
from frostbit.export.lce import worker as lce_worker
from frostbit.export.lce.graph import to_words
from frostbit.kernels.ir.bits import Words
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.reference import check_images

CHUNK = 16
"""Images or repeats per request: what the time limit covers, and bounds the memory."""


class Worker:
    """The worker process.

    Args:
        timeout: seconds allowed for each request.

    Raises:
        RuntimeMissing: where LCE's environment is absent.
        LceError: if its Python cannot be started.
    """

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        # -I: the caller's PYTHONPATH and user packages are not for this environment
        command = [str(lce_environment.require_python()), "-I", lce_worker.__file__]
        self._open = ExitStack()
        self._log = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115, see close
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._open.close()
            raise LceError(f"LCE's worker cannot start: {error}") from error
        self._requests = self._open.enter_context(cast(IO[bytes], self._process.stdin))
        self._replies = self._open.enter_context(cast(IO[bytes], self._process.stdout))

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def ask(self, header: lce_worker.Header, array: lce_worker.Array) -> list[lce_worker.Array]:
        """Send one request and return the arrays of its reply; raises LceError."""
        with self._deadline() as expired:
            try:
                lce_worker.send(self._requests, header, [array])
                answer, arrays = lce_worker.receive(self._replies)
            except (EOFError, OSError) as error:
                raise LceError(self._obituary(expired.is_set())) from error
        if "error" in answer:
            reason = (*self._logged("ERROR"), str(answer["error"]))[0]  # native code says more
            raise LceError(f"LCE: {' '.join(reason.split())}")
        return arrays

    @contextmanager
    def _deadline(self) -> Iterator[threading.Event]:
        """Kill the worker after the time limit: its pipes then end and nothing waits."""
        expired = threading.Event()

        def expire() -> None:
            expired.set()
            self._process.kill()

        timer = threading.Timer(self._timeout, expire)
        timer.start()
        try:
            yield expired
        finally:
            timer.cancel()

    def _obituary(self, expired: bool) -> str:
        code = self._process.wait()
        if expired:
            return f"LCE gave no answer within {self._timeout:g} s"
        if code < 0:
            return f"LCE crashed its worker process ({signal.Signals(-code).name})"
        reason = ("no message", *self._logged(""))[-1]
        return f"LCE's worker ended with status {code}: {reason}"

    def _logged(self, start: str) -> list[str]:
        """The lines beginning with ``start`` that the worker wrote to stderr."""
        log = self._log.fileno()  # pread: the worker shares the file's position
        lines = os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace").splitlines()
        return [line for line in lines if line.strip() and line.startswith(start)]

    def close(self) -> None:
        """End the process; safe to call again."""
        self._process.kill()
        self._process.wait()
        with suppress(OSError):  # a request that the dead worker never took
            self._requests.close()
        self._open.close()


class LceRuntime:
    """Our ``model.tflite`` in LCE's own interpreter.

    Args:
        program: the Program the file was made from (for the debug form that shows signs).
        kernel: ``default``, ``indirect`` (its fastest on x86) or ``reference``.
        tflite: the shipped bytes; converted from ``program`` if None.
        timeout: seconds allowed for one request of at most CHUNK runs.
        threads: of the interpreter.

    Raises:
        RuntimeMissing: where LCE's environment is absent.
        LceError: if LCE refuses the file; later also if it crashes or hangs.
        ExportError: if ``program`` cannot be expressed (only when ``tflite`` is None).
    """

    def __init__(
        self,
        program: Program,
        kernel: str = "default",
        tflite: bytes | None = None,
        timeout: float = 120.0,
        threads: int = 1,
    ) -> None:
        if kernel not in lce_worker.KERNELS:
            known = ", ".join(lce_worker.KERNELS)
            raise ValueError(f"LCE has no kernel '{kernel}'; choose one of {known}")
        self.program = program
        self.name = f"lce:{kernel}"
        self._kernel, self._threads = kernel, threads
        self._has_debug = False
        shipped = to_lce.convert(program) if tflite is None else tflite
        self.size_bytes = len(shipped)
        self._worker = Worker(timeout)
        try:
            self._load("shipped", shipped)
        except BaseException:
            self.close()
            raise

    def _load(self, name: str, tflite: bytes) -> None:
        header = lce_worker.Header(
            op="load", model=name, kernel=self._kernel, threads=self._threads
        )
        self._worker.ask(header, np.frombuffer(tflite, np.uint8))

    def logits(self, images: Images) -> NDArray[np.float32]:
        """Logits float32 ``[N, classes]`` of ``[N, H, W, C]``, one image at a time."""
        return np.asarray(self._run("shipped", images)[0], np.float32)

    def signs(self, images: Images) -> dict[str, Words]:
        """Every ``bits`` value by op name, uint64 ``[N, H, W, ceil(C/64)]``, of the debug form."""
        if not self._has_debug:
            self._load("debug", to_lce.convert(self.program, debug=True))
            self._has_debug = True
        outputs = self._run("debug", images)[1:]
        names = to_lce.sign_names(self.program)
        return {
            name: to_words(np.asarray(each, np.int32))
            for name, each in zip(names, outputs, strict=True)
        }

    def _run(self, model: str, images: Images) -> list[lce_worker.Array]:
        check_images(images, self.program)
        chunks = [
            self._worker.ask({"op": "run", "model": model}, images[start : start + CHUNK])
            for start in range(0, len(images), CHUNK)
        ]
        return [np.concatenate(column) for column in zip(*chunks, strict=True)]

    def latency(self, image: Images, repeats: int) -> NDArray[np.float64]:
        """Milliseconds of ``repeats`` runs, measured inside the worker.

        The file has batch 1: of several images the first is run as often as there are images.
        """
        check_images(image, self.program)
        times = [np.empty(0)]
        runs = repeats * len(image)
        for start in range(0, runs, CHUNK):
            count = min(CHUNK, runs - start)
            header = lce_worker.Header(op="time", model="shipped", repeats=count)
            times += [np.asarray(each, np.float64) for each in self._worker.ask(header, image[:1])]
        return np.asarray(np.concatenate(times).reshape(repeats, len(image)).sum(axis=1))

    def close(self) -> None:
        """End the worker process."""
        self._worker.close()
