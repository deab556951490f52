"""Pictures in files -> the pixels a network sees. Needs Pillow only.

One function decodes, for training, evaluation, ``pipeline predict`` and bundles alike
(:func:`open_picture`; :data:`PREPROCESSING` is the same in a sentence), and one crops.

As usual for ImageNet: resized until it covers 256/224 of the crop's height and width (bilinear
with antialiasing), centre crop.
"""

from __future__ import annotations

import stat
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from frostbit.pipeline.errors import UserError

Pixels = NDArray[np.uint8]
Size = tuple[int, int]
"""Height and width."""
MARGIN = 256 / 224
"""What is resized to over what is cropped to."""
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
"""What a file's content may be, whatever its name: Pillow would hand EPS to an interpreter."""
MAX_BYTES = 1 << 28
MAX_PIXELS = 1 << 26
"""Of a picture as stored and as resized: a few kilobytes can unpack to gigabytes."""
TRAINING = "remove it or pass --skip-corrupt"
PREDICTING = "give a picture as JPEG or PNG"
BACKGROUND = (255, 255, 255)
"""What shows through transparent pixels: white."""
PREPROCESSING = (
    "8 bits a channel (16-bit grey divided by 257 and rounded), turned upright by EXIF, laid on a "
    "white background where transparent, first frame of an animation"
)
ALPHA = ("LA", "PA", "RGBA")
PLAIN = ("1", "L", "P", "RGB", "CMYK", "YCbCr", *ALPHA)
"""Pillow's modes whose conversion to 8-bit grey or RGB means what the picture does."""
PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
WIDE = ("I;16", "I;16B", "I;16L", "I;16N", "I")
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the EXIF orientation, which says how a picture is stored."""
ORIENTATION, PHOTOMETRIC = 274, 262
"""Numbers of EXIF's and TIFF's tags."""


def open_picture(path: Path, channels: int = 3, remedy: str = TRAINING) -> Image.Image:
    """A picture, decoded, as :data:`PREPROCESSING` says; its size is looked at before that.

    Args:
        path: its file.
        channels: 1 for grey (mode ``L``: ITU-R 601 luma of colours), 3 for ``RGB``.
        remedy: ends the error.

    Raises:
        UserError: naming a file that cannot be decoded, is too large to be, or whose mode leaves
            open what its numbers mean.
    """
    require_channels(channels)
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):
            raise ValueError("no regular file")
        if state.st_size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES >> 20} MB")
        # By its name Pillow 13 maps a TIFF into memory, and scrambles one that lies on its side.
        with path.open("rb") as stream, Image.open(stream, formats=FORMATS) as image:
            _require_size(*image.size)
            coding = _coding(image)
            image.load()
            turn = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
            found = _opaque(image, coding).convert("L" if channels == 1 else "RGB")
            return found if turn is None else found.transpose(turn)
    except _BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot decode image '{path}' ({reason}); {remedy}") from error


_BROKEN = (
    OSError, ValueError, SyntaxError, TypeError, KeyError, IndexError, EOFError, OverflowError,
    MemoryError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)  # fmt: skip
"""What Pillow's decoders raise on damaged files, found by fuzzing them and reading its code."""


def require_channels(channels: int) -> None:
    """UserError unless pictures can be given as so many channels."""
    if channels not in (1, 3):
        raise UserError(f"the model wants images of {channels} channels; pictures have 1 or 3")


