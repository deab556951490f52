"""The generated C file, compiled on this machine, behind the interface of the other runtimes.

The shipped source becomes a shared library in a temporary folder and is called through ctypes;
the same source with ``-DFROSTBIT_DEBUG`` gives the signs.
"""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostbit.export.c import convert as to_c
from frostbit.export.c.header import image_of
from frostbit.export.c.steps import words_for
from frostbit.export.errors import ExportError, RuntimeMissing
from frostbit.export.runtimes import Images, Logits, Milliseconds, time_calls
from frostbit.kernels.ir.bits import Words
from frostbit.kernels.ir.output import write_file
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.reference import check_images

OPTIONS = ("-std=c99", "-O3", "-march=native")


def require_compiler(name: str) -> str:
    """Path of the C compiler ``name``; RuntimeMissing with the remedy if it is absent."""
    path = shutil.which(name)
    if path is None:
        raise RuntimeMissing(
            f"there is no C compiler '{name}'; install one (Debian: apt-get install gcc libc6-dev)"
        )
    return path


class Library:
    """A compiled source, loaded. Its file stays until it is unloaded: the loader knows files by
    their number, which a new file may get as soon as the old one is gone.

    Raises:
        ExportError: if the compiler refuses the source.
    """

    def __init__(self, source: bytes, compiler: str, options: tuple[str, ...]) -> None:
        folder = tempfile.mkdtemp(prefix="frostbit-c-")
        try:
            self.code = ctypes.CDLL(_compiled(source, compiler, options, folder))
        except BaseException:
            shutil.rmtree(folder)
            raise
        self.close = weakref.finalize(self, _unload, self.code._handle, folder)


def _compiled(source: bytes, compiler: str, options: tuple[str, ...], folder: str) -> str:
    """Compile ``source`` into a shared library in ``folder``; returns its path."""
    code, library = Path(folder, "model.c"), Path(folder, "model.so")
    write_file(code, source)
    command = [compiler, *options, "-shared", "-fPIC", "-o", str(library), str(code), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        reason = (*errors, done.stderr.strip() or "no message")[0]
        raise ExportError(f"{Path(compiler).name} refuses the generated C file: {reason}")
    return str(library)


def _unload(handle: int, folder: str) -> None:
    ctypes.CDLL(None).dlclose(ctypes.c_void_p(handle))
    shutil.rmtree(folder)


_RUN = re.compile(rb"^void (\w+)_run\(const (uint8_t|float) \*image, float \*logits\)", re.M)


def _prefix(source: bytes, program: Program) -> str:
    """How the names of the file begin; ExportError if its function is not one of ``program``'s."""
    found = _RUN.search(source)
    if found is None:
        raise ExportError("the C file has no function '..._run': it is no export of Frostbit")
    if found[2].decode() != image_of(program).type:
        raise ExportError("the C file takes another type of image: it is one of another model")
    return found[1].decode()


def _check_sizes(code: ctypes.CDLL, source: bytes, prefix: str, program: Program) -> None:
    """ExportError unless the file's buffers have the sizes of ``program``'s."""
    kept = to_c.kept_signs(program)
    declared = re.search(rb"_debug_words\[(\d+)\];", source)
    found = (
        ctypes.c_int32.in_dll(code, f"{prefix}_input_size").value,
        ctypes.c_int32.in_dll(code, f"{prefix}_classes").value,
        int(declared[1]) if declared else 0,
    )
    size = kept[-1].start + kept[-1].count if kept else 0
    if found != (int(np.prod(program.input_shape)), len(program.classes), size):
        raise ExportError(
            "the C file's input, classes or signs have other sizes: it is one of another model"
        )


def _address(array: Images | NDArray[np.float32]) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


class CRuntime:
    """Our ``model.c``, compiled here; one thread.

    Args:
        program: the Program the file was made from.
        source: the shipped bytes; converted from ``program`` if None.
        compiler: command of a C compiler.
        options: its options.

    Raises:
        RuntimeMissing: where there is no such compiler.
        ExportError: if it refuses the file, the file is one of a network of other sizes, or
            ``program`` cannot be expressed.
    """

    name = "c"

    def __init__(
        self,
        program: Program,
        source: bytes | None = None,
        compiler: str = "cc",
        options: tuple[str, ...] = OPTIONS,
    ) -> None:
        self.program = program
        self._compiler, self._options = require_compiler(compiler), options
        self._source = to_c.convert(program) if source is None else source
        self.size_bytes = len(self._source)
        self._shipped = Library(self._source, self._compiler, options)
        self._names = _prefix(self._source, program)
        _check_sizes(self._shipped.code, self._source, self._names, program)
        self._debug: Library | None = None
        self._kept = to_c.kept_signs(program)

    def _function(self, library: Library) -> Callable[[ctypes.c_void_p, ctypes.c_void_p], object]:
        """``..._run`` of ``library``: image and logits by address."""
        function: Callable[[ctypes.c_void_p, ctypes.c_void_p], object]
        function = getattr(library.code, f"{self._names}_run")
        return function

    def logits(self, images: Images) -> Logits:
        """Logits float32 ``[N, classes]`` of uint8 ``[N, H, W, C]``, one image at a time."""
        check_images(images, self.program)
        images = np.ascontiguousarray(images)
        logits = np.empty((len(images), len(self.program.classes)), np.float32)
        run = self._function(self._shipped)
        for image, row in zip(images, logits, strict=True):
            run(_address(image), _address(row))
        return logits

    def signs(self, images: Images) -> dict[str, Words]:
        """Every ``bits`` value by op name, uint64 ``[N, H, W, ceil(C/64)]``, of the debug form."""
        check_images(images, self.program)
        if not self._kept:
            return {}
        if self._debug is None:
            options = (*self._options, "-DFROSTBIT_DEBUG")
            self._debug = Library(self._source, self._compiler, options)
        size = self._kept[-1].start + self._kept[-1].count
        memory = (ctypes.c_uint32 * size).in_dll(self._debug.code, f"{self._names}_debug_words")
        logits = np.empty(len(self.program.classes), np.float32)
        rows = np.empty((len(images), size), np.uint32)
        run = self._function(self._debug)
        for image, row in zip(np.ascontiguousarray(images), rows, strict=True):
            run(_address(image), _address(logits))
            row[:] = memory
        return {each.name: words_of(rows, each) for each in self._kept}

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        """Milliseconds of ``repeats`` runs; several images are run one after the other."""
        check_images(image, self.program)
        logits = np.empty(len(self.program.classes), np.float32)
        each = [np.ascontiguousarray(one) for one in image]
        run = self._function(self._shipped)
        calls = [(_address(x), _address(logits)) for x in each]
        return time_calls(lambda: [run(*pointers) for pointers in calls], repeats)

    def close(self) -> None:
        """Unload the code and remove its files; the runtime must not be used afterwards."""
        self._shipped.close()
        if self._debug is not None:
            self._debug.close()


def words_of(rows: NDArray[np.uint32], kept: to_c.Kept) -> Words:
    """One value out of the kept words: uint32 ``[N, words]`` to uint64 as in Program."""
    height, width, channels = kept.shape
    count = words_for(channels)
    value = rows[:, kept.start : kept.start + kept.count].reshape(-1, height, width, count)
    even = np.zeros((*value.shape[:-1], count + count % 2), "<u4")
    even[..., :count] = value
    return even.view("<u8").astype(np.uint64)
