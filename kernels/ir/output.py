"""The one way to write a file: replaced whole if it is a regular file, never replaced if not.

Everything that the project writes comes through :func:`write_file`. After a power cut there is the
old file or the new one. Symbolic links stay and what they lead to is written, there, in its own
folder. A character device or a named pipe is written to, because it is not ours to replace: as
root a rename would turn ``/dev/null`` into a file.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_LINKS = 40
"""Links in a row after which Linux, too, takes them for a loop."""


def write_file(path: Path, data: bytes) -> None:
    """Make ``data`` the content of ``path``.

    A regular file, or one that is new, is written beside its final place and renamed. The end of a
    chain of symbolic links is treated so; a dangling link's target is made.

    Raises:
        OSError: a missing or read-only folder, a full disk, a loop of links (what was there is
            then untouched and the temporary file removed); a folder, a block device, a socket, a
            pipe that nobody reads, or a file that is only known by a descriptor (``/dev/stdout``).
    """
    target = _end_of_links(path)
    if _is_replaceable(target):
        with replacing(target) as temporary:
            temporary.write_bytes(data)
    else:
        _write_into(target, data)


def check_writable(path: Path) -> None:
    """Raise now, before the work is done, the OSError that :func:`write_file` would."""
    target = _end_of_links(path)
    if _is_replaceable(target):
        with tempfile.TemporaryFile(dir=target.parent):
            pass


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file beside ``path`` to write, which becomes ``path`` when the block ends without error.

    For what is too large for :func:`write_file`.

    Raises:
        OSError: as :func:`write_file`; and ``path`` is a device or a pipe.
    """
    target = _end_of_links(path)
    if not _is_replaceable(target):
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    try:
        with os.fdopen(handle, "r+b") as stream:
            yield Path(name)
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def remove_file(path: Path) -> None:
    """Remove the regular file that ``path`` is or leads to, if it is there; leave links and nodes.

    Raises:
        OSError: it cannot be removed.
    """
    target = _end_of_links(path)
    if target.is_file():
        target.unlink(missing_ok=True)


def _end_of_links(path: Path) -> Path:
    """Where the chain of symbolic links at ``path`` ends; that need not exist.

    The last step alone is resolved: the folders before it are the system's business. An open
    descriptor (a link in ``/proc``) is its own end unless it is a regular file, which has a name.
    """
    for _ in range(_LINKS):
        if not path.is_symlink():
            return path
        if os.path.realpath(path.parent).startswith("/proc/"):
            if path.is_file():
                raise OSError(errno.EINVAL, "it is a file by now: name that file", str(path))
            return path
        path = path.parent / os.readlink(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))


def _is_replaceable(path: Path) -> bool:
    """Whether ``path`` is a regular file or nothing yet; False: a character device or a pipe.

    Raises:
        OSError: it is something that is not written at all.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        raise OSError(errno.EINVAL, "it is a block device or a socket", str(path))
    return stat.S_ISREG(mode)


def _write_into(path: Path, data: bytes) -> None:
    """Write into a device or pipe as it stands; a pipe that nobody reads is not waited for."""
    handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY)
    os.set_blocking(handle, True)
    with os.fdopen(handle, "wb") as stream:
        stream.write(data)


def _sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` last, where the file system can."""
    if os.name != "posix":
        return
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
