"""Front end for .tflite files: TensorFlow Lite's operators and Larq Compute Engine's.

Values and constants of float32 (float16 constants are widened), and signs packed in int32 words.
Graphs of quantised integers are refused. Every result is checked against the shape that the file
states; what an operator means is TensorFlow Lite's reference kernels' (``tensorflow/lite``) and,
for LCE's, ``larq_compute_engine/core`` and ``tflite/kernels`` of larq/compute-engine.
"""

from __future__ import annotations

from frostbit.export.errors import ExportError
from frostbit.export.lce.tflite_reader import FLOAT32, Model, read
from frostbit.export.reading.graph import Builder, Graph, refused
from frostbit.export.reading.tflite.call import Call
from frostbit.export.reading.tflite.constants import FOLDS
from frostbit.export.reading.tflite.options import is_known
from frostbit.export.reading.tflite.rules import RULES
from frostbit.export.reading.tflite.source import QUANTIZED, Source
from frostbit.kernels.ir.program import MAX_OPS, FormatError

KIND = "TensorFlow Lite"
KIND_LCE = "TensorFlow Lite with Larq Compute Engine's operators"


def _one(model: Model, indices: tuple[int, ...], what: str) -> int:
    if len(indices) != 1:
        names = ", ".join(f"'{model.tensors[index].name}'" for index in indices[:4]) or "none"
        raise FormatError(f"has {len(indices)} {what}s ({names}); one is needed")
    return indices[0]


def _check_model(model: Model) -> None:
    if model.further_graphs:
        raise FormatError(
            f"has {model.further_graphs} graphs beside the main one (branches or loops), which "
            "cannot be read"
        )
    if len(model.operators) > MAX_OPS:
        raise FormatError(f"has {len(model.operators)} operators, more than {MAX_OPS}")


def _step(call: Call) -> None:
    """Read one operator: a constant of constants, or a node."""
    present = [index for index in call.operator.inputs if index >= 0]
    on_constants = all(call.source.is_constant(index) for index in present)
    name, count = call.operator.name, len(call.operator.inputs)
    if name not in (FOLDS if on_constants else RULES):
        where = "on constants" if on_constants else "on a map"
        raise call.refused(f"cannot be read {where}")
    rule, fewest, most = (FOLDS if on_constants else RULES)[name]
    if not fewest <= count <= most:
        raise call.refused(f"has {count} inputs, not {fewest} to {most}")
    rule(call)
    call.source.release(call.operator)


def read_graph(data: bytes) -> Graph:
    """The graph of the bytes of a .tflite file.

    Raises:
        FormatError: not TFLite, damaged, or something that cannot be read, by operator and layer.
    """
    try:
        return _read_graph(data)
    except ExportError as error:
        raise FormatError(str(error)) from error


def _read_graph(data: bytes) -> Graph:
    model = read(data)
    _check_model(model)
    source = Source(data, model)
    first, last = _one(model, model.inputs, "input"), _one(model, model.outputs, "output")
    if model.tensors[first].type != FLOAT32:
        raise FormatError(f"the input '{source.name(first)}' is not float32: {QUANTIZED}")
    has_lce = any(operator.is_custom for operator in model.operators)
    shape = source.shape(first, "the input", in_a_row=True)
    builder = Builder(source.name(first), shape, KIND_LCE if has_lce else KIND, len(data))
    for operator in model.operators:
        if not is_known(operator):
            why = QUANTIZED if operator.name == "QUANTIZE" else "this operator cannot be read"
            raise refused(source.layer(operator), why)
        _step(Call(source, builder, operator))
    return builder.graph(source.name(last))
