"""A model file of any format that can be read."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

from frostbit.export.errors import RuntimeMissing
from frostbit.export.foreign import compare_file, read_file
from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import FormatError, Program

ENDING = ".bnn"
FOREIGN = (".c", ".h5", ".keras", ".onnx", ".pt", ".pt2", ".pth", ".qonnx", ".tflite")
"""Endings that promise another format."""


def read(path: str | os.PathLike[str], *, logits: bool = False, compare: bool = True) -> Program:
    """The Program in a model file.

    A network of another tool chain is run beside its file in that file's own runtime, on random
    images, layer by layer, before it is given; without that runtime a warning says so.

    Args:
        path: of a packed model (``model.bnn``), of a network for Larq Compute Engine
            (``model.tflite``), or of an ONNX or QONNX file (``model.onnx``).
        logits: leave out a final softmax (of other formats than ``.bnn``).
        compare: whether to run the file beside what was read from it.

    Returns:
        The Program, verified. A packed model takes uint8 ``[N, H, W, C]`` pixels 0..255 or what it
        was read from takes; one of another format float32 ``[N, H, W, C]``, scaled as its own
        tool chain scales them. Both give float32 ``[N, classes]``.

    Raises:
        FormatError: a format that cannot be read (by its name), a damaged file, another version,
            or an operator that cannot be read, by its name and layer.
        frostbit.export.errors.SourceDiffers: the file's own runtime computes something else.
        frostbit.export.errors.LceError: Larq Compute Engine refuses the file.
        OSError: the file cannot be read.

    Source: the layout of a ``.bnn`` is described in ``docs/formats.md``.
    """
    ending = Path(path).suffix.lower()
    if ending in FOREIGN:
        return _read_foreign(path, logits, compare)
    if logits:
        raise ValueError(f"{path}: logits=True is for files of other tool chains")
    return load_program(path)


def _read_foreign(path: str | os.PathLike[str], logits: bool, compare: bool) -> Program:
    try:
        imported = read_file(path, logits)
    except ModuleNotFoundError as error:
        raise ImportError(
            f"reading {path} needs {error.name}: pip install 'frostbit[export]'", name=error.name
        ) from error
    if compare:
        try:
            compare_file(path, imported)
        except RuntimeMissing as missing:
            warnings.warn(f"{path}: not compared with its source: {missing}", stacklevel=3)
    return imported.program


def save(program: Program, path: str | os.PathLike[str]) -> None:
    """Write ``program`` as a packed model: one bit a binary weight, SHA-256 over every bit.

    The file is replaced whole or not at all. The same Program gives the same bytes.

    Args:
        program: from :func:`frostbit.pack` or :func:`read`.
        path: ends in ``.bnn``; a file that is there is replaced.

    Raises:
        FormatError: the Program is malformed, or ``path`` has another ending.
        OSError: the file cannot be written.

    Source: the layout of the file is described in ``docs/formats.md``.
    """
    target = Path(path)
    if target.suffix.lower() != ENDING:
        raise FormatError(
            f"{target}: a packed model's name ends in '{ENDING}'; export_model writes other formats"
        )
    save_program(program, target)
