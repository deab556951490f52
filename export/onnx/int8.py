"""Program -> ONNX whose thresholded convolutions run in 8-bit integers, bit-exact all the same.

Where a binary convolution feeds a threshold T, both its input and its output are uint8 *codes*, 0
for -1 and 2 for +1, and the convolution is ``QLinearConv`` of codes with int8 weights of +-2
(unpacked from stored bits as in :mod:`frostbit.export.onnx.packed`). All scales are 1, so nothing
rounds:

* the code's zero point is 1, hence ``code - 1 = +-1`` and a padded tap contributes 0;
* where padded taps are +1 the zero point is 2 instead: a padded tap still contributes 0, every
  other one ``w * (x - 1)``, and the sum of all weights, added to the bias, makes up for it;
* with the bias ``1 - 2T`` the sum is ``v = 2 * acc + 1 - 2T``, odd, positive exactly at +1;
* the output's zero point is 1: ``v + 1`` is at most 0, saturated to 0, or at least 2, and
  ``Clip(0, 2)`` makes it a code. Saturation of the 8-bit output costs nothing.

An accumulator that is needed as a number (a residual's ``mul * acc + add``) does not fit into 8
bits, so such convolutions stay float32; ``DequantizeLinear`` turns codes into +-1.0 for them.
Products of codes and weights stay below 2**15 in pairs, so the 16-bit pair sums of x86 without
VNNI do not saturate either.
"""

from __future__ import annotations

import numpy as np
import onnx

from frostbit.export.onnx import maps
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx.graph import (
    DEFAULTS,
    Form,
    Graph,
    Options,
    Rule,
    fill,
    finish,
    relabelled,
    serialize,
    takes_planar,
    window_attributes,
)
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import (
    BinaryConv,
    Concat,
    Flatten,
    MaxPool,
    Op,
    Program,
    Sign,
    Slice,
    Threshold,
)
from frostbit.kernels.ir.verify import infer_types

FORM = Form("int8")
PASSING = (MaxPool, Concat, Slice, Flatten)
"""Ops that give codes for codes."""


def _binary_conv(g: Graph, op: BinaryConv, x: str) -> str:
    if not isinstance(op.epilogue, Threshold):
        return to_onnx.packed_conv(g, op, x)
    bias = 1 - 2 * to_onnx.level(op, op.epilogue)
    if op.pad_value == 1:
        weights = bits.unpack(op.words, op.channels_in)
        bias += 2 * weights.sum(axis=(1, 2, 3), dtype=np.int64)
    scale = g.scalar("one", 1.0)
    inputs = [x, scale, _code(g, 1 + op.pad_value)]
    inputs += [to_onnx.unpacked(g, op, 2, np.int8), scale, g.scalar("weight_zero", 0, np.int8)]
    inputs += [scale, _code(g, 1), g.constant(f"{op.name}/bias", bias.astype(np.int32))]
    attributes = window_attributes(op.window)
    acc = g.node("QLinearConv", inputs, f"{op.name}/acc", group=op.groups, **attributes)
    return g.node("Clip", [acc, _code(g, 0), _code(g, 2)], op.name)


def _code(g: Graph, value: int) -> str:
    name = {0: "code_minus", 1: "code_zero", 2: "code_plus"}[value]
    return g.scalar(name, value, np.uint8)


def _sign(g: Graph, op: Sign, x: str) -> str:
    if op.name not in g.held:
        return maps.sign(g, op, x)
    return g.node("Where", [maps.positive(g, op, x), _code(g, 2), _code(g, 0)], op.name)


RULES: dict[type[Op], Rule] = {**to_onnx.RULES, BinaryConv: _binary_conv, Sign: _sign}


def _coded(program: Program) -> tuple[frozenset[str], frozenset[str]]:
    """Values held as codes, and ops that read codes."""
    held: set[str] = set()
    readers: set[str] = set()
    for op in reversed(program.ops):
        thresholded = isinstance(op, BinaryConv) and isinstance(op.epilogue, Threshold)
        if thresholded or (isinstance(op, PASSING) and op.name in held):
            held.update((op.name, *op.inputs))
            readers.add(op.name)
    return frozenset(held), frozenset(readers)


def build(program: Program, options: Options = DEFAULTS) -> onnx.ModelProto:
    """Translate ``program`` into a checked ONNX model with integer convolutions.

    Args:
        program: a well-formed Program.
        options: input layout and metadata.

    Raises:
        ExportError: naming an op that ONNX cannot express.
        FormatError: if the program is malformed.
    """
    infer_types(program)
    labelled = relabelled(program)
    held, readers = _coded(labelled)
    planar = takes_planar(program, options)
    g = Graph(infer_types(labelled), held=held, readers=readers, planar=planar)
    fill(g, labelled, RULES)
    return finish(g, program, FORM, options)


def convert(program: Program, options: Options = DEFAULTS) -> bytes:
    """The bytes of ``model.int8.onnx``; the same Program gives the same bytes."""
    return serialize(build(program, options))
