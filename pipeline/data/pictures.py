"""Pictures in files -> the pixels a network is evaluated on. Needs Pillow only.

As usual for ImageNet: RGB, shorter side resized to 256/224 of the crop size (bilinear with
antialiasing), centre crop. Training evaluates with this, ``pipeline predict`` runs it on a device.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frostbit.pipeline.errors import UserError

MARGIN = 256 / 224
"""Shorter side over crop size."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What a file's content may be, whatever its name: Pillow would hand EPS to an interpreter."""
MAX_BYTES = 1 << 28
MAX_PIXELS = 1 << 26
"""Of a picture as stored and as resized: a few kilobytes can unpack to gigabytes."""
TRAINING = "remove it or pass --skip-corrupt"
PREDICTING = "give a picture as JPEG or PNG"


def open_picture(path: Path, mode: str = "RGB", remedy: str = TRAINING) -> Image.Image:
    """A picture, decoded, in Pillow's ``mode``; its size is looked at before it is decoded.

    Raises:
        UserError: naming a file that cannot be decoded, or is too large to be.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MB")
        with Image.open(path, formats=FORMATS) as image:
            _require_size(*image.size)
            return image.convert(mode)
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot decode image '{path}' ({reason}); {remedy}") from error


_BROKEN = (
    OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow's decoders raise on damaged files, found by fuzzing them and reading its code."""


def _require_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels; at most {MAX_PIXELS:,} are decoded")


def _resize(image: Image.Image, width: int, height: int, path: Path | None) -> Image.Image:
    """Bilinear with antialiasing; UserError if a thin picture would grow without measure."""
    try:
        _require_size(width, height)
    except ValueError as error:
        name = "a picture" if path is None else f"'{path}'"
        raise UserError(
            f"{name} of {image.width} x {image.height} pixels would be resized to {error}; crop it"
        ) from error
    return image.resize((width, height), Image.Resampling.BILINEAR)


def side_for(size: int) -> int:
    """Length of the shorter side before the crop."""
    return round(size * MARGIN)


def resized(image: Image.Image, side: int, path: Path | None = None) -> NDArray[np.uint8]:
    """uint8 ``[h, w, C]`` whose shorter side is ``side``; unchanged if it already is.

    Raises:
        UserError: if the picture, named by ``path``, is too thin for that.
    """
    width, height = image.size
    short = min(width, height)
    if short != side:
        # the longer side is rounded down, as torchvision does
        width, height = (max(side, side * length // short) for length in (width, height))
        image = _resize(image, width, height, path)
    pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def centre(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The middle ``size`` of ``[h, w, C]``; cropping twice gives the same pixels."""
    top, left = (pixels.shape[0] - size[0]) // 2, (pixels.shape[1] - size[1]) // 2
    return pixels[top : top + size[0], left : left + size[1]]


def evaluated(path: Path, size: int, remedy: str = TRAINING) -> NDArray[np.uint8]:
    """A picture as photographs are evaluated: uint8 ``[size, size, 3]``; UserError as above."""
    picture = open_picture(path, remedy=remedy)
    return centre(resized(picture, side_for(size), path), (size, size))


def fitted(path: Path, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A picture for a data set of fixed size: the largest centre part, resized to ``shape``.

    One channel means grey, three RGB. A picture of the right size keeps its pixels.

    Raises:
        UserError: a file that cannot be decoded, or another number of channels.
    """
    height, width, channels = shape
    if channels not in (1, 3):
        raise UserError(f"the model wants images of {channels} channels; pictures have 1 or 3")
    image = open_picture(path, "L" if channels == 1 else "RGB", PREDICTING)
    scale = max(height / image.height, width / image.width)
    if (image.height, image.width) != (height, width):
        sizes = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        image = _resize(image, *sizes, path)
    pixels = np.asarray(image, np.uint8)
    return centre(pixels if pixels.ndim == 3 else pixels[:, :, None], (height, width))
