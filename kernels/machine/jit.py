"""The decorators that hold the JIT options, and the folder of compiled code.

``@inner`` marks code that is compiled into its caller; ``@entry`` marks what Python calls and
the only thing that is cached on disk, so that a fresh process loads one file, not one per
kernel. Both release the GIL and divide as NumPy does.

Numba's disk cache is pickle, which runs what it reads. So its folder is ours alone (mode 0700,
owned by this user, no symbolic link, in a folder that nobody else can write); any other folder
is refused and code is then compiled in memory. Numba watches only the file of the cached
function, while we inline across files: the folder's name therefore holds a hash of all sources
of ``kernels``, in whatever sub-folder, and stale code cannot be found.
``FROSTBIT_CACHE`` names another folder; a read-only home only costs the compilation.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: Numba's cache has no annotations

from __future__ import annotations

import contextlib
import hashlib
import importlib
import logging
import os
import stat
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

from frostbit.kernels.machine.settings import SettingError, blaming_numba_settings

with (
    blaming_numba_settings("Numba cannot be used", ValueError, RuntimeWarning, ImportError),
    warnings.catch_warnings(),
):
    # a value that Numba cannot read: it would warn, with a traceback, and drop it
    warnings.filterwarnings("error", "Environment variable", RuntimeWarning)
    import numba
    from numba.core.caching import CompileResultCacheImpl, FunctionCache, NullCache
    from numba.core.runtime.nrt import rtsys

_LOG = logging.getLogger("frostbit.kernels")
COMPILING = "compiling the engine for this CPU, once for each version (about 25 s)"
config: Any = importlib.import_module("numba.core.config")  # its names are made at run time
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
Compiled = TypeVar("Compiled", bound=Callable[..., object])
"""A function that is called in the same way once it is compiled."""


def _check_settings() -> None:
    """Refuse settings of Numba that it takes, and with which nothing can be compiled."""
    if config.DISABLE_JIT:
        raise SettingError(
            "NUMBA_DISABLE_JIT turns off the engine's compiler: unset it or set it to 0"
        )
    unsigned = [f for f in (config.CPU_FEATURES or "").split(",") if f and f[0] not in "+-"]
    if unsigned:  # LLVM would end the process
        raise SettingError(
            f"NUMBA_CPU_FEATURES: write +{unsigned[0]!a:.40} or -, not without a sign"
        )


_check_settings()


KERNELS = Path(__file__).parents[1]
"""The whole package: what an entry point compiles may lie in any of its folders."""


def source_hash() -> str:
    """First 16 hex digits of the SHA-256 over the path and content of every kernel source."""
    digest = hashlib.sha256()
    for path in sorted(KERNELS.rglob("*.py")):
        name = path.relative_to(KERNELS).as_posix()
        digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _is_ours(folder: Path, forbidden: int) -> bool:
    """Whether ``folder`` is a real directory of this user without the ``forbidden`` mode bits."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode):
        return False
    if hasattr(os, "geteuid"):
        return status.st_uid == os.geteuid() and not status.st_mode & forbidden
    return True


def cache_folder() -> Path | None:
    """Folder for compiled code, made if need be; None if there is no private one.

    It may be read-only, as in an image with a warm cache: then code is found and none is added.
    """
    given = os.environ.get("FROSTBIT_CACHE")
    try:
        if given:
            top = Path(given)
        else:
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            top = Path(home) / "frostbit"
        top.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = top / f"numba-{numba.__version__}-{source_hash()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        ours = _is_ours(top, 0o022) and _is_ours(folder, 0o077)
        return folder if ours else None
    except (OSError, RuntimeError):  # RuntimeError: there is no home at all
        return None


def inner(function: Compiled) -> Compiled:
    """Compile ``function`` into whoever calls it; not cached on its own."""
    return cast(Compiled, numba.njit(**_OPTIONS)(function))


def inlined(function: Compiled) -> Compiled:
    """Like :func:`inner`, but never left as a call: for what runs once a tile or pixel."""
    return cast(Compiled, numba.njit(forceinline=True, **_OPTIONS)(function))


class _Locator:
    """Tells Numba where code is kept, and that only our own hash says whether it is stale.

    Numba compares the time of the source file, which differs between an image's layers.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def from_function(cls, py_func: object, py_file: str) -> _Locator | None:
        folder = cache_folder()
        return None if folder is None else cls(folder)

    def ensure_cache_path(self) -> None:
        """The folder was made when it was chosen."""

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return source_hash()

    def get_disambiguator(self) -> str:
        return "entry"


class _Files(CompileResultCacheImpl):
    _locator_classes: Any = (_Locator,)


class _QuickCache(FunctionCache):
    """Numba's disk cache without what only compiling needs, and never a reason to fail.

    Before it loads anything, Numba's own class imports every typing and lowering rule it has
    (and SciPy, if that is installed): half of a fresh process's time to its first result. Code
    that is compiled already needs none of them, only Numba's runtime, which unboxes arrays.
    """

    _impl_class = _Files

    def load_overload(self, sig: object, target_context: object) -> object:
        rtsys.initialize(target_context)
        found = None
        try:
            found = self._load_overload(sig, target_context)
        except Exception:  # a damaged file can raise anything: begin anew
            with contextlib.suppress(OSError):
                self.flush()
        if found is None:
            _LOG.info(COMPILING)
        return found

    def save_overload(self, sig: object, data: object) -> None:
        with contextlib.suppress(Exception):  # read-only folder, full disk, damaged index
            self._save_overload(sig, data)


class _NoFiles(NullCache):
    """Without a folder: says that it compiles, too."""

    def load_overload(self, sig: object, target_context: object) -> None:
        _LOG.info(COMPILING)


def entry(function: Compiled) -> Compiled:
    """Compile ``function`` on its first call, from the disk cache if there is a safe one."""
    compiled = numba.njit(**_OPTIONS)(function)
    if not config.CACHE_LOCATOR_CLASSES:
        compiled._cache = _NoFiles() if cache_folder() is None else _QuickCache(function)
    return cast(Compiled, compiled)
