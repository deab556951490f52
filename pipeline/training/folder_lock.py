"""One training at a time in a run folder: a lock that ends with its process, however that ends."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run.folder import LOCK, writing

_HELD: set[Path] = set()
"""Folders of this process: the system's lock keeps out other processes alone."""
_UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK)
"""What a file system says that has no locks; trainings there are not kept apart."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep ``folder``, made if missing, for the block.

    A record lock (``lockf``): the system drops it when the process dies, processes that it forked
    to decode pictures do not hold it, and it works over NFS.

    Raises:
        UserError: another training has it, or it cannot be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        path = folder.resolve() / LOCK
        handle = None if path in _HELD else _acquired(path)
    if handle is None:
        raise UserError(
            f"another training runs in '{folder}'; wait for it, or choose another --out"
        )
    _HELD.add(path)
    try:
        yield
    finally:
        _HELD.remove(path)
        with suppress(OSError):
            path.unlink()
        os.close(handle)


def _acquired(path: Path) -> int | None:
    """A descriptor of the locked file, None if another process holds it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                os.close(handle)
                return None
            if error.errno not in _UNKNOWN:
                os.close(handle)
                raise
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):
                return handle
        os.close(handle)  # its last holder removed it between our two calls
