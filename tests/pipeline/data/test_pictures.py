"""Pictures from strangers: what is decoded, what is refused before it takes memory."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from frostbit.pipeline.data import pictures
from frostbit.pipeline.errors import UserError


def png(width: int, height: int) -> bytes:
    """A black PNG of any size, some kilobytes: rows are made one by one."""
    squeezer = zlib.compressobj(9)
    body = b"".join(squeezer.compress(bytes(1 + width)) for _ in range(height)) + squeezer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


@pytest.mark.parametrize("size", [(8200, 8200), (9500, 9500), (60000, 60000)])
def test_a_decompression_bomb_is_not_decoded(size: tuple[int, int], tmp_path: Path) -> None:
    """Also below Pillow's limits, which warn from 89 and refuse from 179 million pixels on."""
    path = tmp_path / "bomb.png"
    data = bytearray(png(10, 10))
    data[16:24] = struct.pack(">II", *size)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    path.write_bytes(bytes(data))
    with pytest.raises(UserError, match=r"bomb\.png.*(pixels|decompression)"):
        pictures.open_picture(path)


@pytest.mark.parametrize("size", [(1, 60000), (60000, 1)])
def test_a_thin_picture_does_not_grow_without_measure(
    size: tuple[int, int], tmp_path: Path
) -> None:
    path = tmp_path / "thin.png"
    path.write_bytes(png(*size))
    with pytest.raises(UserError, match=r"would be resized to .*crop it"):
        pictures.evaluated(path, (224, 224, 3))
    with pytest.raises(UserError, match=r"would be resized to .*crop it"):
        pictures.fitted(path, (224, 224, 3))


def test_a_true_picture_of_many_pixels_is_decoded_within_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png(3000, 2000))
    assert pictures.evaluated(path, (32, 32, 3)).shape == (32, 32, 3)


def test_what_a_file_is_decides_its_content(tmp_path: Path) -> None:
    """PostScript named .png never reaches an interpreter; other formats stay out as well."""
    eps = tmp_path / "photo.png"
    eps.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(UserError, match="cannot identify"):
        pictures.open_picture(eps)
    icon = tmp_path / "icon.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(icon, "ICO")
    with pytest.raises(UserError, match="cannot identify"):
        pictures.open_picture(icon)


def test_a_huge_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "huge.png"
    buffer = io.BytesIO(png(10, 10))
    path.write_bytes(buffer.getvalue())
    monkeypatch.setattr(pictures, "MAX_BYTES", 20)
    with pytest.raises(UserError, match="more than"):
        pictures.open_picture(path)
