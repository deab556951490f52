"""A batch shared out to threads, in slices so short that Ctrl-C need not wait.

Python runs signal handlers between its own steps: a compiled call cannot be interrupted, and
everywhere else an exception may come up, also while the last one is dealt with. Two rules keep
every later answer right all the same. A thread computes in an arena of its own, which is never
handed on; and the results of a batch go to arrays that only this batch knows. What an interrupted
call leaves running can therefore ruin nothing, and it ends with its slice, because its batch is
no longer the current one.

Nothing here depends on a lock that an interrupted ``with`` has given back (Python 3.14 may keep
it): slices come from an iterator, and a lock that its own thread holds does not stop that thread.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import numpy as np
from numpy.typing import NDArray

Compute = Callable[[int, NDArray[np.uint8 | np.float32], NDArray[np.float32]], None]
"""Writes the logits of images, computed in the arena at an address."""


class Batch:
    """Images whose next slice goes to whoever asks first.

    Attributes:
        error: what went wrong in one of the threads, if anything.
    """

    def __init__(
        self,
        compute: Compute,
        images: NDArray[np.uint8 | np.float32],
        logits: NDArray[np.float32],
        slice_images: int,
    ) -> None:
        self.error: BaseException | None = None
        self._compute = compute
        self._images, self._logits = images, logits
        self._size = slice_images
        self._starts = iter(range(0, len(images), slice_images))

    def slices(self, arena: int) -> Iterator[None]:
        """Compute a slice in ``arena`` at each step, until none is left."""
        for first in self._starts:
            part = slice(first, first + self._size)
            self._compute(arena, self._images[part], self._logits[part])
            yield


class _Worker:
    """A thread with its arena.

    Attributes:
        arena: address, used under ``busy`` alone.
        inbox: batches to take part in; None ends the thread.
        busy: held while a batch is worked on.
    """

    def __init__(self, arena: int, serve: Callable[[_Worker], None]) -> None:
        self.arena = arena
        self.inbox: SimpleQueue[Batch | None] = SimpleQueue()
        self.busy = threading.RLock()
        self._thread = threading.Thread(target=serve, args=(self,), daemon=True)

    def wake(self, batch: Batch) -> None:
        """Ask for help with ``batch``; there is none where no thread can be started."""
        if not self._thread.is_alive():
            try:
                self._thread.start()
            except RuntimeError as error:  # the system's limits, or the interpreter is ending
                if not str(error).startswith(("can't", "thread")):
                    raise  # a signal handler's
        if self._thread.is_alive():
            self.inbox.put(batch)


class Workers:
    """The threads beside the calling one, started when they are first needed.

    They are daemons, so that they serve until the interpreter ends: handlers of ``atexit`` and
    threads that outlive the main one, too.
    """

    def __init__(self, arenas: Sequence[int]) -> None:
        self._workers = [_Worker(arena, self._serve) for arena in arenas]
        self._current: Batch | None = None

    def _serve(self, worker: _Worker) -> None:
        while (batch := worker.inbox.get()) is not None:
            with worker.busy:
                self._help(worker, batch)
            del batch  # it holds the caller's images

    def _help(self, worker: _Worker, batch: Batch) -> None:
        if self._current is not batch:
            return
        try:
            for _ in batch.slices(worker.arena):
                if self._current is not batch:
                    return
        except BaseException as error:
            batch.error = error

    def run(self, batch: Batch, arena: int) -> None:
        """Compute ``batch``, here in ``arena`` and in the threads; no slice outlasts the call."""
        self._current = batch
        try:
            for worker in self._workers:
                worker.wake(batch)
            for _ in batch.slices(arena):
                pass
        finally:
            self._current = None
            for worker in self._workers:
                with worker.busy:
                    pass
        if batch.error is not None:
            raise batch.error

    def dismiss(self) -> None:
        """End the threads."""
        for worker in self._workers:
            worker.inbox.put(None)
