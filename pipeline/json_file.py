"""JSON from files, held to a schema: the one place where this package reads any.

A schema is a ``msgspec.Struct`` beside the code that uses the document. Types, bounds and missing
fields are checked while the text is read. Numbers beyond a double (``1e999``, 400 digits), NaN and
infinity are none in JSON. Fields that no schema names are kept and must not be relied on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta, Struct

from frostbit.pipeline.console import shown

MAX_BYTES = 1 << 26
MAX_LEVELS = 32
"""Objects and lists inside each other, in a field that no schema names."""
Text = Annotated[str, Meta(max_length=1000)]
Name = Annotated[str, Meta(max_length=256)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Meta(ge=0, le=1 << 53)]
"""Up to where a double counts."""
Positive = Annotated[float, Meta(gt=0, le=1e12)]
Percent = Annotated[float, Meta(ge=0, le=100)]
Number = Annotated[float, Meta(ge=-1e30, le=1e30)]
_KEY = re.compile(rb'"((?:[^"\\]|\\.)*)"\s*:')
_BYTE = re.compile(r"\(byte (\d+)\)")
_S = TypeVar("_S", bound=Struct)


class JsonError(ValueError):
    """What is wrong with a document, and in which field; one line."""


def parse(data: bytes, schema: type[_S]) -> _S:
    """``data`` as ``schema`` has it.

    Raises:
        JsonError: it is no JSON, or something in it is not as the schema says.
    """
    try:
        return msgspec.json.decode(data, type=schema)
    except RecursionError as error:
        raise JsonError("it is nested too deeply") from error
    except (msgspec.MsgspecError, ValueError) as error:
        raise JsonError(_reason(str(error), data)) from error


def document(data: bytes, schema: type[Struct]) -> dict[str, Any]:
    """``data`` as plain dictionaries and lists, after :func:`parse` found nothing wrong."""
    parse(data, schema)
    try:
        found: dict[str, Any] = msgspec.json.decode(data)
    except (RecursionError, ValueError) as error:  # in a field that the schema leaves open
        raise JsonError(_reason(str(error), data)) from error
    level: list[Any] = [found]
    for _ in range(MAX_LEVELS):
        level = [inner for each in level for inner in _inside(each)]
    if level:
        raise JsonError("it is nested too deeply")
    return found


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def read_bytes(path: Path) -> bytes:
    """A file of at most 64 MB.

    Raises:
        OSError: it cannot be read.
        JsonError: it is larger.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise JsonError(f"it is larger than {MAX_BYTES >> 20} MB")
    return data


def _reason(text: str, data: bytes) -> str:
    """msgspec's message for a person; where it counts bytes, the field before them is named."""
    found = _BYTE.search(text)
    if found is None:
        return shown(text.replace(" - at `$", " at `").replace("`.", "`"))
    keys = _KEY.findall(data, 0, int(found[1]) + 1)
    where = f", after the field '{keys[-1][:80].decode(errors='replace')}'" if keys else ""
    return shown(text + where)
