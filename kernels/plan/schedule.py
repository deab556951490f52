"""Program -> list of steps: helper steps made explicit, then small ops fused into big ones.

Each fusion removes one pass over a map: those of :mod:`frostbit.kernels.plan.fusion` (``Add`` into
a binary convolution, ``Sign`` into whatever makes floats), ``Clip`` (a Relu) into a convolution,
and ``ToFloat`` read by a sum or as a residual: that step reads the bits. Binary weights on a float
map become a full-precision convolution (:mod:`frostbit.kernels.ir.binary_weights`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from frostbit.kernels import op_table as t
from frostbit.kernels.ir.binary_weights import as_conv
from frostbit.kernels.ir.program import (
    INPUT,
    Add,
    Affine,
    BinaryConv,
    Clip,
    Concat,
    Conv,
    Dense,
    GlobalSum,
    Mul,
    Op,
    PRelu,
    Program,
    Quantize,
    Scale,
    Sigmoid,
    Sign,
    Threshold,
    ToFloat,
    ValueType,
)
from frostbit.kernels.plan.fusion import Step, fuse_adds, fuse_signs, readers, spans
from frostbit.kernels.plan.integer_layout import WholeConv, as_whole
from frostbit.kernels.plan.padded_sums import split_padded_sums
from frostbit.kernels.plan.quads import use_quads


@dataclass(frozen=True, eq=False)
class Widen(Op):
    """Any map with the padding of the convolution ``reader`` around it.

    As float32, or in the integers that a ``WholeConv`` reads.
    """

    reader: Conv

    @property
    def micro(self) -> int:
        """``op_table.FLOAT``, ``INT16`` or ``INT8``."""
        if not isinstance(self.reader, WholeConv):
            return t.FLOAT
        return t.INT8 if self.reader.micro == t.INT8 else t.INT16

    @property
    def value_bytes(self) -> int:
        return {t.FLOAT: 4, t.INT16: 2, t.INT8: 1}[self.micro]


@dataclass(frozen=True, eq=False)
class Regroup(Op):
    """Bits with each group of ``reader`` starting at a whole word."""

    reader: BinaryConv


@dataclass(frozen=True, eq=False)
class Spread(Op):
    """The image as a float map, for all but convolutions, which have one of their own."""


SPREAD = f"{INPUT}:floats"
ELEMENTWISE = (Add, Sign, ToFloat, Mul, Clip, Scale, PRelu, Quantize, Sigmoid)
"""Ops of which one kernel computes any, the signs of the result included."""


def _first_steps(op: Op, types: dict[str, ValueType]) -> list[Step]:
    """The steps of one op, helpers first."""
    source = op.inputs[0]
    kind = types[source].kind
    if isinstance(op, BinaryConv) and kind == "f32":
        op = as_conv(op)
    if isinstance(op, Conv) and (kind != "f32" or any(op.window.pads) or source == INPUT):
        wide = f"{op.name}:wide"
        reader = as_whole(op, kind) or op
        widen = Widen(wide, op.inputs, reader)
        return [Step(widen, source, out=wide), Step(reader, wide, out=op.name)]
    if isinstance(op, BinaryConv):
        first = []
        if op.groups > 1:
            apart = f"{op.name}:groups"
            first = [Step(Regroup(apart, op.inputs, op), source, out=apart)]
            source = apart
        if isinstance(op.epilogue, Threshold):
            return [*first, Step(op, source, bits=op.name)]
        return [*first, Step(op, source, out=op.name)]
    if isinstance(op, GlobalSum) and kind == "bits":
        floats = f"{op.name}:floats"
        return [
            Step(ToFloat(floats, op.inputs), source, out=floats),
            Step(op, floats, out=op.name),
        ]
    if isinstance(op, Sign):
        return [Step(op, source, bits=op.name)]
    if isinstance(op, Concat):
        return [Step(op, source, out=op.name, more=op.inputs[1:])]
    residual = op.inputs[1] if len(op.inputs) > 1 else None
    return [Step(op, source, residual, out=op.name)]


def _spread_input(steps: list[Step]) -> list[Step]:
    """Let what cannot read the image read a float map of it."""

    def renamed(name: str) -> str:
        return SPREAD if name == INPUT else name

    changed = [
        step
        if isinstance(step.op, Widen) or INPUT not in step.reads
        else replace(
            step,
            source=renamed(step.source),
            residual=None if step.residual is None else renamed(step.residual),
            more=tuple(map(renamed, step.more)),
        )
        for step in steps
    ]
    if any(SPREAD in step.reads for step in changed):
        return [Step(Spread(SPREAD, (INPUT,)), INPUT, out=SPREAD), *changed]
    return changed


def _fuse_to_float(steps: list[Step], result: str) -> list[Step]:
    """Let sums and residuals read bits themselves; drop conversions that nobody reads."""
    bits_of = {step.out: step.source for step in steps if isinstance(step.op, ToFloat) and step.out}
    kept = []
    for step in steps:
        if isinstance(step.op, Add):
            step = replace(
                step,
                source=bits_of.get(step.source, step.source),
                residual=bits_of.get(step.residual or "", step.residual),
            )
        kept.append(step)
    read = readers(kept)
    return [
        step
        for step in kept
        if step.out not in bits_of or step.out == result or read[step.out or ""]
    ]


def _fuse_clips(steps: list[Step], result: str) -> list[Step]:
    """Let a convolution that only a Clip reads clip its own result.

    Spare lanes are clipped too, and must not become negative: so neither must the upper limit.
    """
    read = readers(steps)
    makers = {step.out: step for step in steps if step.out and _takes_clips(step.op)}
    merged: dict[str | None, Step] = {}  # what the convolution wrote -> fused step
    gone: set[str | None] = set()
    for step in steps:
        maker, op = makers.get(step.source), step.op
        if maker is None or not isinstance(op, Clip) or op.high < 0:
            continue
        if read[step.source] == 1 and step.source != result:
            covers = (*maker.covers, *step.names)
            merged[maker.out] = replace(maker, out=step.out, clip=(op.low, op.high), covers=covers)
            gone.add(step.out)
    return [merged.get(step.out, step) for step in steps if step.out not in gone]


def _takes_adds(op: Op) -> bool:
    return isinstance(op, BinaryConv) and isinstance(op.epilogue, Affine)


def _takes_clips(op: Op) -> bool:
    return _takes_adds(op) or isinstance(op, (Conv, Dense))


def _takes_signs(op: Op) -> bool:
    return isinstance(op, (Conv, BinaryConv, *ELEMENTWISE))


def schedule(program: Program, types: dict[str, ValueType]) -> list[Step]:
    """Steps of a verified ``program`` in execution order.

    ``types`` are those of ``infer_types``; those of some helpers' values are added.
    """
    result = program.ops[-1].name
    steps = [step for op in program.ops for step in _first_steps(op, types)]
    steps = _spread_input(split_padded_sums(steps, types, result))
    summed = fuse_adds(_fuse_to_float(steps, result), _takes_adds)
    return use_quads(fuse_signs(_fuse_clips(summed, result), result, _takes_signs), types)


def lifetimes(steps: list[Step], result: str) -> dict[str, tuple[int, int]]:
    """First and last step that needs each value of the arena (the program's input is not)."""
    found = spans(steps)
    found.pop(INPUT, None)
    found[result] = (found[result][0], len(steps))
    return found
