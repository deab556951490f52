"""The threads beside the calling one: each serves within compiled code, without Python's lock.

They are started when they are first needed and are daemons, so that they serve until the
interpreter ends: handlers of ``atexit`` and threads that outlive the main one, too. No result
depends on them (:mod:`frostbit.kernels.machine.board`): one that cannot be started, or is gone, is
not waited for.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.machine import board as b

Serve = Callable[[int], None]
"""Serve as the thread of this number until the board is closed, or nothing has come for long."""
LEAVE_SECONDS = 2.0


class _Helper:
    """A thread.

    Attributes:
        gate: locked while the thread need not look for a job; a lock that one opens and the other
            passes, so that no exception in between leaves it in a state that stops anyone.
    """

    def __init__(self, number: int, board: NDArray[np.int64], serve: Serve) -> None:
        self._number, self._board, self._serve = number, board, serve
        self.gate = threading.Lock()
        self.gate.acquire()
        self._begin()

    def _begin(self) -> None:
        """A thread object, which starts once: never do two threads serve under one number."""
        self._ended = False
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            while not self._board[b.CLOSED]:
                self.gate.acquire()
                self._serve(self._number)
        finally:
            self._ended = True

    def open(self) -> None:
        if self.gate.locked():
            self.gate.release()

    def wake(self) -> None:
        """See to it that the thread looks for jobs, if it can be started."""
        if self._ended:  # by an error
            self._begin()
        if not self.thread.is_alive():
            try:
                self.thread.start()
            except RuntimeError as error:  # the system's limits, or the interpreter is ending
                if not str(error).startswith(("can't", "thread")):
                    raise  # a signal handler's
        self.open()


class Team:
    """The other threads of one engine.

    Args:
        board: which they share with the caller.
        serve: what each runs; ``serve(RING)`` wakes those that sleep.
        ring: number that stands for RING.
    """

    def __init__(self, board: NDArray[np.int64], serve: Serve, ring: int) -> None:
        self._board, self._serve, self._ring = board, serve, ring
        threads = int(board[b.THREADS])
        self._helpers = [_Helper(number, board, serve) for number in range(1, threads)]

    def wake(self, count: int) -> None:
        """Call the first ``count`` threads, the caller included, for the next job."""
        if not self._board[b.CLOSED]:
            for helper in self._helpers[: count - 1]:
                helper.wake()

    def dismiss(self) -> None:
        """Let the threads end; jobs from now on are the caller's alone."""
        self._board[b.CLOSED] = 1
        self._serve(self._ring)
        for helper in self._helpers:
            helper.open()

    def leave(self) -> None:
        """Dismiss the threads and wait until they are gone."""
        self.dismiss()
        for helper in self._helpers:
            if helper.thread.is_alive():
                helper.thread.join(LEAVE_SECONDS)