def _coding(image: Image.Image) -> str:
    """How the file stores a pixel, in Pillow's words, e.g. ``I;16B``; only known before loading."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return str(arguments[0] if isinstance(arguments, tuple) and arguments else arguments)


def _opaque(image: Image.Image, coding: str) -> Image.Image:
    """An image of 8 bits without transparency; ValueError for a mode that cannot be read."""
    if image.mode in WIDE:
        return _narrow(image, coding)
    mode = PREMULTIPLIED.get(image.mode, image.mode)
    if mode not in PLAIN:
        raise ValueError(f"mode {image.mode} is not read; save it with 8 bits a channel")
    image = image if mode == image.mode else image.convert(mode)
    if not image.has_transparency_data:
        return image
    key = image.info.get("transparency")
    if mode == "RGB" and coding.startswith("RGB;16"):
        raise ValueError("16-bit colour with one transparent colour is not read; give it 8 bits")
    if mode == "L" and isinstance(key, int):  # a grey level in the file's bits, not in 8
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}.get(coding, 1)
    return _on_background(image.convert("RGBA"))


def _on_background(image: Image.Image) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, BACKGROUND), image).convert("RGB")


def _narrow(image: Image.Image, coding: str) -> Image.Image:
    """Grey of 16 bits as 8: value * 255 / 65535, rounded; ValueError for another range."""
    if coding == "I;12":
        raise ValueError("12 bits a pixel are not read; save it with 8 or 16")
    if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
        raise ValueError("16-bit TIFF that counts from white is not read; save it with 8 bits")
    values = np.asarray(image).astype(np.int64)
    if image.format == "TIFF" and image.mode == "I":  # nothing says where 32 bits reach white
        low, high = int(values.min()), int(values.max())
        if low < 0 or not 255 < high < 1 << 16:
            raise ValueError(
                f"32-bit integers from {low} to {high} have no known white; save it with 8 or 16 "
                "bits"
            )
    grey = Image.fromarray(((values + 128) // 257).astype(np.uint8))
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return grey
    grey.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return _on_background(grey.convert("RGBA"))


def _require_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ValueError(f"{width} x {height} pixels; at most {MAX_PIXELS:,} are decoded")


def _resize(image: Image.Image, size: Size, path: Path) -> Image.Image:
    """Bilinear with antialiasing; UserError if a thin picture would grow without measure."""
    height, width = size
    if (width, height) == image.size:
        return image
    try:
        _require_size(width, height)
    except ValueError as error:
        raise UserError(
            f"'{path}' of {image.width} x {image.height} pixels would be resized to {error}; "
            "crop it"
        ) from error
    return image.resize((width, height), Image.Resampling.BILINEAR)


def pixels_of(image: Image.Image) -> Pixels:
    """uint8 ``[H, W, C]`` of a grey or RGB image."""
    pixels = np.asarray(image, np.uint8)
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def margin_for(size: Size) -> Size:
    """What a picture must cover before it is cropped to ``size``."""
    return round(size[0] * MARGIN), round(size[1] * MARGIN)


def covering(stored: Size, wanted: Size) -> Size:
    """``stored`` scaled, with its aspect kept, to cover ``wanted`` just so."""
    height, width = stored
    if wanted[0] * width >= wanted[1] * height:
        # the longer side is rounded down, as torchvision does
        return wanted[0], max(wanted[1], wanted[0] * width // height)
    return max(wanted[0], wanted[1] * height // width), wanted[1]


def centre(pixels: Pixels, size: Size) -> Pixels:
    """The middle ``size`` of ``[h, w, C]``."""
    top, left = ((have - want) // 2 for have, want in zip(pixels.shape[:2], size, strict=True))
    return pixels[top : top + size[0], left : left + size[1]]


def framed(path: Path, shape: tuple[int, int, int], remedy: str = TRAINING) -> Pixels:
    """A picture with a margin around what is evaluated: ``centre(framed(...), size)`` is that.

    Args:
        path: its file.
        shape: ``(H, W, C)`` of what is evaluated.
        remedy: ends the error.

    Returns:
        uint8 ``[h, w, C]`` with ``(h, w) = margin_for((H, W))``.

    Raises:
        UserError: as :func:`open_picture`, or a picture too thin to be resized.
    """
    image = open_picture(path, shape[2], remedy)
    margin = margin_for(shape[:2])
    size = covering((image.height, image.width), margin)
    pixels = pixels_of(_resize(image, size, path))
    # Not the middle of the picture: where half a pixel is left over on both cuts, the middle of
    # the middle would lie one pixel beside it.
    top, left = (
        (have - want) // 2 - (frame - want) // 2
        for have, want, frame in zip(size, shape[:2], margin, strict=True)
    )
    return pixels[top : top + margin[0], left : left + margin[1]]


def evaluated(path: Path, shape: tuple[int, int, int], remedy: str = TRAINING) -> Pixels:
    """A picture as photographs are evaluated: uint8 ``[H, W, C]``; UserError as above."""
    return centre(framed(path, shape, remedy), shape[:2])


def fitted(path: Path, shape: tuple[int, int, int]) -> Pixels:
    """A picture for a data set of fixed size: the largest centre part, resized to ``shape``.

    A picture of the right size keeps its pixels.

    Raises:
        UserError: as :func:`evaluated`.
    """
    image = open_picture(path, shape[2], PREDICTING)
    scale = max(shape[0] / image.height, shape[1] / image.width)
    size = max(shape[0], round(image.height * scale)), max(shape[1], round(image.width * scale))
    return centre(pixels_of(_resize(image, size, path)), shape[:2])
