"""A .tflite file in Larq Compute Engine's own interpreter, with the values inside it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from frostbit.export.errors import LceError
from frostbit.export.inputs import Images
from frostbit.export.lce.environment import version
from frostbit.export.lce.graph import to_words
from frostbit.export.lce.outputs import with_outputs
from frostbit.export.lce.runtime import Worker
from frostbit.export.lce.tflite_reader import read
from frostbit.export.lce.worker import Header
from frostbit.export.reading.compare import wanted
from frostbit.export.reading.imported import Imported
from frostbit.export.reading.tflite.source import value_names
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import BinaryConv, Program, Threshold, ValueType
from frostbit.kernels.ir.reference import Array
from frostbit.kernels.ir.verify import infer_types

SECONDS = 120.0
"""Allowed for one image."""


class LceSource:
    """The file beside the Program that was read from it.

    Args:
        data: the file; the interpreter runs a copy of it that gives more values.
        imported: what was read; the interpreter gives every value that it has too.
        worker: to run it in, which stays open; None: a process of its own.

    Raises:
        RuntimeMissing: LCE's environment is not here.
        LceError: LCE refuses the file; later also if it crashes or hangs.
        ExportError: the file is damaged.
    """

    def __init__(self, data: bytes, imported: Imported, worker: Worker | None = None) -> None:
        model = read(data)
        places = {name: index for index, name in enumerate(value_names(model))}
        self._shape = model.tensors[model.inputs[0]].shape[1:]  # a row has no height and width
        self._wanted = wanted(imported)
        self._is_own, self._worker = worker is None, worker or Worker(SECONDS)
        try:
            copy = with_outputs(data, [places[name] for name in self._wanted])
            kernel = self._load(np.frombuffer(copy, np.uint8), _kernels(imported.program))
        except BaseException:
            self.close()
            raise
        self.name = f"Larq Compute Engine {version()} ({kernel} kernel)"

    def _load(self, copy: NDArray[np.uint8], kernels: tuple[str, ...]) -> str:
        """Load the file with the first of ``kernels`` that takes it, and return its name."""
        first, *others = kernels
        try:
            self._worker.ask(Header(op="load", model="source", kernel=first, threads=1), copy)
        except LceError:
            if not others:
                raise
            return self._load(copy, tuple(others))
        return first

    def values(self, images: Images) -> dict[str, Array]:
        """Every wanted value of float32 ``[N, H, W, C]``: float32, or int8 of +1 and -1."""
        shaped = images.reshape(len(images), *self._shape)
        found = self._worker.ask({"op": "run", "model": "source"}, shaped)
        return {
            name: _map(array, value, len(images))
            for array, (name, value) in zip(found, self._wanted.items(), strict=True)
        }

    def close(self) -> None:
        """End the interpreter's process, if it is its own."""
        if self._is_own:
            self._worker.close()


def _kernels(program: Program) -> tuple[str, ...]:
    """LCE's kernels that compute ``program`` rightly, the usual one first.

    The default one knows no groups. Both it and the indirect one are wrong for zero padding on a
    map smaller than the kernel; the reference kernel crashes where a convolution gives bits.
    """
    types = infer_types(program)
    convs = [op for op in program.ops if isinstance(op, BinaryConv)]
    is_small = any(
        op.pad_value == 0 and any(op.window.pads)
        and any(np.less(types[op.inputs[0]].shape[:2], op.window.kernel))
        for op in convs
    )  # fmt: skip
    gives_bits = any(isinstance(op.epilogue, Threshold) for op in convs)
    return ("reference",) if is_small and not gives_bits else ("default", "indirect")


def _map(array: Array, value: ValueType, count: int) -> Array:
    """An output of the interpreter as ``[N, H, W, C]``."""
    if array.dtype == np.int32:
        array = bits.unpack(to_words(array), value.shape[2])
    shape = (count, *value.shape)
    if array.size != np.prod(shape):
        raise LceError(f"LCE gives {list(array.shape)} for a map {list(value.shape)}")
    return array.reshape(shape).astype(np.int8 if value.kind == "bits" else np.float32)
