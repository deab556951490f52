"""Larq Compute Engine's interpreter behind two pipes; run by LCE's own environment.

LCE's wheel needs numpy 1, so :mod:`frostbit.export.lce.runtime` starts this file with the Python of
:mod:`frostbit.export.lce.environment`. Only the standard library, numpy and LCE are imported, and
LCE's package is stubbed because its ``__init__`` imports TensorFlow, which the interpreter does not
need.

Protocol, both ways: a frame is the header's length (uint32, little-endian), the header (JSON
with ``arrays``: dtype and shape of each), then the arrays' raw bytes. Requests, in ``op``:

* ``load`` ``{model, kernel, threads}`` + the file's bytes; ``model`` is the name to keep it under;
* ``run`` ``{model}`` + images ``[N, H, W, C]`` -> every output of the graph, stacked;
* ``time`` ``{model, repeats}`` + one image -> float64 ``[repeats]`` milliseconds, measured
  around the interpreter's own ``predict`` (it includes copying input and output).

A reply with ``error`` says what went wrong. The end of the input ends the worker.
"""

from __future__ import annotations

import importlib.util
import json
import os
import struct
import sys
import time
import types
from collections.abc import Sequence
from typing import IO, Protocol, TypedDict

import numpy as np
from numpy.typing import NDArray

KERNELS = {
    "default": {},
    "indirect": {"use_indirect_bgemm": True},
    "reference": {"use_reference_bconv": True},
}
LENGTH = struct.Struct("<I")
Array = NDArray[np.generic]


class Header(TypedDict, total=False):
    """What may stand in a frame beside its arrays."""

    op: str
    model: str
    kernel: str
    threads: int
    repeats: int
    error: str


class Interpreter(Protocol):
    """What is used of LCE's own."""

    def predict(self, inputs: Sequence[Array], /) -> list[Array]:
        """Outputs of one batch."""


def send(stream: IO[bytes], header: Header, arrays: list[Array]) -> None:
    """Write one frame."""
    arrays = [np.ascontiguousarray(array) for array in arrays]
    described = [{"dtype": array.dtype.str, "shape": array.shape} for array in arrays]
    text = json.dumps({**header, "arrays": described}).encode()
    stream.write(LENGTH.pack(len(text)) + text)
    for array in arrays:
        stream.write(array.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[Header, list[Array]]:
    """Read one frame; raises EOFError where the stream ends."""
    header = json.loads(_exactly(stream, LENGTH.unpack(_exactly(stream, LENGTH.size))[0]))
    arrays = []
    for described in header.pop("arrays"):
        dtype, shape = np.dtype(described["dtype"]), tuple(described["shape"])
        size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        arrays.append(np.frombuffer(_exactly(stream, size), dtype).reshape(shape))
    return header, arrays


def _exactly(stream: IO[bytes], size: int) -> bytes:
    data = stream.read(size)
    if len(data) != size:
        raise EOFError("the stream ended inside a frame")
    return data


def load(model: bytes, kernel: str, threads: int) -> Interpreter:
    """LCE's low-level interpreter with the named kernel."""
    name = "larq_compute_engine"
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is None:
            raise ImportError(f"{name} is not installed in this environment")
        stub = types.ModuleType(name)
        stub.__path__ = list(spec.submodule_search_locations or ())
        sys.modules[name] = stub
    from larq_compute_engine.tflite.python import interpreter

    made = interpreter.Interpreter(model, num_threads=threads, **KERNELS[kernel])
    low: Interpreter = made.interpreter
    return low


def run(interpreter: Interpreter, images: Array) -> list[Array]:
    rows = [interpreter.predict([image[np.newaxis]]) for image in images.astype(np.float32)]
    return [np.concatenate(column) for column in zip(*rows, strict=True)]


def measure(interpreter: Interpreter, image: Array, repeats: int) -> Array:
    inputs = [image.astype(np.float32)]
    elapsed = np.empty(repeats, np.float64)
    for index in range(repeats):
        start = time.perf_counter_ns()
        interpreter.predict(inputs)
        elapsed[index] = (time.perf_counter_ns() - start) / 1e6
    return elapsed


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until the input ends."""
    models: dict[str, Interpreter] = {}
    while True:
        try:
            header, arrays = receive(requests)
        except EOFError:
            return
        results: list[Array] = []
        answer: Header = {}
        try:
            if header["op"] == "load":
                name, kernel, threads = header["model"], header["kernel"], header["threads"]
                models[name] = load(arrays[0].tobytes(), kernel, threads)
            elif header["op"] == "run":
                results = run(models[header["model"]], arrays[0])
            else:
                results = [measure(models[header["model"]], arrays[0], header["repeats"])]
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        send(replies, answer, results)


def main() -> None:
    """Serve on the standard streams; whatever native code prints goes to stderr."""
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(sys.stdin.buffer, replies)


if __name__ == "__main__":
    main()
