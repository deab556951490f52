"""ONNX networks made for the tests, run by ONNX Runtime beside what is read from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from frostbit.export.reading.imported import Imported
from frostbit.export.reading.match import to_program
from frostbit.export.reading.onnx.read import read_graph
from frostbit.kernels.ir import reference

Arrays = Mapping[str, np.ndarray | float | list[int]]
QONNX = "qonnx.custom_op.general"


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    """A node of ``inputs`` (names between blanks, ``_`` for one left out)."""
    names = ["" if name == "_" else name for name in inputs.split()]
    domain = QONNX if kind.endswith("Quant") else ""
    return helper.make_node(kind, names, output.split(), name=output, domain=domain, **attributes)


def array(value: np.ndarray | float | list[int], name: str) -> onnx.TensorProto:
    if isinstance(value, list):
        return numpy_helper.from_array(np.array(value, np.int64), name)
    return numpy_helper.from_array(np.asarray(value, getattr(value, "dtype", np.float32)), name)


def model(
    nodes: Sequence[onnx.NodeProto], arrays: Arrays, shape: Sequence[int | str], opset: int = 18
) -> onnx.ModelProto:
    """From ``x`` of ``shape`` to ``y``."""
    graph = helper.make_graph(
        list(nodes), "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [array(value, name) for name, value in arrays.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(QONNX, 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def read(proto: onnx.ModelProto) -> Imported:
    return to_program(read_graph(proto.SerializeToString()).graph)


def run(proto: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    """Answers of ONNX Runtime, one image at a time, ``[N, classes]``."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(proto.SerializeToString(), options)
    name = session.get_inputs()[0].name
    rows = [session.run(None, {name: image[None]})[0].reshape(1, -1) for image in images]
    return np.concatenate(rows)


def random_images(proto: onnx.ModelProto, count: int = 3, seed: int = 0) -> np.ndarray:
    shape = [axis.dim_value for axis in proto.graph.input[0].type.tensor_type.shape.dim][1:]
    return np.random.default_rng(seed).normal(size=(count, *shape)).astype(np.float32)


def channels_last(images: np.ndarray, layout: str = "NCHW") -> np.ndarray:
    """Images as a Program takes them."""
    sizes = dict(zip(layout, images.shape, strict=True))
    order = [layout.index(letter) for letter in "NHWC" if letter in layout]
    shape = [sizes.get(letter, 1) for letter in "NHWC"]
    return np.ascontiguousarray(images.transpose(order).reshape(shape))


def assert_same(proto: onnx.ModelProto, layout: str = "NCHW", seed: int = 0) -> Imported:
    """Read ``proto`` and compare its answers with ONNX Runtime's."""
    found, images = read(proto), random_images(proto, seed=seed)
    wanted = run(proto, images)
    got = reference.run(found.program, channels_last(images, layout))
    spread = max(float(np.ptp(wanted)), 1e-3)
    assert np.abs(got - wanted).max() < 1e-5 * spread
    return found
