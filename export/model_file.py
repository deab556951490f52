"""A model file of any format that can be read; other formats will be read beside their writers."""

from __future__ import annotations

import os
from pathlib import Path

from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import FormatError, Program

ENDING = ".bnn"
FOREIGN = (".c", ".h5", ".keras", ".onnx", ".pt", ".pt2", ".pth", ".qonnx", ".tflite")
"""Endings that promise another format."""


def read(path: str | os.PathLike[str]) -> Program:
    """The Program in a model file.

    Args:
        path: of a packed model (``model.bnn``).

    Returns:
        The Program, verified: uint8 ``[N, H, W, C]`` pixels 0..255 -> float32 ``[N, classes]``.

    Raises:
        FormatError: another format (by its name), a damaged file or another version.
        OSError: the file cannot be read.

    Source: the layout of the file is described in ``docs/formats.md``.
    """
    ending = Path(path).suffix.lower()
    if ending in FOREIGN:
        raise FormatError(f"{path}: '{ending}' cannot be read, only packed models ('{ENDING}') can")
    return load_program(path)


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
