"""Limits under which mutated files are opened: processor time, memory, and a last resort."""

from __future__ import annotations

import contextlib
import faulthandler
import resource
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

SECONDS = 2.0
"""Of processor time for one file, so that a busy machine makes no difference."""
MEGABYTES = 1024
"""By which the process may grow while files are opened."""
STUCK = 300.0
"""Seconds on the clock after which a process that waits for ever is ended with a traceback."""


class Hang(AssertionError):
    """One file took more than two seconds of processor time."""


def _too_long(number: int, frame: FrameType | None) -> None:
    raise Hang(f"more than {SECONDS} s of processor time")


@contextlib.contextmanager
def short() -> Iterator[None]:
    """Raise :class:`Hang` inside the block after two seconds of processor time (main thread)."""
    before = signal.signal(signal.SIGPROF, _too_long)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    faulthandler.dump_traceback_later(STUCK, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@contextlib.contextmanager
def small() -> Iterator[None]:
    """Let the process take at most :data:`MEGABYTES` more than it has: beyond, MemoryError."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    most = pages * resource.getpagesize() + (MEGABYTES << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def peak_megabytes() -> float:
    """Largest resident set of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
