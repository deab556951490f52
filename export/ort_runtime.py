"""ONNX Runtime behind the interface of :mod:`export.runtimes`."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import onnxruntime as ort

from export import to_onnx
from export.runtimes import Images, Logits, Milliseconds
from kernels import bits
from kernels.program import Program

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


class OrtRuntime:
    """Our packed ``model.onnx`` in ONNX Runtime.

    Args:
        program: the Program the file was made from (for the debug form that shows signs).
        model: the shipped bytes; converted from ``program`` if None.
        level: graph optimization level, a key of :data:`LEVELS`.
        threads: intra-op threads.
    """

    def __init__(
        self, program: Program, model: bytes | None = None, level: str = "all", threads: int = 1
    ) -> None:
        self.program = program
        self.name = "ort" if level == "all" else f"ort:{level}"
        self.size_bytes = len(model or b"")
        self._level, self._threads = level, threads
        self._session = session(model or to_onnx.convert(program), level, threads)
        self._debug: Any = None

    def logits(self, images: Images) -> Logits:
        answer = self._session.run([to_onnx.OUTPUT_NAME], {to_onnx.INPUT_NAME: images})
        return np.asarray(answer[0], dtype=np.float32)

    def signs(self, images: Images) -> dict[str, bits.Words]:
        if self._debug is None:
            model = to_onnx.convert(self.program, debug=True)
            self._debug = session(model, self._level, self._threads)
        answers = self._debug.run(None, {to_onnx.INPUT_NAME: images})[1:]
        names = to_onnx.sign_outputs(self.program)
        return {
            name: bits.pack(answer.transpose(0, 2, 3, 1))
            for name, answer in zip(names, answers, strict=True)
        }

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_session(self._session, {to_onnx.INPUT_NAME: image}, repeats)

    def close(self) -> None:
        self._session = self._debug = None
