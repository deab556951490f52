"""Program -> ONNX, standard operators only, weights packed one bit each.

Layout of the file (opset 13, IR 8): input ``images`` uint8 ``[N, H, W, C]``, output ``logits``
float32 ``[N, classes]``; inside, maps are float32 NCHW and a sign is a map of +-1.0.

* A binary weight is a uint8 initializer holding the packed bits. ``Cast -> Gather`` in a
  256 x 8 table of +-1 ``-> Reshape -> Slice -> Reshape -> Transpose`` unpacks it; ONNX Runtime
  folds that chain while it loads. It saves disk and download, not memory.
* Sign is ``Where(x >= 0, 1, -1)``: ONNX's own ``Sign`` gives 0 at 0.
* Convolution -> threshold T: the table holds +-2, the bias is ``1 - 2T`` and ``Clip(-1, 1)``
  follows. ``2 * acc + 1 - 2T`` is odd, never 0, so the clip yields exactly the sign.
* Convolution -> ``mul * acc + add``: a ``Clip(-K, K)``, an identity on accumulators, stands
  before ``Mul`` so that no optimizer folds the multiplier into the weights, which would round.
* Padding with +1 is a ``Pad`` of the +-1 map; pixels are padded with their zero point.

Bytes are deterministic: nothing but the Program goes in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.errors import ExportError
from kernels import bits
from kernels.container import program_hash
from kernels.program import (
    INPUT,
    Add,
    Affine,
    AvgPool,
    BinaryConv,
    Conv,
    Dense,
    GlobalSum,
    MaxPool,
    Op,
    Program,
    Repeat,
    Sign,
    Threshold,
    ToFloat,
    ValueType,
    Window,
)
from kernels.verify import infer_types

OPSET = 13
IR_VERSION = 8
INPUT_NAME = "images"
OUTPUT_NAME = "logits"
Array = NDArray[Any]


@dataclass
class _Graph:
    """Nodes and initializers under construction, and the ONNX name of every Program value."""

    types: dict[str, ValueType]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def constant(self, name: str, value: Array) -> str:
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output


def _onnx_pads(window: Window) -> list[int]:
    return list(window.pads)


def _window_attributes(window: Window) -> dict[str, Any]:
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "dilations": list(window.dilation),
    }


def _padded(g: _Graph, name: str, x: str, window: Window, value: float) -> str:
    """Explicit ``Pad`` of an NCHW map with one value; no node when there is nothing to pad."""
    if not any(window.pads):
        return x
    top, left, bottom, right = window.pads
    amounts = g.constant(f"{name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    fill = g.constant(f"{name}/pad_value", np.array(value, np.float32))
    return g.node("Pad", [x, amounts, fill], f"{name}/padded", mode="constant")


def _unpacked(g: _Graph, op: BinaryConv, magnitude: float) -> str:
    """Nodes that turn packed bits into float OIHW weights of ``+-magnitude``."""
    per_tap = op.words.shape[-1] * bits.WORD_BITS
    used = -(-op.channels_in // 8)
    as_bytes = np.ascontiguousarray(op.words.astype("<u8")).view(np.uint8)
    packed = as_bytes.reshape(*op.words.shape[:3], per_tap // 8)[..., :used]
    table = magnitude * bits.unpack(np.arange(256, dtype=np.uint64)[:, None], 8)
    kind = "twos" if magnitude == 2.0 else "ones"
    lut = g.constant(f"lut_{kind}", table.astype(np.float32))
    out, kernel_h, kernel_w = op.words.shape[:3]
    name = f"{op.name}/weights"
    index = g.node(
        "Cast", [g.constant(f"{name}_bits", packed)], f"{name}_index", to=TensorProto.INT32
    )
    x = g.node("Gather", [lut, index], f"{name}_bytes", axis=0)
    shape = np.array([out, kernel_h, kernel_w, used * 8], np.int64)
    x = g.node("Reshape", [x, g.constant(f"{name}_shape", shape)], f"{name}_padded")
    if used * 8 != op.channels_in:
        limits = [
            g.constant(f"{name}_{part}", np.array([number], np.int64))
            for part, number in (("start", 0), ("end", op.channels_in), ("axis", 3))
        ]
        x = g.node("Slice", [x, *limits], f"{name}_ohwi")
    return g.node("Transpose", [x], f"{name}", perm=[0, 3, 1, 2])


def _conv(g: _Graph, op: Conv, x: str) -> str:
    weights = g.constant(f"{op.name}/weights", op.weights.transpose(0, 3, 1, 2))
    added = g.constant(f"{op.name}/add", op.add)
    attributes = _window_attributes(op.window)
    if op.pad_value.any():
        x, attributes["pads"] = _pixel_frame(g, op, x), [0, 0, 0, 0]
    else:
        attributes["pads"] = _onnx_pads(op.window)
    return g.node("Conv", [x, weights, added], op.name, **attributes)


def _pixel_frame(g: _Graph, op: Conv, x: str) -> str:
    """Pad pixels with one zero point per channel: pad ``x - zp`` with 0, then add it back."""
    values = op.pad_value.astype(np.float32)
    if (values == values[0]).all():
        return _padded(g, op.name, x, op.window, float(values[0]))
    point = g.constant(f"{op.name}/zero_point", values.reshape(1, -1, 1, 1))
    centred = g.node("Sub", [x, point], f"{op.name}/centred")
    framed = _padded(g, op.name, centred, op.window, 0.0)
    return g.node("Add", [framed, point], f"{op.name}/framed")


def _binary_conv(g: _Graph, op: BinaryConv, x: str) -> str:
    attributes = _window_attributes(op.window)
    attributes["group"] = op.groups
    if op.pad_value == 1:
        x, attributes["pads"] = _padded(g, op.name, x, op.window, 1.0), [0, 0, 0, 0]
    else:
        attributes["pads"] = _onnx_pads(op.window)
    if isinstance(op.epilogue, Threshold):
        weights = _unpacked(g, op, 2.0)
        bias = (1 - 2 * op.epilogue.level.astype(np.int64)).astype(np.float32)
        inputs = [x, weights, g.constant(f"{op.name}/bias", bias)]
        acc = g.node("Conv", inputs, f"{op.name}/acc", **attributes)
        limits = [_scalar(g, "minus_one", -1.0), _scalar(g, "plus_one", 1.0)]
        return g.node("Clip", [acc, *limits], op.name)
    acc = g.node("Conv", [x, _unpacked(g, op, 1.0)], f"{op.name}/acc", **attributes)
    return _affine(g, op, op.epilogue, acc)


def _affine(g: _Graph, op: BinaryConv, epilogue: Affine, acc: str) -> str:
    limits = [_scalar(g, f"minus_{op.taps}", -op.taps), _scalar(g, f"plus_{op.taps}", op.taps)]
    shape = (1, -1, 1, 1)
    held = g.node("Clip", [acc, *limits], f"{op.name}/held")
    mul = g.constant(f"{op.name}/mul", epilogue.mul.reshape(shape))
    scaled = g.node("Mul", [held, mul], f"{op.name}/scaled")
    return g.node(
        "Add", [scaled, g.constant(f"{op.name}/add", epilogue.add.reshape(shape))], op.name
    )


def _scalar(g: _Graph, name: str, value: float) -> str:
    return g.constant(f"const_{name}", np.array(value, np.float32))


def _sign(g: _Graph, op: Sign, x: str) -> str:
    positive = g.node("GreaterOrEqual", [x, _scalar(g, "zero", 0.0)], f"{op.name}/positive")
    ones = [_scalar(g, "plus_one", 1.0), _scalar(g, "minus_one", -1.0)]
    return g.node("Where", [positive, *ones], op.name)


def _to_float(g: _Graph, op: ToFloat, x: str) -> str:
    return g.node("Identity", [x], op.name)


def _add(g: _Graph, op: Add, a: str, b: str) -> str:
    return g.node("Add", [a, b], op.name)


def _max_pool(g: _Graph, op: MaxPool, x: str) -> str:
    attributes = _window_attributes(op.window)
    return g.node("MaxPool", [x], op.name, pads=_onnx_pads(op.window), **attributes)


def _avg_pool(g: _Graph, op: AvgPool, x: str) -> str:
    if op.window.dilation != (1, 1):
        raise ExportError(f"op '{op.name}': ONNX opset {OPSET} has no dilated AveragePool")
    attributes = _window_attributes(op.window)
    del attributes["dilations"]
    x = _padded(g, op.name, x, op.window, 0.0)
    return g.node("AveragePool", [x], op.name, **attributes)


def _repeat(g: _Graph, op: Repeat, x: str) -> str:
    return g.node("Concat", [x] * op.times, op.name, axis=1)


def _global_sum(g: _Graph, op: GlobalSum, x: str) -> str:
    axes = g.constant("const_spatial_axes", np.array([2, 3], np.int64))
    return g.node("ReduceSum", [x, axes], op.name, keepdims=1)


def _dense(g: _Graph, op: Dense, x: str) -> str:
    flat = g.node("Flatten", [x], f"{op.name}/flat", axis=1)
    weights = g.constant(f"{op.name}/weights", op.weights)
    added = g.constant(f"{op.name}/add", op.add)
    dense = g.node("Gemm", [flat, weights, added], f"{op.name}/dense", transB=1)
    axes = g.constant("const_spatial_axes", np.array([2, 3], np.int64))
    return g.node("Unsqueeze", [dense, axes], op.name)


RULES: dict[type[Op], Callable[..., str]] = {
    Conv: _conv,
    BinaryConv: _binary_conv,
    Sign: _sign,
    ToFloat: _to_float,
    Add: _add,
    MaxPool: _max_pool,
    AvgPool: _avg_pool,
    Repeat: _repeat,
    GlobalSum: _global_sum,
    Dense: _dense,
}


def sign_outputs(program: Program) -> list[str]:
    """Names of the ``bits`` values, the extra outputs of the debug form, in order."""
    types = infer_types(program)
    return [op.name for op in program.ops if types[op.name].kind == "bits"]


def _safe(name: str) -> str:
    """``name``, unless it would collide with a name that every graph here uses."""
    taken = name in (INPUT_NAME, OUTPUT_NAME, "pixels", "pixels_nhwc")
    return f"{name}_op" if taken or name.startswith(("const_", "lut_")) else name


def _build(program: Program) -> _Graph:
    g = _Graph(infer_types(program))
    pixels = g.node("Cast", [INPUT_NAME], "pixels_nhwc", to=TensorProto.FLOAT)
    g.names[INPUT] = g.node("Transpose", [pixels], "pixels", perm=[0, 3, 1, 2])
    for op in program.ops:
        rule = RULES.get(type(op))
        if rule is None:
            raise ExportError(f"op '{op.name}': ONNX export has no {type(op).__name__}")
        named = dataclasses.replace(op, name=_safe(op.name))
        g.names[op.name] = rule(g, named, *(g.names[source] for source in op.inputs))
    g.node("Flatten", [g.names[program.ops[-1].name]], OUTPUT_NAME, axis=1)
    return g


def build(program: Program, *, debug: bool = False) -> onnx.ModelProto:
    """Translate ``program`` into a checked ONNX model.

    Args:
        program: a well-formed Program.
        debug: also output every ``bits`` value, as float32 NCHW of +-1 (:func:`sign_outputs`).

    Raises:
        ExportError: naming an op that ONNX cannot express.
        FormatError: if the program is malformed.
    """
    g = _build(program)
    height, width, channels = program.input_shape
    inputs = [
        helper.make_tensor_value_info(INPUT_NAME, TensorProto.UINT8, ["N", height, width, channels])
    ]
    outputs = [
        helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, ["N", len(program.classes)])
    ]
    for name in sign_outputs(program) if debug else []:
        rows, columns, depth = g.types[name].shape
        shape: list[str | int | None] = ["N", depth, rows, columns]
        outputs.append(helper.make_tensor_value_info(g.names[name], TensorProto.FLOAT, shape))
    graph = helper.make_graph(g.nodes, "frostbit", inputs, outputs, list(g.constants.values()))
    opsets = [helper.make_opsetid("", OPSET)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    model.producer_name = "frostbit"
    metadata = {
        "classes": "\n".join(program.classes),
        "dataset": program.dataset,
        "program_sha256": program_hash(program),
    }
    helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    return model


def convert(program: Program, *, debug: bool = False) -> bytes:
    """The bytes of ``model.onnx``; see :func:`build`. The same Program gives the same bytes."""
    return bytes(build(program, debug=debug).SerializeToString(deterministic=True))
