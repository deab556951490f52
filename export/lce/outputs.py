"""A copy of a .tflite file that also gives values from the middle of its graph.

TFLite reuses the memory of a value once nothing reads it any more; an output of the graph is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from frostbit.export.errors import ExportError
from frostbit.export.lce.tflite_reader import root_table


def with_outputs(data: bytes, tensors: Sequence[int]) -> bytes:
    """The file ``data`` with ``tensors`` (indices of the main graph) as the graph's outputs.

    Only the reference to the list of outputs is changed; the new list is appended.

    Raises:
        ExportError: it is not TFLite, damaged, or without an output.
    """
    graphs = root_table(data).tables(2)
    place = graphs[0].place(2) if graphs else None
    if place is None:
        raise ExportError("the TFLite file has no graph, or one without outputs")
    padded = data + bytes(-len(data) % 4)
    changed = bytearray(padded + struct.pack(f"<I{len(tensors)}i", len(tensors), *tensors))
    struct.pack_into("<I", changed, place, len(padded) - place)
    return bytes(changed)
