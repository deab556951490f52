"""A person's own images to compare an imported network on: arrays in a file, or pictures.

No more is read than is asked for: of an array its header, then as many images as are compared, so
that neither a file of gigabytes nor a header that promises them fills the memory.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from frostbit.export.inputs import Images
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.errors import UserError

NAMES = ("input", "inputs", "images", "x")
"""What an array of images in a .npz may be called; a single one may have any name."""
LARGEST = 1 << 30
"""Bytes of all images of a comparison."""
MOST_FILES = 1 << 20
"""Files of a folder that are looked at."""
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_BEGINS_NPY = b"\x93NUMPY"


def require_small(count: int, program: Program) -> None:
    """UserError if ``count`` images are too many to hold."""
    size = count * 4 * math.prod(program.input_shape)
    if size > LARGEST:
        each = size // count
        raise UserError(
            f"{count} images take {size:,} bytes, more than {LARGEST:,}: compare fewer, "
            f"--images {max(1, LARGEST // each)}"
        )


def given_images(path: Path, program: Program, count: int) -> Images:
    """A person's own images ``[N, H, W, C]`` as the model takes them, at most ``count``.

    Args:
        path: a .npz or .npy of arrays ``[N, H, W, C]`` as the model takes them, or a folder of
            pictures, which are fitted to the model's size.
        program: the model.
        count: at most so many.

    Raises:
        UserError: no such array, another shape, more than :data:`LARGEST` bytes, or a folder
            without ``--range``.
    """
    if path.is_dir():
        return _pictures(path, program, count)
    try:
        with _array(path) as stream:
            return _first(stream, path, program, count)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"cannot read '{path}' ({error}); give a .npz, .npy or folder") from error


@contextmanager
def _array(path: Path) -> Iterator[IO[bytes]]:
    """The bytes of the array of images in a file, as of a .npy."""
    with path.open("rb") as stream:
        is_npy = stream.read(len(_BEGINS_NPY)) == _BEGINS_NPY
        stream.seek(0)
        if is_npy:
            yield stream
            return
        with zipfile.ZipFile(stream) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            chosen = names if len(names) == 1 else [name for name in NAMES if name in names]
            if not chosen:
                raise UserError(f"'{path}' has no array called {' or '.join(NAMES)}")
            with archive.open(f"{chosen[0]}.npy") as member:
                yield member


def _first(stream: IO[bytes], path: Path, program: Program, count: int) -> Images:
    """The first ``count`` images of an array; nothing behind them is read."""
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of NumPy's format")
    shape, is_fortran, dtype = _HEADERS[version](stream)
    is_pixels = program.input_kind == "u8"
    fits = dtype == np.uint8 if is_pixels else dtype.kind == "f"
    if not fits or len(shape) != 4 or shape[1:] != program.input_shape or shape[0] < 1:
        raise UserError(
            f"'{path}' has {dtype} {list(shape)}; the model takes "
            f"{'uint8' if is_pixels else 'floats'} [N, {', '.join(map(str, program.input_shape))}]"
        )
    if is_fortran:
        raise ValueError("the array is in Fortran's order: save numpy.ascontiguousarray of it")
    count = min(count, shape[0])
    require_small(count, program)
    size = count * math.prod(shape[1:]) * dtype.itemsize
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("it ends inside its array")
    images = np.frombuffer(data, dtype).reshape(count, *shape[1:])
    return images.astype(np.uint8 if is_pixels else np.float32)


def _pictures(folder: Path, program: Program, count: int) -> Images:
    from frostbit.pipeline.data import pictures

    mapping = program.preprocessing
    if mapping is None and program.input_kind == "f32":
        raise UserError("pictures need --range, which says what their pixels become")
    pictures.require_channels(program.input_shape[2])
    files = []
    for each in folder.rglob("*"):
        if each.is_file():
            files.append(each)
        if len(files) > MOST_FILES:
            raise UserError(f"'{folder}' has more than {MOST_FILES:,} files; give a smaller folder")
    if not files:
        raise UserError(f"'{folder}' has no pictures")
    chosen = sorted(files)[:count]
    require_small(len(chosen), program)
    found = np.stack([pictures.fitted(each, program.input_shape) for each in chosen])
    return found if mapping is None else mapping.apply(found)
