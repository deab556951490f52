"""Every kind of picture that a camera, a scanner or a drawing program leaves: right, or refused."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from frostbit.pipeline.data import pictures
from frostbit.pipeline.errors import UserError

WHITE = 255
ORIENTED: dict[int, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
"""How the rows and columns of a stored picture are put upright, by EXIF orientation."""
RAMP = np.array([0, 1, 128, 129, 300, 4095, 32768, 65534, 65535], np.uint16)
"""Grey levels of 16 bits, some beside a rounding edge."""
NARROW = np.round(RAMP * (255 / 65535)).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(depth: int, colour: int, width: int, row: bytes, extra: bytes = b"") -> bytes:
    """A PNG of one row in any depth and colour type, also those that Pillow does not write."""
    head = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" + row)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra + body


def read(path: Path, channels: int = 3) -> NDArray[np.uint8]:
    return pictures.pixels_of(pictures.open_picture(path, channels))


def read_bytes(folder: Path, data: bytes, channels: int = 3) -> list[list[int]]:
    """Pixels of the only row."""
    path = folder / "made.png"
    path.write_bytes(data)
    return cast(list[list[int]], read(path, channels)[0].tolist())


def composited(colour: NDArray[np.uint8], alpha: NDArray[np.uint8]) -> NDArray[np.float64]:
    """What shows of ``colour`` before white."""
    share = alpha[..., None] / 255
    return colour * share + WHITE * (1 - share)


@pytest.mark.parametrize("kind", ["png", "tiff", "big", "lzw", "pgm", "int-tiff"])
def test_grey_of_16_bits_is_scaled_and_rounded(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"grey.{'png' if 'png' in kind else 'tiff'}"
    if kind == "pgm":
        path.write_bytes(b"P5 9 1 65535\n" + RAMP.astype(">u2").tobytes())
    else:
        values = RAMP.astype({"big": ">u2", "int-tiff": "i4"}.get(kind, "u2"))
        extra = {"compression": "tiff_lzw"} if kind == "lzw" else {}
        Image.fromarray(values[None]).save(path, **extra)
    assert read(path, 1)[0, :, 0].tolist() == NARROW.tolist()
    assert read(path, 3)[0, :, 2].tolist() == NARROW.tolist()


def test_every_grey_level_of_16_bits(tmp_path: Path) -> None:
    levels = np.arange(1 << 16, dtype=np.uint16)
    Image.fromarray(levels.reshape(256, 256)).save(tmp_path / "all.png")
    wanted = np.round(levels.astype(np.float64) * 255 / 65535).astype(np.uint8)
    assert np.array_equal(read(tmp_path / "all.png", 1).ravel(), wanted)


@pytest.mark.parametrize("ending", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", ORIENTED)
def test_a_picture_stands_upright(ending: str, orientation: int, tmp_path: Path) -> None:
    stored = np.zeros((32, 64, 3), np.uint8)
    stored[:16, :32, 0], stored[16:, :32, 1], stored[:16, 32:, 2] = 250, 250, 250
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"turned.{ending}"
    Image.fromarray(stored).save(path, exif=exif, quality=100)
    wanted = ORIENTED[orientation](stored)
    found = read(path)
    assert found.shape == wanted.shape
    inner = np.abs(found[8::16, 8::16].astype(int) - wanted[8::16, 8::16])  # edges blur in JPEG
    assert inner.max() <= 12


def test_16_bits_and_grey_stand_upright_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 6
    stored = (np.arange(6, dtype=np.uint16) * 9000).reshape(2, 3)
    for name in ("a.png", "a.tif"):
        Image.fromarray(stored).save(tmp_path / name, exif=exif)
        wanted = np.round(np.rot90(stored, -1) / 257).astype(np.uint8)
        assert np.array_equal(read(tmp_path / name, 1)[..., 0], wanted)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from(["RGBA", "LA"]), st.sampled_from([1, 3]))
def test_transparent_pixels_show_white(
    tmp_path_factory: pytest.TempPathFactory, seed: int, mode: str, channels: int
) -> None:
    rng = np.random.default_rng(seed)
    colour = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    if mode == "LA":
        colour[:] = colour[..., :1]
    alpha = rng.choice(np.array([0, 1, 127, 254, 255], np.uint8), (5, 7))
    path = tmp_path_factory.mktemp("alpha") / "a.png"
    Image.fromarray(np.dstack([colour, alpha])).convert(mode).save(path)
    wanted = composited(colour, alpha)
    if channels == 1:
        wanted = (wanted @ [0.299, 0.587, 0.114])[..., None]
    assert np.abs(read(path, channels) - wanted).max() <= 1.01


def test_transparent_grey_levels_are_in_the_files_bits(tmp_path: Path) -> None:
    for depth, row, key, wanted in (
        (1, b"\x50", 1, [0, 255, 0, 255]),  # white shows white
        (1, b"\x50", 0, [255, 255, 255, 255]),
        (2, b"\x1b", 2, [0, 85, 255, 255]),
        (4, b"\x5a\x0f", 5, [255, 170, 0, 255]),
        (8, bytes([5, 9, 0, 255]), 5, [255, 9, 0, 255]),
        (16, struct.pack(">4H", 300, 301, 0, 65535), 300, [255, 1, 0, 255]),
    ):
        data = png(depth, 0, 4, row, chunk(b"tRNS", struct.pack(">H", key)))
        for channels in (1, 3):
            found = read_bytes(tmp_path, data, channels)
            assert found == [[value] * channels for value in wanted], depth


def test_transparent_colours_and_palettes(tmp_path: Path) -> None:
    key = chunk(b"tRNS", struct.pack(">3H", 1, 2, 3))
    assert read_bytes(tmp_path, png(8, 2, 2, bytes([1, 2, 3, 4, 5, 6]), key)) == [
        [WHITE] * 3, [4, 5, 6],
    ]  # fmt: skip
    palette = chunk(b"PLTE", bytes([10, 20, 30, 40, 50, 60, 0, 0, 0]))
    plain = png(8, 3, 3, bytes([0, 1, 2]), palette)
    assert read_bytes(tmp_path, plain) == [[10, 20, 30], [40, 50, 60], [0, 0, 0]]
    for alphas, first in ((b"\0\xff", [WHITE] * 3), (b"\x80", [132, 137, 142])):
        found = read_bytes(
            tmp_path, png(8, 3, 3, bytes([0, 1, 2]), palette + chunk(b"tRNS", alphas))
        )
        assert found == [first, [40, 50, 60], [0, 0, 0]]


def test_colour_of_16_bits_keeps_its_upper_byte(tmp_path: Path) -> None:
    row = struct.pack(">6H", 300, 769, 65535, 0, 32768, 255)
    assert read_bytes(tmp_path, png(16, 2, 2, row)) == [[1, 3, 255], [0, 128, 0]]
    row = struct.pack(">4H", 300, 65535, 0, 0)
    assert read_bytes(tmp_path, png(16, 4, 2, row)) == [[1, 1, 1], [WHITE] * 3]


@pytest.mark.parametrize("ending", ["png", "gif", "webp", "tif"])
def test_of_an_animation_the_first_frame_counts(ending: str, tmp_path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ((250, 0, 0), (0, 250, 0))]
    path = tmp_path / f"moving.{ending}"
    frames[0].save(path, save_all=True, append_images=frames[1:], lossless=True)
    with Image.open(path) as image:
        assert getattr(image, "n_frames", 1) == 2
    assert read(path)[8, 8].tolist() == [250, 0, 0]


@pytest.mark.parametrize(
    ("mode", "ending"),
    [("1", "png"), ("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "tif"), ("P", "gif"), ("PA", "tif")],
)
def test_other_modes_mean_their_colours(mode: str, ending: str, tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 16), (255, 255, 255))
    image.paste((0, 0, 0), (0, 0, 8, 16))
    path = tmp_path / f"picture.{ending}"
    source = image.convert("P").convert("PA") if mode == "PA" else image.convert(mode)
    source.save(path, **({"quality": 100} if ending == "jpg" else {}))
    found = read(path).astype(int)
    assert np.abs(found[4, 2] - 0).max() <= 3
    assert np.abs(found[4, 13] - 255).max() <= 3


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (Image.fromarray(np.ones((4, 4), np.float32)), "mode F"),
        (Image.new("LAB", (4, 4)), "mode LAB"),
        (Image.fromarray(np.full((4, 4), 200, np.int32)), "32-bit integers from 200 to 200"),
        (Image.fromarray(np.full((4, 4), 70000, np.int32)), "32-bit integers"),
        (Image.fromarray(np.full((4, 4), -1, np.int32)), "32-bit integers"),
    ],
)
def test_what_leaves_its_range_open_is_refused(
    image: Image.Image, words: str, tmp_path: Path
) -> None:
    image.save(tmp_path / "odd.tif")
    with pytest.raises(UserError, match=rf"odd\.tif.*{words}"):
        read(tmp_path / "odd.tif")


def test_ambiguous_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(RAMP[None]).save(tmp_path / "white.tif", tiffinfo={262: 0})
    with pytest.raises(UserError, match="counts from white"):
        read(tmp_path / "white.tif")
    key = chunk(b"tRNS", struct.pack(">3H", 0, 0, 0))
    with pytest.raises(UserError, match="16-bit colour with one transparent colour"):
        read_bytes(tmp_path, png(16, 2, 1, bytes(6), key))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.png")  # opening one would wait for ever
    with pytest.raises(UserError, match="no regular file"):
        read(tmp_path / "pipe.png")


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 256), st.integers(1, 256)),
)
def test_the_margin_is_around_the_crop(stored: tuple[int, int], size: tuple[int, int]) -> None:
    """``covering`` covers just so, and a frame's middle is the picture's, to the pixel."""
    margin = pictures.margin_for(size)
    whole = pictures.covering(stored, margin)
    assert all(have >= want for have, want in zip(whole, margin, strict=True))
    assert whole[0] == margin[0] or whole[1] == margin[1]
