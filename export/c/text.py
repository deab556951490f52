"""Pieces of C source text: safe names, comments, strings and array initializers.

Names come from files. In a comment every character that could end it, or splice a line, is
replaced; an identifier keeps ASCII letters and digits only and is unique by its number; a
string is escaped byte by byte.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from frostbit.export.errors import ExportError

LONGEST_STRING = 4095  # what every C99 compiler accepts
LONGEST_IN_COMMENT = 60
_UNSAFE = re.compile(r"[^A-Za-z0-9_.,:;+=()\[\]<>/ -]")
_PLAIN = re.compile(rb"[A-Za-z0-9_.,:;+=()\[\]<>/ -]")
_PER_LINE = {"u4": 8, "f4": 6, "i4": 12, "i2": 14, "i1": 18, "u1": 20}
_C_TYPES = {
    "u4": "uint32_t", "f4": "float", "i4": "int32_t", "i2": "int16_t", "i1": "int8_t",
    "u1": "uint8_t",
}  # fmt: skip


def comment(text: str) -> str:
    """``text`` made safe for the inside of a comment: one short line of harmless ASCII."""
    safe = _UNSAFE.sub("_", text)
    return safe if len(safe) <= LONGEST_IN_COMMENT else safe[: LONGEST_IN_COMMENT - 3] + "..."


def identifier(index: int, name: str) -> str:
    """Prefix of the identifiers of step ``index``, unique by its number."""
    return f"fb{index}_{re.sub('[^A-Za-z0-9]+', '_', name)[:32].strip('_')}".rstrip("_")


def string(text: str) -> str:
    """A C string literal of ``text`` in UTF-8.

    Raises:
        ExportError: if it has more bytes than C99 allows.
    """
    data = text.encode()
    if len(data) > LONGEST_STRING:
        raise ExportError(f"the class name '{comment(text)}' is longer than C strings may be")
    parts = [
        each.decode() if _PLAIN.fullmatch(each) else f"\\{each[0]:03o}"
        for each in (data[i : i + 1] for i in range(len(data)))
    ]
    return '"' + "".join(parts) + '"'


def number(value: float) -> str:
    """A float constant in hexadecimal: no compiler needs to round it."""
    mantissa, exponent = float(value).hex().split("p")
    return f"{mantissa.rstrip('0').rstrip('.')}p{int(exponent)}f"


def _items(values: NDArray[np.generic], code: str) -> list[str]:
    if code == "u4":
        digits = values.astype(">u4").tobytes().hex()
        return [f"0x{digits[i : i + 8]}" for i in range(0, len(digits), 8)]
    return [number(v) if code == "f4" else str(v) for v in values.tolist()]


def c_type(values: NDArray[np.generic]) -> str:
    """C type of the elements of ``values``."""
    return _C_TYPES[values.dtype.str[1:]]


def array(name: str, values: NDArray[np.generic]) -> str:
    """Definition of a static constant array with all elements of ``values`` in order."""
    flat = np.ascontiguousarray(values).reshape(-1)
    code = flat.dtype.str[1:]
    items, width = _items(flat, code), _PER_LINE[code]
    lines = [", ".join(items[i : i + width]) for i in range(0, len(items), width)]
    body = ",\n    ".join(lines)
    return f"static const {c_type(flat)} {name}[{flat.size}] = {{\n    {body}\n}};\n"
