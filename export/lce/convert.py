"""Program -> Larq Compute Engine's TFLite flatbuffer, written directly (no TensorFlow).

How it works: every op of the Program has a rule in :data:`RULES` that adds TFLite and LCE operators
to a graph; the input is float32 pixels ``[1, H, W, C]``, the output the logits ``[1, classes]``.
Bits stay packed between layers: LCE's convention is ours (:mod:`frostbit.kernels.ir.bits`).

What TFLite cannot say as it stands is rewritten exactly, because a Program defines every bit:

* Pads are four numbers there and a mode here. Where TensorFlow's SAME computes the same windows
  it is used; otherwise the map is padded first and the mode is VALID.
* A padded tap of a binary convolution holds +1 (a 0 bit) or, with ``pad_value`` 0, contributes
  nothing. LCE does the latter only with float output and in SAME mode; it is silently wrong
  when the map is smaller than the kernel, and the reference kernel refuses odd channel counts
  (all checked against 0.16.0). Where SAME pads too few rows before the map (stride 2 on even
  sizes) the map grows until it fits and the result is cropped; elsewhere the border is made of
  +1 and what its weights added is taken back (:mod:`frostbit.export.lce.padding`).
* Bits of a zero-padded convolution are taken as sign(acc - level) by LceQuantize.
* Padded bits of a max-pool are -1, which never wins.
* Pixels with a different zero point per channel are shifted by it, so that 0 pads them; the
  bias takes the shift back.
* LCE's grouped kernels refuse or are wrong below 32 channels a group: a grouped binary
  convolution becomes one convolution per group, a full-precision one as well unless it is
  depthwise, which TFLite has.
* Clipped sums are a fused activation (RELU, RELU_N1_TO_1, RELU6) where the limits are its own and
  no padded tap contributes nothing, which LCE refuses together; elsewhere the bare sums are clipped
  and scaled by operators of their own.
* Joined, sliced or flattened bits stay packed where they begin and end with whole words of 32
  channels; otherwise they pass floats of +-1, since no operator shifts bits.
* Binary weights on real inputs become CONV_2D with weights ``+-mul``: LCE has no such operator, so
  these weights take a byte.
* Full-precision weights of 8 bits are int8 with a scale per output channel, behind a DEQUANTIZE
  that the interpreter runs once.

Exactness: LCE evaluates the float epilogue as ``(2p) * (-mul) + (add + K * mul)``, p the popcount.
On the grid 2^-s with ``K|mul| + |add| <= 2^(24-s)``, the condition under which the Program's own op
is exact (:mod:`frostbit.kernels.ir.exact`), each of these is exact as well: ``p * mul`` and ``K *
mul`` are at most ``K|mul|``, the factor 2 only moves the exponent, and both sums are grid values
within the bound. The border constant is part of ``K|mul|``. Outside the grid LCE's cancellation
costs 1e-5 to 1e-4 and signs may flip.

Left out: pooling with dilation, which TFLite does not have (an :class:`ExportError`).
Sources: ``lite/schema/schema.fbs`` of TensorFlow; ``core/bconv2d/output_transform.h``,
``core/bconv2d/zero_padding_correction.h`` and ``tflite/kernels/bconv2d.cc`` of
larq/compute-engine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from frostbit.export.errors import ExportError
from frostbit.export.lce import maps
from frostbit.export.lce.graph import (
    LCE_WORD_BITS,
    LceGraph,
    fused_activation,
    is_same,
    lce_words,
    used_pads,
)
from frostbit.export.lce.padding import zero_padded
from frostbit.export.version import VERSION
from frostbit.kernels.ir.binary_weights import as_conv
from frostbit.kernels.ir.file import program_hash
from frostbit.kernels.ir.program import (
    INPUT,
    Affine,
    BinaryConv,
    Conv,
    Op,
    Program,
    Threshold,
    ValueType,
)
from frostbit.kernels.ir.verify import infer_types

DESCRIPTION = f"Frostbit {VERSION} binary neural network, program sha256 "


def _conv(graph: LceGraph, op: Conv, sources: tuple[ValueType, ...], x: int) -> int:
    if sources[0].kind == "bits":
        x = graph.dequantize(f"{op.name}/float", x, sources[0].shape[2])
    bias, zero = op.add.astype(np.float64), op.pad_value.astype(np.float64)
    depth = op.weights.shape[3]
    pads = used_pads(op.window, *graph.size(x))
    if any(pads) and np.unique(zero).size > 1:
        x = graph.add_constant(f"{op.name}/shifted", x, -zero)
        per_group = np.repeat(zero.reshape(op.groups, depth), len(bias) // op.groups, axis=0)
        bias = bias + (op.weights.astype(np.float64).sum(axis=(1, 2)) * per_group).sum(axis=1)
        zero = np.zeros_like(zero)
    same = zero[0] == 0 and is_same(op.window, *graph.size(x))
    if not same:
        x = graph.pad(op.name, x, pads, float(zero[0]), np.float32)
    return _float_groups(graph, replace(op, add=bias.astype(np.float32)), x, same)


def _float_groups(graph: LceGraph, op: Conv, x: int, same: bool) -> int:
    """CONV_2D, DEPTHWISE_CONV_2D, or one CONV_2D a group."""
    if op.groups == 1:
        return graph.conv(op.name, x, op.weights, op.add, op.window, same)
    per_input, per_output = op.weights.shape[3], len(op.weights) // op.groups
    if per_input == 1:
        return graph.depthwise(op.name, x, op.weights, op.add, op.window, same)
    parts = []
    for i in range(op.groups):
        name, rows = f"{op.name}/group{i}", slice(i * per_output, (i + 1) * per_output)
        part = graph.slice_depth(f"{name}/input", x, i * per_input, per_input, np.float32)
        parts.append(graph.conv(name, part, op.weights[rows], op.add[rows], op.window, same))
    return graph.concatenate(op.name, parts, np.float32)


def _binary_conv(graph: LceGraph, op: BinaryConv, sources: tuple[ValueType, ...], x: int) -> int:
    if sources[0].kind == "f32":
        return _conv(graph, as_conv(op), sources, x)
    if op.groups == 1:
        return _one_group(graph, op, x)
    per_group = op.channels_out // op.groups
    packed = isinstance(op.epilogue, Threshold) and per_group % LCE_WORD_BITS == 0
    parts = []
    for index, part in enumerate(_split(graph, op, sources[0].shape[2], x)):
        rows = slice(index * per_group, (index + 1) * per_group)
        name = f"{op.name}/group{index}"
        y = _one_group(graph, _group(op, name, rows), part)
        if isinstance(op.epilogue, Threshold) and not packed:
            y = graph.dequantize(f"{name}/float", y, per_group)
        parts.append(y)
    if isinstance(op.epilogue, Affine):
        return graph.concatenate(op.name, parts, np.float32)
    if packed:
        return graph.concatenate(op.name, parts, np.int32)
    return graph.quantize(op.name, graph.concatenate(f"{op.name}/float", parts, np.float32))


def _split(graph: LceGraph, op: BinaryConv, channels: int, x: int) -> list[int]:
    """The input of each group: slices of whole words, or of the unpacked channels."""
    if op.channels_in % LCE_WORD_BITS == 0:
        count = lce_words(op.channels_in)
        return [
            graph.slice_depth(f"{op.name}/input{i}", x, i * count, count, np.int32)
            for i in range(op.groups)
        ]
    floats = graph.dequantize(f"{op.name}/input", x, channels)
    names = [f"{op.name}/input{i}" for i in range(op.groups)]
    count = op.channels_in
    return [
        graph.quantize(
            name, graph.slice_depth(f"{name}/float", floats, i * count, count, np.float32)
        )
        for i, name in enumerate(names)
    ]


def _group(op: BinaryConv, name: str, rows: slice) -> BinaryConv:
    """The ungrouped convolution that gives the output channels ``rows``."""
    if isinstance(op.epilogue, Threshold):
        epilogue: Threshold | Affine = Threshold(op.epilogue.level[rows])
    else:
        mul, add = op.epilogue.mul[rows], op.epilogue.add[rows]
        epilogue = replace(op.epilogue, mul=mul, add=add)
    return replace(op, name=name, words=op.words[rows], groups=1, epilogue=epilogue)


def _one_group(graph: LceGraph, op: BinaryConv, x: int) -> int:
    height, width = graph.size(x)
    pads = used_pads(op.window, height, width)
    same = is_same(op.window, height, width)
    pads_with_zero = op.pad_value == 0 and any(pads)
    activation = fused_activation(op)
    if activation is None or (activation and pads_with_zero):
        return _clipped_sums(graph, op, x)
    if pads_with_zero:
        return zero_padded(graph, op, x)
    if not same:
        x = graph.pad(op.name, x, pads, 0, np.int32)
    return graph.binary_conv(x, op, op.epilogue, op.name, same, activation)


def _clipped_sums(graph: LceGraph, op: BinaryConv, x: int) -> int:
    """The bare sums as floats, clipped and scaled by operators of their own."""
    if not isinstance(op.epilogue, Affine):
        raise TypeError(f"op '{op.name}': a threshold clips nothing")
    count = op.channels_out
    bare = Affine(np.ones(count, np.float32), np.zeros(count, np.float32))
    sums = _one_group(graph, replace(op, name=f"{op.name}/sums", epilogue=bare), x)
    held = graph.clip(f"{op.name}/clipped", sums, *op.epilogue.limits(op.taps))
    return graph.scale(op.name, held, op.epilogue.mul, op.epilogue.add)


RULES: dict[type[Op], Callable[..., int]] = {**maps.RULES, Conv: _conv, BinaryConv: _binary_conv}


def sign_names(program: Program) -> tuple[str, ...]:
    """Names of all ``bits`` values in op order: the debug form's outputs after the logits."""
    types = infer_types(program)
    return tuple(op.name for op in program.ops if types[op.name].kind == "bits")


def convert(program: Program, *, debug: bool = False) -> bytes:
    """The .tflite file of ``program``: deterministic bytes, batch 1.

    Args:
        program: any well-formed Program.
        debug: also output every ``bits`` value, int32 ``[1, H, W, ceil(C / 32)]``, after the
            logits and in the order of :func:`sign_names`.

    Raises:
        ExportError: naming the op that LCE cannot express exactly.
        FormatError: if the program is malformed.
    """
    types = infer_types(program)
    graph = LceGraph()
    values = {INPUT: graph.input((1, *program.input_shape))}
    for op in program.ops:
        rule = RULES.get(type(op))
        if rule is None:
            raise ExportError(f"op '{op.name}': the LCE export has no rule for {type(op).__name__}")
        sources = tuple(types[name] for name in op.inputs)
        values[op.name] = rule(graph, op, sources, *(values[name] for name in op.inputs))
    logits = graph.reshape("logits", values[program.ops[-1].name], (1, len(program.classes)))
    outputs = [logits, *(values[name] for name in sign_names(program))] if debug else [logits]
    return graph.writer.finish([values[INPUT]], outputs, DESCRIPTION + program_hash(program))
