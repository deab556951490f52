"""Whether an ONNX file is an export of a Program: the same graph, whatever its weights say.

ONNX Runtime folds constants and follows loops while it loads a file, so a small file can take all
memory and time there. What has the graph of our own export, sizes of arrays included, asks for no
more than that. Values of weights are left to the comparison with the reference.
"""

from __future__ import annotations

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto

from frostbit.export.errors import ExportError
from frostbit.export.onnx.graph import Options
from frostbit.export.onnx.runtime import convert
from frostbit.kernels.ir.program import Program

_WEIGHTS = {TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8}
"""Types of arrays whose values say nothing about sizes; shapes and axes are INT64."""
_ROOM = 1 << 16
"""Bytes of metadata that a file may have beside those of our export."""


def _graph_of(data: bytes) -> bytes:
    """The file without what may differ: values of weights, metadata, who wrote it.

    Raises:
        ExportError: it cannot be parsed.
    """
    try:
        model = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise ExportError("not an ONNX file, or damaged: it cannot be parsed") from error
    for field in ("metadata_props", "producer_name", "producer_version", "doc_string"):
        model.ClearField(field)
    for array in model.graph.initializer:
        if array.data_type in _WEIGHTS and array.data_location == TensorProto.DEFAULT:
            array.ClearField("raw_data")
    return bytes(model.SerializeToString(deterministic=True))


def require_export(data: bytes, program: Program, form: str) -> None:
    """Refuse a file that is no export of ``program``, before a runtime looks at it.

    Args:
        data: the file.
        program: what it should be made from.
        form: a form of :mod:`frostbit.export.onnx.runtime`.

    Raises:
        ExportError: its graph is another one.
    """
    choices = (False,) if program.input_kind == "f32" else (False, True)
    for options in map(Options, choices):
        own = convert(program, form, options)
        if len(data) <= len(own) + _ROOM and _graph_of(data) == _graph_of(own):
            return
    raise ExportError(
        "the ONNX file is not what this version exports of the model: it is one of another model "
        "or version, or was changed"
    )
