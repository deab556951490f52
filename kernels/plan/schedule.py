"""Program -> list of steps: helper steps made explicit, then small ops fused into big ones.

Fusions, each of which removes one pass over a map:

* ``BinaryConv`` (affine) followed by ``Add``, if nothing else reads the convolution: the other
  operand becomes its residual, and the step moves to the place of the ``Add``;
* ``Sign`` of a step's float result: the same step writes the bits, and no floats if nothing
  else reads them;
* ``ToFloat`` read by a sum or as a residual: that step reads the bits.

Binary weights on a float map become a full-precision convolution
(:mod:`frostbit.kernels.ir.binary_weights`). A bits value of the Program is always written, so
nothing hides one.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

from frostbit.kernels.ir.binary_weights import as_conv
from frostbit.kernels.ir.program import (
    INPUT,
    Add,
    Affine,
    BinaryConv,
    Concat,
    Conv,
    GlobalSum,
    Op,
    Program,
    Sign,
    Threshold,
    ToFloat,
    ValueType,
)
from frostbit.kernels.micro.integers import integer_weights


@dataclass(frozen=True, eq=False)
class Widen(Op):
    """Any map with the padding of the convolution ``reader`` around it, as float32 or int16."""

    reader: Conv
    to_int16: bool


@dataclass(frozen=True, eq=False)
class Regroup(Op):
    """Bits with each group of ``reader`` starting at a whole word."""

    reader: BinaryConv


@dataclass(frozen=True)
class Step:
    """One row of the op table.

    Attributes:
        op: what to compute (elementwise: any of Add, Sign, ToFloat).
        source: name of the value it reads.
        residual: name of the value it adds, or None.
        out: name of the value it writes as float32 (or bits, if the op gives bits), or None.
        bits: name of the value that holds the signs of its float result, or None.
        more: names of what a Concat reads after ``source``.
    """

    op: Op
    source: str
    residual: str | None = None
    out: str | None = None
    bits: str | None = None
    more: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        added = () if self.residual is None else (self.residual,)
        return (self.source, *added, *self.more)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for name in (self.out, self.bits) if name is not None)


ELEMENTWISE = (Add, Sign, ToFloat)


def _first_steps(op: Op, types: dict[str, ValueType]) -> list[Step]:
    """The steps of one op, helpers first."""
    source = op.inputs[0]
    kind = types[source].kind
    if isinstance(op, BinaryConv) and kind == "f32":
        op = as_conv(op)
    if isinstance(op, Conv) and (kind != "f32" or any(op.window.pads)):
        wide = f"{op.name}:wide"
        widen = Widen(wide, op.inputs, op, integer_weights(op, kind) is not None)
        return [Step(widen, source, out=wide), Step(op, wide, out=op.name)]
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


def _readers(steps: list[Step]) -> Counter[str]:
    return Counter(name for step in steps for name in step.reads)


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
    readers = _readers(kept)
    return [
        step
        for step in kept
        if step.out not in bits_of or step.out == result or readers[step.out or ""]
    ]


def _fuse_adds(steps: list[Step]) -> list[Step]:
    """Merge an Add into the binary convolution that feeds it alone."""
    readers = _readers(steps)
    convolutions = {
        step.out: step
        for step in steps
        if isinstance(step.op, BinaryConv) and isinstance(step.op.epilogue, Affine)
    }
    merged: dict[str, Step] = {}  # name of the Add -> fused step
    gone: set[str | None] = set()
    for step in steps:
        if not isinstance(step.op, Add):
            continue
        for mine, other in ((step.source, step.residual), (step.residual, step.source)):
            if mine in convolutions and readers[mine or ""] == 1:
                fused = replace(convolutions[mine], residual=other, out=step.out)
                merged[step.op.name] = fused
                gone.add(mine)
                break
    return [merged.get(step.op.name, step) for step in steps if step.out not in gone]


def _fuse_signs(steps: list[Step], result: str) -> list[Step]:
    """Let the step that makes a float map write its signs too."""
    can = (Conv, BinaryConv, *ELEMENTWISE)
    made = {step.out: i for i, step in enumerate(steps) if step.out and isinstance(step.op, can)}
    fused = list(steps)
    gone = set()
    for i, step in enumerate(steps):
        maker = made.get(step.source)
        if isinstance(step.op, Sign) and maker is not None and fused[maker].bits is None:
            fused[maker] = replace(fused[maker], bits=step.bits)
            gone.add(i)
    kept = [step for i, step in enumerate(fused) if i not in gone]
    readers = _readers(kept)
    return [
        replace(step, out=None)
        if step.bits and step.out and step.out != result and not readers[step.out]
        else step
        for step in kept
    ]


def schedule(program: Program, types: dict[str, ValueType]) -> list[Step]:
    """Steps of a verified ``program`` in execution order; ``types`` as from ``infer_types``."""
    result = program.ops[-1].name
    steps = [step for op in program.ops for step in _first_steps(op, types)]
    return _fuse_signs(_fuse_adds(_fuse_to_float(steps, result)), result)


def lifetimes(steps: list[Step], result: str) -> dict[str, tuple[int, int]]:
    """First and last step that needs each value of the arena (the program's input is not)."""
    spans: dict[str, tuple[int, int]] = {}
    for i, step in enumerate(steps):
        for name in (*step.reads, *step.writes):
            if name != INPUT:
                spans[name] = (spans.get(name, (i, i))[0], i)
    spans[result] = (spans[result][0], len(steps))
    return spans
