"""Files of other formats, known by how they begin, so that an error can say what to do."""

from __future__ import annotations

_ONNX_VERSIONS = range(1, 32)
_ONNX_FIELDS = {0x12, 0x1A, 0x22, 0x2A, 0x32, 0x3A, 0x42}
"""What may follow ``ir_version``: producer, domain, model version, text, graph, operator sets."""


def foreign(data: bytes) -> str | None:
    """What ``data`` is instead of a .bnn, in words; None if it may be one or is unknown."""
    if data[8:9] == b"{":  # the header of safetensors
        return None
    if data[4:8] == b"TFL3":
        return "a TensorFlow Lite file"
    if data[:1] == b"\x08" and len(data) > 2 and data[1] in _ONNX_VERSIONS:
        return "an ONNX file" if data[2] in _ONNX_FIELDS else None
    return None


def remedy(data: bytes) -> str | None:
    """One line for someone who gave ``data`` for a .bnn; None if :func:`foreign` knows nothing."""
    kind = foreign(data)
    if kind is None:
        return None
    return (
        f"this is {kind}, and a packed model (.bnn) is needed: name the .bnn that it was exported "
        "from; 'pipeline summary' shows what is in it"
    )
