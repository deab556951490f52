"""Program -> QONNX, the dialect of FPGA tools (FINN, hls4ml): signs are ``BipolarQuant`` nodes.

``BipolarQuant(x, scale)`` of the domain ``qonnx.custom_op.general`` gives ``scale`` where x >= 0
and ``-scale`` elsewhere, which is our sign, 0 included. Weights and activations alike pass one
with scale 1; weights stand in the file as float32 +-1, so it is not compact. A convolution before
a threshold T has the bias ``-T``.

The input is float32 ``[1, C, H, W]`` of whole pixel values 0..255, annotated ``UINT8`` as these
tools expect, or what an imported model takes; the batch is fixed, as hardware is generated for one
image, and the shape of every tensor is declared, without which the ``qonnx`` package does not
execute a file.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper
from onnx.shape_inference import infer_shapes

from frostbit.export.onnx import maps
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx.graph import (
    DEFAULTS,
    INPUT_NAME,
    OPSET,
    Form,
    Graph,
    Options,
    Rule,
    fill,
    finish,
    relabelled,
    serialize,
)
from frostbit.kernels.ir.program import Affine, BinaryConv, Op, Program, Sign
from frostbit.kernels.ir.verify import infer_types

DOMAIN = "qonnx.custom_op.general"
FORM = Form("qonnx", batch=1, opsets={DOMAIN: 1})


def _bipolar(g: Graph, x: str, output: str) -> str:
    g.node("BipolarQuant", [x, g.scalar("one", 1.0)], output)
    g.nodes[-1].domain = DOMAIN
    return output


def _binary_conv(g: Graph, op: BinaryConv, x: str) -> str:
    stored = g.constant(f"{op.name}/weights_stored", to_onnx.signs_oihw(op).astype(np.float32))
    weights = _bipolar(g, stored, f"{op.name}/weights")
    shape = (op.channels_out, op.channels_in, *op.window.kernel)
    g.declared.append(helper.make_tensor_value_info(weights, TensorProto.FLOAT, shape))
    if isinstance(op.epilogue, Affine):
        acc = to_onnx.accumulator(g, op, x, weights, [])
        if op.epilogue.is_clipped:
            acc = maps.clipped(g, f"{op.name}/clipped", acc, *op.epilogue.limits(op.taps))
        return maps.scaled(g, op.name, op.epilogue, acc)
    bias = g.constant(f"{op.name}/bias", (-to_onnx.level(op, op.epilogue)).astype(np.float32))
    return _bipolar(g, to_onnx.accumulator(g, op, x, weights, [bias]), op.name)


def _sign(g: Graph, op: Sign, x: str) -> str:
    return _bipolar(g, x, op.name)


RULES: dict[type[Op], Rule] = {**to_onnx.RULES, BinaryConv: _binary_conv, Sign: _sign}


def _annotate_input(model: onnx.ModelProto) -> None:
    """Say that the float input holds whole numbers 0..255."""
    note = onnx.TensorAnnotation(tensor_name=INPUT_NAME)
    note.quant_parameter_tensor_names.add(key="finn_datatype", value="UINT8")
    model.graph.quantization_annotation.append(note)


def with_function(model: bytes) -> bytes:
    """``model`` for runtimes that know no QONNX: BipolarQuant is a function of standard operators.

    The rest of the file is as it was, so running it checks what an FPGA tool is given.
    """
    nodes = [
        helper.make_node("Sub", ["scale", "scale"], ["zero"]),
        helper.make_node("GreaterOrEqual", ["x", "zero"], ["positive"]),
        helper.make_node("Neg", ["scale"], ["minus"]),
        helper.make_node("Where", ["positive", "scale", "minus"], ["y"]),
    ]
    opsets = [helper.make_opsetid("", OPSET)]
    function = helper.make_function(DOMAIN, "BipolarQuant", ["x", "scale"], ["y"], nodes, opsets)
    proto = onnx.load_from_string(model)
    proto.functions.append(function)
    return serialize(proto)


def build(program: Program, options: Options = DEFAULTS) -> onnx.ModelProto:
    """Translate ``program`` into a checked QONNX model.

    Args:
        program: a well-formed Program.
        options: metadata; the input is float whatever they say.

    Raises:
        ExportError: naming an op that the form cannot express.
        FormatError: if the program is malformed.
    """
    infer_types(program)
    labelled = relabelled(program)
    g = Graph(infer_types(labelled), planar=True)
    fill(g, labelled, RULES)
    model = infer_shapes(finish(g, program, FORM, options), strict_mode=True, data_prop=True)
    if program.input_kind == "u8":
        _annotate_input(model)
    return model


def convert(program: Program, options: Options = DEFAULTS) -> bytes:
    """The bytes of ``model.qonnx``; the same Program gives the same bytes."""
    return serialize(build(program, options))
