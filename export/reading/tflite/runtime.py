"""A .tflite file in Larq Compute Engine's own interpreter, with the values inside it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from frostbit.export.errors import LceError
from frostbit.export.lce.environment import version
from frostbit.export.lce.graph import to_words
from frostbit.export.lce.outputs import with_outputs
from frostbit.export.lce.runtime import Worker
from frostbit.export.lce.tflite_reader import read
from frostbit.export.lce.worker import Header
from frostbit.export.reading.tflite.source import value_names
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import ValueType
from frostbit.kernels.ir.reference import Array

SECONDS = 120.0
"""Allowed for one image."""


class LceSource:
    """The file beside the Program that was read from it.

    Args:
        data: the file; the interpreter runs a copy of it that gives more values.
        wanted: what it shall give: type of each value by the file's name.
        worker: to run it in, which stays open; None: a process of its own.

    Raises:
        RuntimeMissing: LCE's environment is not here.
        LceError: LCE refuses the file; later also if it crashes or hangs.
        ExportError: the file is damaged.
    """

    def __init__(
        self, data: bytes, wanted: Mapping[str, ValueType], worker: Worker | None = None
    ) -> None:
        model = read(data)
        places = {name: index for index, name in enumerate(value_names(model))}
        self._shape = model.tensors[model.inputs[0]].shape[1:]  # a row has no height and width
        self._wanted = dict(wanted)
        self._is_own, self._worker = worker is None, worker or Worker(SECONDS)
        try:
            copy = with_outputs(data, [places[name] for name in self._wanted])
            kernel = self._load(np.frombuffer(copy, np.uint8))
        except BaseException:
            self.close()
            raise
        self.name = f"Larq Compute Engine {version()} ({kernel} kernel)"

    def _load(self, copy: NDArray[np.uint8]) -> str:
        """Load the file with the first kernel that takes it; its default one knows no groups."""
        try:
            self._worker.ask(Header(op="load", model="source", kernel="default"), copy)
        except LceError:
            self._worker.ask(Header(op="load", model="source", kernel="indirect"), copy)
            return "indirect"
        return "default"

    def values(self, images: NDArray[np.float32]) -> dict[str, Array]:
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


def _map(array: Array, value: ValueType, count: int) -> Array:
    """An output of the interpreter as ``[N, H, W, C]``."""
    if array.dtype == np.int32:
        array = bits.unpack(to_words(array), value.shape[2])
    shape = (count, *value.shape)
    if array.size != np.prod(shape):
        raise LceError(f"LCE gives {list(array.shape)} for a map {list(value.shape)}")
    return array.reshape(shape).astype(np.int8 if value.kind == "bits" else np.float32)
