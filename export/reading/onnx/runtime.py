"""An ONNX file in its own runtime, with the values inside it: ONNX Runtime, for QONNX ``qonnx``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from io import StringIO

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from frostbit.export.errors import ExportError, RuntimeMissing, SourceDiffers
from frostbit.export.inputs import Images
from frostbit.export.onnx.qonnx import DOMAIN
from frostbit.export.onnx.quantizers import DOMAINS
from frostbit.export.reading.onnx.call import SignOf
from frostbit.export.reading.onnx.read import KIND_QONNX, Read
from frostbit.export.summary import readable
from frostbit.kernels.ir.program import FormatError, ValueType
from frostbit.kernels.ir.reference import Array

Outputs = Mapping[str, Array]
Run = Callable[[Array], Outputs]
ONE, ZERO = np.ones((), np.float32), np.zeros((), np.float32)


class OnnxSource:
    """The file beside the Program that was read from it.

    Args:
        read: the file.
        wanted: what it shall give: type of each value by the small graph's name.

    Raises:
        RuntimeMissing: ONNX Runtime, or for QONNX the ``qonnx`` package, is not installed.
        FormatError: the runtime refuses the file.
    """

    def __init__(self, read: Read, wanted: Mapping[str, ValueType]) -> None:
        self._read, self._wanted = read, dict(wanted)
        self._signs = {
            name: read.signs.get(name, SignOf(name, ONE, ZERO))
            for name, value in wanted.items()
            if value.kind == "bits"
        }
        tensors = {self._signs[name].name if name in self._signs else name for name in wanted}
        model = _with_outputs(read, sorted(tensors))
        start = _start_qonnx if read.graph.kind == KIND_QONNX else _start_onnxruntime
        self.name, self._run = start(model, read.source.input.name)

    def values(self, images: Images) -> dict[str, Array]:
        """Every wanted value of ``[N, H, W, C]``: float32, or int8 of +1 and -1.

        Raises:
            SourceDiffers: a sign is 0 in the source, or a map has another shape.
            FormatError: the runtime fails.
        """
        each = [self._of_one(image) for image in images]
        return {name: np.concatenate([found[name] for found in each]) for name in self._wanted}

    def close(self) -> None:
        """Nothing to release."""

    def _of_one(self, image: Images) -> dict[str, Array]:
        layout = self._read.layouts[self._read.graph.input]
        given = np.repeat(_as_file(image, layout)[None], self._read.batch, axis=0)
        outputs = self._run(np.ascontiguousarray(given))
        found: dict[str, Array] = {}
        for name, value in self._wanted.items():
            if name in self._signs:
                sign = self._signs[name]
                found[name] = _bits(self._map(outputs, sign.name, name, value), sign)
            else:
                found[name] = self._map(outputs, name, name, value)
        return found

    def _map(self, outputs: Outputs, tensor: str, name: str, value: ValueType) -> Array:
        """A tensor of the file as ``[1, H, W, C]``."""
        layout, array = self._read.layouts[name], np.asarray(outputs[tensor])[:1]
        height, width, channels = value.shape
        sizes = {"N": 1, "H": height, "W": width, "C": channels}
        if list(array.shape) != [sizes[letter] for letter in layout]:
            shown = [sizes[letter] for letter in layout]
            raise SourceDiffers(
                f"'{readable(tensor)}' is {list(array.shape)} in the source, here {shown}"
            )
        order = [layout.index(letter) for letter in "NHWC" if letter in layout]
        return array.transpose(order).reshape(1, height, width, channels).astype(np.float32)


def _as_file(image: Images, layout: str) -> Array:
    """An image ``[H, W, C]`` without the batch, its axes as in the file."""
    sizes = dict(zip("HWC", image.shape, strict=True))
    kept = [letter for letter in "HWC" if letter in layout]
    array = image.reshape([sizes[letter] for letter in kept])
    return array.transpose([kept.index(letter) for letter in layout[1:]])


def _bits(array: Array, sign: SignOf) -> Array:
    """int8 +1 and -1 of a value that is ``add + mul`` or ``add - mul``."""
    steps = (array - sign.add) / sign.mul
    zeros = int((np.abs(steps) < 0.5).sum())
    if zeros:
        raise SourceDiffers(
            f"'{readable(sign.name)}' is the sign of 0 in {zeros:,} places, and there neither +1 "
            "nor -1 in the source: one bit cannot say that"
        )
    return np.where(steps >= 0, 1, -1).astype(np.int8)


def _with_outputs(read: Read, tensors: list[str]) -> onnx.ModelProto:
    """A copy of what the answer needs, with all data in it, that gives ``tensors``."""
    source = read.source
    used = {name for node in source.nodes for name in node.input}
    copy = helper.make_model(
        onnx.GraphProto(name="source"), opset_imports=source.model.opset_import
    )
    copy.ir_version = max(source.model.ir_version, 4)  # an array need not be an input since then
    graph = copy.graph
    graph.node.extend(source.nodes)
    for name in sorted(used & set(source.arrays)):
        tensor = source.arrays[name]
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor = numpy_helper.from_array(source.array(tensor, f"'{readable(name)}'"), name)
        graph.initializer.append(tensor)
    graph.input.append(source.input)
    axis = graph.input[0].type.tensor_type.shape.dim[0]
    axis.dim_value = read.batch
    for name in tensors:
        kind = TensorProto.UINT8 if name in read.pixels else TensorProto.FLOAT
        graph.output.append(helper.make_tensor_value_info(name, kind, None))
    return copy


def _start_onnxruntime(model: onnx.ModelProto, name: str) -> tuple[str, Run]:
    try:
        import onnxruntime

        from frostbit.export.onnx.runtime import REFUSALS, session
    except ImportError as error:
        raise RuntimeMissing(
            "ONNX Runtime is not installed: pip install 'frostbit[export]'"
        ) from error
    try:
        started = session(model.SerializeToString())
    except ExportError as error:
        raise FormatError(str(error)) from error
    outputs = [output.name for output in started.get_outputs()]

    def run(images: Array) -> Outputs:
        try:
            return dict(zip(outputs, started.run(outputs, {name: images}), strict=True))
        except REFUSALS as error:
            reason = " ".join(str(error).split())
            raise FormatError(f"ONNX Runtime cannot run the file: {reason}") from error

    return f"ONNX Runtime {onnxruntime.__version__}", run


@contextmanager
def _refusing() -> Iterator[None]:
    """What the qonnx package raises as FormatError; it passes on what anything below it raises."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())
        raise FormatError(f"the qonnx package cannot run the file: {reason}") from error


def _start_qonnx(model: onnx.ModelProto, name: str) -> tuple[str, Run]:
    try:
        from qonnx.core.modelwrapper import ModelWrapper
        from qonnx.core.onnx_exec import execute_onnx
        from qonnx.transformation.infer_shapes import InferShapes
    except ImportError as error:
        raise RuntimeMissing("the qonnx package is not installed: pip install qonnx") from error
    for node in model.graph.node:
        if node.domain in DOMAINS:
            node.domain = DOMAIN
    for entry in model.opset_import:
        if entry.domain in DOMAINS:
            entry.domain = DOMAIN
    with _refusing():
        wrapped = ModelWrapper(model).transform(InferShapes())

    def run(images: Array) -> Outputs:
        with _refusing(), redirect_stdout(StringIO()):
            found: Outputs = execute_onnx(wrapped, {name: images}, True)
        return found

    return "qonnx", run
