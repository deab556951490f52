"""ONNX Runtime behind the interface of :mod:`frostbit.export.runtimes`."""

from __future__ import annotations

import time

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from frostbit.export.errors import ExportError
from frostbit.export.onnx import int8 as to_onnx_int8
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx import qonnx as to_qonnx
from frostbit.export.onnx.graph import DEFAULTS, INPUT_NAME, OUTPUT_NAME, Options, sign_tensors
from frostbit.export.runtimes import Images, Logits, Milliseconds
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import Program

FORMS = ("packed", "float", "int8")
Feed = dict[str, Images] | dict[str, NDArray[np.float32]]
"""Inputs of a session by name."""
QONNX = "qonnx"
LEVELS = {
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
}


REFUSALS = (
    errors.Fail,
    errors.InvalidArgument,
    errors.InvalidGraph,
    errors.InvalidProtobuf,
    errors.NotImplemented,
    errors.RuntimeException,
)
"""What ONNX Runtime raises for a file that it does not take."""


def session(model: bytes, level: str = "all", threads: int = 1) -> ort.InferenceSession:
    """An inference session on the CPU with ``threads`` threads that do not spin.

    Raises:
        ExportError: if ONNX Runtime refuses the file.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = LEVELS[level]
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except REFUSALS as error:
        reason = " ".join(str(error).split())
        raise ExportError(f"ONNX Runtime refuses the file: {reason}") from error


def time_session(model: ort.InferenceSession, feed: Feed, repeats: int) -> Milliseconds:
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
    """Bytes of the ONNX file of ``form``, one of :data:`FORMS` or :data:`QONNX`."""
    if form == QONNX:
        return to_qonnx.convert(program, options)
    if form == "int8":
        return to_onnx_int8.convert(program, options)
    return to_onnx.convert(program, options, packed=form == "packed")


def runnable(model: bytes, form: str) -> bytes:
    """What ONNX Runtime is given of ``model``: QONNX's operator it gets as a function."""
    return to_qonnx.with_function(model) if form == QONNX else model


def exposed(model: bytes, program: Program) -> bytes:
    """The file ``model`` of ``program`` with every ``bits`` value as a further output, in order.

    Raises:
        ExportError: if the file has no such value, so is not one of ``program``.
    """
    proto = onnx.load_from_string(model)
    known = {info.name: info for info in proto.graph.value_info}
    for name, tensor in sign_tensors(program).items():
        if tensor not in known:
            raise ExportError(f"the ONNX file has no value '{name}': it is one of another model")
        proto.graph.output.append(known[tensor])
    return bytes(proto.SerializeToString())


def feed(images: Images, planar: bool) -> Feed:
    """Input of a session of ours: ``images`` NHWC as they are, or as float32 NCHW."""
    if not planar:
        return {INPUT_NAME: images}
    return {INPUT_NAME: np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)}


def packed_signs(values: Images | Logits) -> bits.Words:
    """Packed NHWC bits of a sign tensor NCHW: float32 +-1, or uint8 codes 0 and 2."""
    signs = values.astype(np.int8) - 1 if values.dtype == np.uint8 else values
    return bits.pack(signs.transpose(0, 2, 3, 1))


class OrtRuntime:
    """One of our ONNX files in ONNX Runtime.

    Args:
        program: the Program the file was made from.
        model: the shipped bytes; converted from ``program`` if None.
        level: graph optimization level, a key of :data:`LEVELS`.
        threads: intra-op threads.
        form: which form ``model`` is, one of :data:`FORMS` or :data:`QONNX`.

    Raises:
        ExportError: if ONNX Runtime refuses ``model``, or it is one of a network of another shape.
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
        self._level, self._threads = level, threads
        self._model = runnable(shipped, form)
        self._session = session(self._model, level, threads)
        _check_shapes(self._session, program)
        self._one_by_one = form == QONNX  # its batch is fixed
        is_float = self._session.get_inputs()[0].type == "tensor(float)"
        self._planar = form == QONNX or (is_float and program.input_kind == "u8")
        self._exposed: ort.InferenceSession | None = None

    def _run(
        self, model: ort.InferenceSession, images: Images, outputs: list[str] | None
    ) -> list[NDArray[np.float32]]:
        count = 1 if self._one_by_one else len(images)
        parts = [images[start : start + count] for start in range(0, len(images), count)]
        answers = [model.run(outputs, feed(part, self._planar)) for part in parts]
        return [np.concatenate(column) for column in zip(*answers, strict=True)]

    def logits(self, images: Images) -> Logits:
        return np.asarray(self._run(self._session, images, [OUTPUT_NAME])[0], dtype=np.float32)

    def signs(self, images: Images) -> dict[str, bits.Words]:
        if self._exposed is None:
            model = exposed(self._model, self.program)
            self._exposed = session(model, self._level, self._threads)
        answers = self._run(self._exposed, images, None)[1:]
        names = sign_tensors(self.program)
        return {name: packed_signs(each) for name, each in zip(names, answers, strict=True)}

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return time_session(self._session, feed(image, self._planar), repeats)

    def close(self) -> None:
        self._session = self._exposed = None


def _check_shapes(model: ort.InferenceSession, program: Program) -> None:
    """ExportError unless the session takes the program's images and gives its classes."""
    height, width, channels = program.input_shape
    layouts = [height, width, channels], [channels, height, width]
    taken, given = model.get_inputs()[0].shape, model.get_outputs()[0].shape
    if taken[1:] not in layouts or given[1:] != [len(program.classes)]:
        raise ExportError(
            f"the ONNX file maps {taken} to {given}, the model {program.input_shape} to "
            f"{len(program.classes)} classes: it is one of another model"
        )
