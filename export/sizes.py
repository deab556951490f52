"""What binary weights take in a written file, measured on its bytes."""

from __future__ import annotations

import re

from frostbit.export.errors import ExportError
from frostbit.kernels.ir.program import BinaryConv, Program


def binary_weights(program: Program) -> int:
    """Number of binary weights of all layers."""
    return sum(op.channels_out * op.taps for op in program.ops if isinstance(op, BinaryConv))


def bits_per_weight(file: str, data: bytes, program: Program) -> float | None:
    """Bits that the file spends on a binary weight: 1 and a little, or 32 where it is a float.

    All that exists because of the weights counts: the array, and in ONNX the tables, shapes and
    nodes that unpack it.

    Args:
        file: name of the file; its ending tells the format.
        data: its bytes.
        program: the Program that it was made from.

    Returns:
        None for a Program without binary weights.

    Raises:
        ExportError: for a file of another format.
    """
    count = binary_weights(program)
    if count == 0:
        return None
    for ending, spent in SPENT.items():
        if file.endswith(ending):
            return 8 * spent(data, program) / count
    raise ExportError(f"the size of weights in '{file}' is not known: no {', '.join(SPENT)} file")


def _names(program: Program) -> set[str]:
    return {op.name for op in program.ops if isinstance(op, BinaryConv)}


def _onnx(data: bytes, program: Program) -> int:
    import onnx

    from frostbit.export.onnx.graph import relabelled

    graph = onnx.load_from_string(data).graph
    names = _names(relabelled(program))
    return sum(
        part.ByteSize()
        for part in (*graph.initializer, *graph.node)
        if part.name.startswith("lut/")
        or (part.name.split("/")[0] in names and "/weights" in part.name)
    )


def _tflite(data: bytes, program: Program) -> int:
    from frostbit.export.lce.tflite_reader import read

    owners = tuple(f"{name}/" for name in _names(program))
    return sum(
        tensor.bytes
        for tensor in read(data).tensors
        if tensor.name.endswith("/weights") and tensor.name.startswith(owners)
    )


def _bnn(data: bytes, program: Program) -> int:
    from safetensors.numpy import load

    stored = load(data)
    return sum(stored[f"{name}/words"].nbytes for name in _names(program))


def _c(data: bytes, program: Program) -> int:
    found = re.search(rb"\(([\d,]+) of them for [\d,]+ binary weights", data)
    if found is None:
        raise ExportError("the C file does not say what its weights take: not one of ours")
    return int(found[1].replace(b",", b""))


SPENT = {".onnx": _onnx, ".qonnx": _onnx, ".tflite": _tflite, ".bnn": _bnn, ".c": _c}
