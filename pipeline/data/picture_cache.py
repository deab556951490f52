"""Decoded pictures in one file of the user's cache folder, so that they are decoded once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from frostbit.kernels.ir.output import replacing
from frostbit.pipeline.console import Bars
from frostbit.pipeline.data import pictures
from frostbit.pipeline.data.pictures import Pixels
from frostbit.pipeline.data.splits import cache_folder


def decoded_once(paths: Sequence[Path], shape: tuple[int, int, int], bars: Bars) -> Pixels:
    """Pictures as :func:`pictures.framed` gives them, from a file that is made if missing.

    So evaluated pixels are those of the pictures themselves, and training crops come from the
    middle of a picture with its margin, not from its edges. The file has h * w * C bytes a
    picture; it is named by a hash of the preprocessing and the files' names, sizes and times.

    Args:
        paths: the pictures.
        shape: ``(H, W, C)`` of what is evaluated.
        bars: progress bars by label.

    Returns:
        uint8 ``[N, h, w, C]``, mapped into memory, read only.

    Raises:
        UserError: naming a picture that cannot be decoded.
    """
    file = cache_folder() / "decoded" / f"{_name(paths, shape)}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            _write(temporary, paths, shape, bars)
    found: Pixels = np.load(file, mmap_mode="r", allow_pickle=False)
    return found


def _name(paths: Sequence[Path], shape: tuple[int, int, int]) -> str:
    digest = hashlib.sha256(f"{pictures.PREPROCESSING}{shape}".encode())
    for path in paths:
        state = path.stat()
        digest.update(os.fsencode(f"{path}:{state.st_size}:{state.st_mtime_ns};"))
    return digest.hexdigest()


def _write(file: Path, paths: Sequence[Path], shape: tuple[int, int, int], bars: Bars) -> None:
    whole = (len(paths), *pictures.margin_for(shape[:2]), shape[2])
    made = np.lib.format.open_memmap(file, mode="w+", dtype=np.uint8, shape=whole)
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda path: pictures.framed(path, shape), paths)
        for index in bars("decoding pictures")(range(len(paths))):
            made[index] = next(decoded)
    made.flush()
