"""What a file may ask for: sizes and names, checked in Python's integers, which do not overflow.

Everything here is looked at before memory is taken and before a library or a kernel sees the
file. The limits lie far above what a network for devices needs.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any

from frostbit.kernels.ir.foreign import remedy
from frostbit.kernels.ir.program import MAX_OPS, FormatError, Program

MAX_FILE_BYTES = 1 << 30
"""A binary ResNet-152 takes some 16 MB."""
MAX_HEADER_BYTES = 1 << 24
"""4 KiB for each of the most ops."""
MAX_TENSORS = 4 * MAX_OPS
"""No op has more."""
MAX_AXES = 4
"""Of convolution weights."""
MAX_TAPS = 1 << 24
"""Products of one output: float32 counts that far without rounding."""
MAX_ROW_WORDS = 1 << 20
"""Words that the weights of one output channel take in memory, tail bits included."""
MAX_WORDS = 1 << 27
"""The same for a whole layer: 1 GiB. A file of 1-bit rows could ask for 64 times its size."""
MAX_NAME = 256
"""Characters: a path of modules has some dozens."""
_DTYPES = {"F32": 4, "I32": 4, "U8": 1}
_UNSEEN = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\u2028-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Control characters, line ends, changes of direction, halves of characters: what could forge
a terminal's output or a line of a report."""


def read_header(data: bytes) -> dict[str, Any]:
    """The file's header after a look at every size in it, before anything is allocated.

    Raises:
        FormatError: too large, truncated, no JSON, or a tensor that does not fit its place.
    """
    if len(data) < 8:
        raise FormatError("the file is too short to be a model")
    found = remedy(data)
    if found is not None:
        raise FormatError(found)
    if len(data) > MAX_FILE_BYTES:
        raise FormatError(f"larger than {MAX_FILE_BYTES} bytes")
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise FormatError("the file is truncated or not a model")
    if length > MAX_HEADER_BYTES:
        raise FormatError(f"its header is larger than {MAX_HEADER_BYTES} bytes")
    try:
        header = json.loads(data[8 : 8 + length])
        tensors = [value for key, value in header.items() if key != "__metadata__"]
        if len(tensors) > MAX_TENSORS:
            raise FormatError(f"more than {MAX_TENSORS} tensors")
        if not all(_fits(each, len(data) - 8 - length) for each in tensors):
            raise FormatError("a tensor has an impossible dtype, shape or place")
    except FormatError:
        raise
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("the file is not a Frostbit model or its header is damaged") from error
    return dict(header)


def _fits(tensor: Any, size: int) -> bool:
    """Whether a tensor's shape (in Python's integers: no overflow) fills its place in the file."""
    start, stop = tensor["data_offsets"]
    dims = [*tensor["shape"], start, stop]
    if not all(type(n) is int and 0 <= n <= MAX_FILE_BYTES for n in dims):
        return False
    wanted = math.prod(tensor["shape"]) * _DTYPES[tensor["dtype"]]
    return len(tensor["shape"]) <= MAX_AXES and start + wanted == stop <= size


def check_words(outputs: int, taps: int, row: int, what: str) -> None:
    """Refuse binary weights that cannot be counted exactly or would fill the memory.

    Args:
        outputs: output channels.
        taps: products of one output.
        row: words of one output channel.
        what: beginning of the error's text.

    Raises:
        FormatError: one of them is too large.
    """
    if taps > MAX_TAPS or row > MAX_ROW_WORDS or row * outputs > MAX_WORDS:
        raise FormatError(f"{what} is too large: {outputs} outputs of {taps} weights")


def check_name(name: str) -> None:
    """FormatError if ``name`` is longer than 256 characters or could forge a line of output."""
    if len(name) > MAX_NAME or _UNSEEN.search(name):
        raise FormatError(
            f"the name {name[:40]!a} is longer than {MAX_NAME} characters or has a control "
            "character"
        )


def check_names(program: Program) -> None:
    """Check every text of ``program``: they are shown to people and written into other files."""
    for op in program.ops:
        check_name(op.name)
    for name in (*program.classes, program.dataset, program.settled_hash):
        check_name(name)
