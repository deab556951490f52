"""The C file as WebAssembly, by clang and lld: one module with SIMD and one without.

Both are built with ``FROSTBIT_DEBUG``, so that the page can compare every sign. They need nothing
of a C library but what ``freestanding/`` holds. Bytes are deterministic for a compiler.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np

from frostbit.export.c.convert import convert, kept_signs
from frostbit.export.errors import ExportError, RuntimeMissing
from frostbit.kernels.ir.output import write_file
from frostbit.kernels.ir.program import Program

COMPILERS = ("clang", *(f"clang-{version}" for version in range(22, 13, -1)))
REMEDY = "on Debian: apt-get install clang lld"
OPTIONS = (
    "--target=wasm32", "-mcpu=mvp", "-std=c99", "-O3", "-ffreestanding", "-nostdlib",
    "-DFROSTBIT_DEBUG", "-Wl,--no-entry", "-Wl,--strip-all",
)  # fmt: skip
SIMD = "-msimd128"


@dataclass(frozen=True)
class Modules:
    """Two WebAssembly modules, ``simd + tail`` and ``plain + tail``: the weights are stored once.

    Attributes:
        simd, plain: what differs, at the beginning.
        tail: what both end with.
    """

    simd: bytes
    plain: bytes
    tail: bytes


def require_clang() -> str:
    """Path of a clang that can write WebAssembly.

    Raises:
        RuntimeMissing: there is none, or no linker for it; with the remedy.
    """
    path = next((found for name in COMPILERS if (found := shutil.which(name))), None)
    if path is None:
        raise RuntimeMissing(f"the web format needs clang and lld; {REMEDY}")
    command = [path, "--print-prog-name=wasm-ld"]
    linker = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    if shutil.which(linker) is None:
        raise RuntimeMissing(f"the web format needs lld, which {Path(path).name} uses; {REMEDY}")
    return path


def modules(program: Program) -> Modules:
    """``program`` compiled.

    Raises:
        RuntimeMissing: there is no clang or no lld.
        ExportError: an op that C cannot express, or the compiler refuses the file.
    """
    clang, source = require_clang(), convert(program)
    exported = ["frostbit_run", "__heap_base"]
    if kept_signs(program):
        exported.append("frostbit_debug_words")
    options = (*OPTIONS, *(f"-Wl,--export={name}" for name in exported))
    simd = _compiled(clang, source, (*options, SIMD))
    plain = _compiled(clang, source, options)
    shared = _shared_end(simd, plain)
    code, tail = plain[: len(plain) - shared], plain[len(plain) - shared :]
    return Modules(simd[: len(simd) - shared], code, tail)


def _shared_end(one: bytes, other: bytes) -> int:
    """How many bytes both end with."""
    most = min(len(one), len(other))
    ends = [np.frombuffer(each, np.uint8)[::-1][:most] for each in (one, other)]
    apart = np.flatnonzero(ends[0] != ends[1])
    return int(apart[0]) if len(apart) else most


@contextmanager
def _library() -> Iterator[Path]:
    """Folder of what stands in for a C library."""
    with as_file(files("frostbit.export.web") / "freestanding") as folder:
        yield folder


def _compiled(clang: str, source: bytes, options: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="frostbit-web-") as folder, _library() as library:
        code, module = Path(folder, "model.c"), Path(folder, "model.wasm")
        write_file(code, source)
        command = [clang, *options, f"-I{library}", str(code), str(library / "memory.c")]
        command += ["-o", str(module)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            reason = (*errors, done.stderr.strip() or "no message")[0]
            raise ExportError(f"{Path(clang).name} makes no WebAssembly of it: {reason}; {REMEDY}")
        return module.read_bytes()
