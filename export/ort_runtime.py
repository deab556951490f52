"""ONNX Runtime behind the interface of :mod:`export.runtimes`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export import to_onnx, to_onnx_int8
from export.onnx_graph import DEFAULTS, INPUT_NAME, OUTPUT_NAME, Options, sign_outputs
from export.runtimes import Images, Logits, Milliseconds
from kernels import bits
from kernels.program import Program

FORMS = ("packed", "float", "int8")
LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


def session(model: bytes, level: str = "all", threads: int = 1) -> Any:
    """An inference session on the CPU with ``threads`` threads that do not spin."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def time_session(model: Any, feed: dict[str, Any], repeats: int) -> Milliseconds:
    """Milliseconds of ``repeats`` runs with inputs and outputs bound beforehand."""
    binding = model.io_binding()
    for name, value in feed.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(value))
    for output in model.get_outputs():
        binding.bind_output(output.name, "cpu")
    times = np.empty(repeats)
    for i in range(repeats):
        start = time.perf_counter_ns()
        model.run_with_iobinding(binding)
        times[i] = (time.perf_counter_ns() - start) / 1e6
    return times


def convert(program: Program, form: str, options: Options = DEFAULTS) -> bytes:
    """Bytes of the ONNX file of ``form``, one of :data:`FORMS`."""
    if form == "int8":
        return to_onnx_int8.convert(program, options)
    return to_onnx.convert(program, options, packed=form == "packed")


def feed(model: Any, images: Images) -> dict[str, NDArray[Any]]:
    """Input of a session of ours: uint8 NHWC, or float32 NCHW if that is what it takes."""
    if model.get_inputs()[0].type == "tensor(uint8)":
        return {INPUT_NAME: images}
    return {INPUT_NAME: np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)}


def packed_signs(values: NDArray[Any]) -> bits.Words:
    """Packed NHWC bits of a sign tensor NCHW: float32 +-1, or uint8 codes 0 and 2."""
    signs = values.astype(np.int8) - 1 if values.dtype == np.uint8 else values
    return bits.pack(signs.transpose(0, 2, 3, 1))


class OrtRuntime:
    """One of our ONNX files in ONNX Runtime.

    Args:
        program: the Program the file was made from (for the debug form that shows signs).
        model: the shipped bytes; converted from ``program`` if None.
        level: graph optimization level, a key of :data:`LEVELS`.
        threads: intra-op threads.
        form: which form ``model`` is, one of :data:`FORMS`.
    """

    def __init__(
        self,
        program: Program,
        model: bytes | None = None,
        level: str = "all",
        threads: int = 1,
        form: str = "packed",
    ) -> None:
        self.program = program
        parts = ["ort", *([form] if form != "packed" else []), *([level] if level != "all" else [])]
        self.name = ":".join(parts)
        shipped = convert(program, form) if model is None else model
        self.size_bytes = len(shipped)
        self._level, self._threads, self._form = level, threads, form
        self._session = session(shipped, level, threads)
        self._debug: Any = None

    def logits(self, images: Images) -> Logits:
        answer = self._session.run([OUTPUT_NAME], feed(self._session, images))
        return np.asarray(answer[0], dtype=np.float32)

    def signs(self, images: Images) -> dict[str, bits.Words]:
        if self._debug is None:
            model = convert(self.program, self._form, Options(debug=True))
            self._debug = session(model, self._level, self._threads)
        answers = self._debug.run(None, feed(self._debug, images))[1:]
        names = sign_outputs(self.program)
        return {name: packed_signs(each) for name, each in zip(names, answers, strict=True)}

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_session(self._session, feed(self._session, image), repeats)

    def close(self) -> None:
        self._session = self._debug = None
