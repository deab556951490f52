"""The wheel of this very installation, made without a build tool, so that any machine can bundle.

A wheel is a zip of the packages and a ``dist-info`` folder with the hash of every file (PyPA,
Binary distribution format, version 1.0). Times are fixed: the same sources give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import io
import zipfile
from importlib import import_module, metadata
from pathlib import Path, PurePosixPath

from frostbit.export.version import VERSION
from frostbit.pipeline.bench import shipped
from frostbit.pipeline.errors import UserError

NAME = "frostbit"
PACKAGES = ("frostbit", "frostbit.kernels", "frostbit.export", "frostbit.pipeline")
COMMAND = "frostbit.pipeline.cli.main:main"
LEFT_OUT = ("__pycache__", "records")
"""Folders of the packages that a device does not need, but for :data:`SHIPPED`."""
SHIPPED = (shipped.MODEL.name, shipped.ANSWERS.name)
_WHEEL = "Wheel-Version: 1.0\nGenerator: frostbit\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_TIME = (1980, 1, 1, 0, 0, 0)


def add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    """Add a file to ``archive``, compressed, with a fixed time and mode."""
    info = zipfile.ZipInfo(name, _TIME)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)


def _sources() -> dict[str, bytes]:
    """Every file of our packages by its path in the wheel.

    In a checkout the packages lie beside ``frostbit``, installed they lie in it.
    """
    found = {}
    for package in PACKAGES:
        root = Path(str(import_module(package).__file__)).parent
        for path in sorted(root.rglob("*")):
            inside = path.relative_to(root)
            needed = path.name in SHIPPED or not set(inside.parts) & set(LEFT_OUT)
            if path.is_file() and needed:
                found[(PurePosixPath(*package.split(".")) / inside).as_posix()] = path.read_bytes()
    return found


def _distribution() -> metadata.Distribution:
    """What pip installed: a stale ``egg-info`` in the folder of a checkout has no METADATA.

    Raises:
        UserError: there is no installation to make a wheel of, or it is of other code than this.
    """
    for found in metadata.distributions(name=NAME):
        if found.read_text("METADATA"):
            if found.version != VERSION or COMMAND not in {
                each.value for each in found.entry_points
            }:
                raise UserError(
                    f"the installed {NAME} {found.version} is older than this code, so its wheel "
                    "cannot be made: install it again"
                )
            return found
    raise UserError("frostbit is not installed, so its wheel cannot be made: pip install frostbit")


def build() -> tuple[str, bytes]:
    """File name and bytes of the wheel."""
    distribution = _distribution()
    version = distribution.version
    info = f"{NAME}-{version}.dist-info"
    files = _sources()
    files[f"{info}/METADATA"] = (distribution.read_text("METADATA") or "").encode()
    files[f"{info}/entry_points.txt"] = (distribution.read_text("entry_points.txt") or "").encode()
    files[f"{info}/WHEEL"] = _WHEEL.encode()
    lines = [f"{name},{_digest(data)},{len(data)}\n" for name, data in files.items()]
    files[f"{info}/RECORD"] = "".join([*lines, f"{info}/RECORD,,\n"]).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            add(archive, name, data)
    return f"{NAME}-{version}-py3-none-any.whl", buffer.getvalue()


def _digest(data: bytes) -> str:
    encoded = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=")
    return f"sha256={encoded.decode()}"
