"""Program -> ONNX, standard operators only, weights packed one bit each (or plain floats).

Layout of the file (opset 13, IR 8): input ``images`` uint8 ``[N, H, W, C]``, output ``logits``
float32 ``[N, classes]``; inside, maps are float32 NCHW and a sign is a map of +-1.0.

* A binary weight is a uint8 initializer holding the packed bits. ``Cast -> Gather`` in a 256 x 8
  table of +-1, one for all, ``-> Reshape`` (``-> Slice -> Reshape`` where the bits end within a
  byte) unpacks it; ONNX Runtime folds that chain while it loads. It saves disk and download, not
  memory.
* Convolution -> threshold T: the table holds +-2, the bias is ``1 - 2T`` and ``Clip(-1, 1)``
  follows. ``2 * acc + 1 - 2T`` is odd, never 0, so the clip yields exactly the sign.
* Convolution -> ``mul * acc + add``: a ``Clip(-K, K)``, an identity on accumulators, stands
  before ``Mul`` so that no optimizer folds the multiplier into the weights, which would round. It
  is tighter where the sums are clipped.
* Binary weights on real inputs (f32) need no such clip: there is nothing to protect that rounding
  could flip, or, where :mod:`frostbit.kernels.ir.exact` proves the sums, nothing that rounds.
* Full-precision weights of 8 bits are int8 initializers and a scale per output channel.
* Padding with +1 is a ``Pad`` of the +-1 map; pixels are padded with their zero point.
* The float form, for tools that cannot fold constants, has float32 initializers alone; a threshold
  is then the bias ``0.5 - T`` and ``Sign``, which never meets 0.

Bytes are deterministic: nothing but the Program and the options goes in.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto

from frostbit.export.errors import ExportError
from frostbit.export.onnx import maps
from frostbit.export.onnx.graph import (
    DEFAULTS,
    Form,
    Graph,
    Options,
    Rule,
    fill,
    finish,
    full_precision,
    pad,
    relabelled,
    serialize,
    takes_planar,
    window_attributes,
)
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import (
    Affine,
    BinaryConv,
    Conv,
    Op,
    Program,
    Threshold,
)
from frostbit.kernels.ir.verify import infer_types

PACKED = Form("packed")
FLOAT = Form("float")
MAX_TAPS = 1 << 22  # 2 * acc + 1 - 2T, at most 4K + 3, must be exact in float32


def unpacked(g: Graph, op: BinaryConv, magnitude: int, dtype: DTypeLike = np.float32) -> str:
    """Nodes that turn packed bits into OIHW weights of ``+-magnitude``.

    The bits of an output channel stand in the order (I, kh, kw), filled up to whole bytes.
    """
    signs = signs_oihw(op)
    negative = signs.reshape(len(signs), -1) < 0
    name = f"{op.name}/weights"
    stored = g.constant(f"{name}_bits", np.packbits(negative, axis=1, bitorder="little"))
    index = g.node("Cast", [stored], f"{name}_index", to=TensorProto.INT32)
    x = g.node("Gather", [_table(g, magnitude, dtype), index], f"{name}_bytes", axis=0)
    if op.taps % 8:
        rows = g.constant("const/rows", np.array([0, -1], np.int64))
        x = g.node("Reshape", [x, rows], f"{name}_padded")
        numbers = {"first": 0, str(op.taps): op.taps, "second_axis": 1}
        limits = [g.constant(f"const/{k}", np.array([v], np.int64)) for k, v in numbers.items()]
        x = g.node("Slice", [x, *limits], f"{name}_rows")
    size = "x".join(map(str, signs.shape))
    shape = g.constant(f"const/{size}", np.array(signs.shape, np.int64))
    return g.node("Reshape", [x, shape], name)


def _table(g: Graph, magnitude: int, dtype: DTypeLike) -> str:
    """``[256, 8]`` of ``+-magnitude``: what the bits of a byte stand for. Stored as int8."""
    values = magnitude * bits.unpack(np.arange(256, dtype=np.uint64)[:, None], 8)
    stored = g.constant(f"lut/{magnitude}", values.astype(np.int8))
    if dtype == np.int8:
        return stored
    name = f"{stored}/float"
    if all(node.name != name for node in g.nodes):
        g.node("Cast", [stored], name, to=TensorProto.FLOAT)
    return name


def signs_oihw(op: BinaryConv) -> NDArray[np.int8]:
    """Weights of ``op`` as int8 ``[O, I, kh, kw]`` of +-1."""
    return np.ascontiguousarray(bits.unpack(op.words, op.channels_in).transpose(0, 3, 1, 2))


def conv(g: Graph, op: Conv, x: str) -> str:
    weights = full_precision(g, op.name, op.weights.transpose(0, 3, 1, 2))
    inputs = [weights, g.constant(f"{op.name}/add", op.add)]
    framed = bool(op.pad_value.any())
    if framed:
        x = _pixel_frame(g, op, x)
    attributes = window_attributes(op.window, padded=framed)
    if op.groups > 1:
        attributes["group"] = op.groups
    return g.node("Conv", [x, *inputs], op.name, **attributes)


def _pixel_frame(g: Graph, op: Conv, x: str) -> str:
    """Pad pixels with one zero point per channel: pad ``x - zp`` with 0, then add it back."""
    values = op.pad_value.astype(np.float32)
    if (values == values[0]).all():
        return pad(g, op.name, x, op.window, float(values[0]))
    point = g.constant(f"{op.name}/zero_point", values.reshape(1, -1, 1, 1))
    centred = g.node("Sub", [x, point], f"{op.name}/centred")
    framed = pad(g, op.name, centred, op.window, 0.0)
    return g.node("Add", [framed, point], f"{op.name}/framed")


def accumulator(g: Graph, op: BinaryConv, x: str, weights: str, bias: list[str]) -> str:
    """``Conv`` of a +-1 map, with explicit padding where padded taps are +1."""
    if op.pad_value == 1:
        x = pad(g, op.name, x, op.window, 1.0)
    attributes = window_attributes(op.window, padded=op.pad_value == 1)
    inputs = [x, weights, *bias]
    return g.node("Conv", inputs, f"{op.name}/acc", group=op.groups, **attributes)


def level(op: BinaryConv, epilogue: Threshold) -> NDArray[np.int64]:
    """Thresholds as int64; ExportError where the float32 accumulator could round."""
    if op.taps >= MAX_TAPS:
        raise ExportError(f"op '{op.name}': {op.taps} taps an output, ONNX is exact below 2**22")
    return epilogue.level.astype(np.int64)


def packed_conv(g: Graph, op: BinaryConv, x: str) -> str:
    if isinstance(op.epilogue, Affine):
        return affine(g, op, op.epilogue, accumulator(g, op, x, unpacked(g, op, 1), []))
    bias = (1 - 2 * level(op, op.epilogue)).astype(np.float32)
    acc = accumulator(g, op, x, unpacked(g, op, 2), [g.constant(f"{op.name}/bias", bias)])
    return maps.clipped(g, op.name, acc, -1.0, 1.0)


def float_conv(g: Graph, op: BinaryConv, x: str) -> str:
    weights = g.constant(f"{op.name}/weights", signs_oihw(op).astype(np.float32))
    if isinstance(op.epilogue, Affine):
        return affine(g, op, op.epilogue, accumulator(g, op, x, weights, []))
    bias = (0.5 - level(op, op.epilogue)).astype(np.float32)
    acc = accumulator(g, op, x, weights, [g.constant(f"{op.name}/bias", bias)])
    return g.node("Sign", [acc], op.name)


def affine(g: Graph, op: BinaryConv, epilogue: Affine, acc: str) -> str:
    if g.types[op.inputs[0]].kind == "f32":
        return maps.scaled(g, op.name, epilogue, acc)
    low, high = epilogue.limits(op.taps)
    limits = [g.scalar(f"{'minus' if end < 0 else 'plus'}_{abs(end)}", end) for end in (low, high)]
    held = g.node("Clip", [acc, *limits], f"{op.name}/held")
    return maps.scaled(g, op.name, epilogue, held)


RULES: dict[type[Op], Rule] = {**maps.RULES, Conv: conv, BinaryConv: packed_conv}
FLOAT_RULES: dict[type[Op], Rule] = {**RULES, BinaryConv: float_conv}


def build(program: Program, options: Options = DEFAULTS, *, packed: bool = True) -> onnx.ModelProto:
    """Translate ``program`` into a checked ONNX model.

    Args:
        program: a well-formed Program.
        options: input layout and metadata.
        packed: store binary weights as bits; False gives the float form.

    Raises:
        ExportError: naming an op that ONNX cannot express.
        FormatError: if the program is malformed.
    """
    infer_types(program)
    labelled = relabelled(program)
    planar = takes_planar(program, options)
    g = Graph(infer_types(labelled), planar=planar, plain=not packed)
    fill(g, labelled, RULES if packed else FLOAT_RULES)
    return finish(g, program, PACKED if packed else FLOAT, options)


def convert(program: Program, options: Options = DEFAULTS, *, packed: bool = True) -> bytes:
    """The bytes of ``model.onnx``; see :func:`build`. The same Program gives the same bytes."""
    return serialize(build(program, options, packed=packed))
