"""Program -> the calls of a C file: ops fused where that saves memory, and every value placed.

Fusions, chosen for machines with little RAM:

* ``Conv`` or ``BinaryConv`` (affine) followed by ``Add``, if nothing else reads it: the other
  operand becomes its residual and, where it is needed no longer, also the place of the sum;
* ``Sign`` of such a float map: the same call writes the signs, and no floats if nothing else
  reads them.

Floats and bits live in two arenas, so that no memory is ever read as another type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from frostbit.kernels.ir.program import (
    INPUT,
    Add,
    Affine,
    BinaryConv,
    Concat,
    Conv,
    Mul,
    Op,
    Program,
    ValueType,
)
from frostbit.kernels.plan.arena import Layout, place
from frostbit.kernels.plan.fusion import Step, fuse_adds, fuse_signs, spans

BIT_WORD = 32


@dataclass(frozen=True)
class Places:
    """Where values lie, counted in elements (floats, or 32-bit words of bits).

    Attributes:
        offsets: place of each value in the arena of its kind; input and logits have none.
        floats, words: sizes of the two arenas.
    """

    offsets: dict[str, int]
    floats: int
    words: int


def words_for(channels: int) -> int:
    """Number of 32-bit words that hold ``channels`` bits."""
    return -(-channels // BIT_WORD)


def elements(value: ValueType) -> int:
    """Floats, or 32-bit words of bits, that hold one map."""
    height, width, channels = value.shape
    return height * width * (words_for(channels) if value.kind == "bits" else channels)


def _makes_floats(op: Op) -> bool:
    is_affine = isinstance(op, BinaryConv) and isinstance(op.epilogue, Affine)
    return is_affine or isinstance(op, Conv)


def _first(op: Op, kind: str) -> Step:
    out, signs = (None, op.name) if kind == "bits" else (op.name, None)
    if isinstance(op, (Concat, Mul)):  # what Mul reads second may be smaller than its result
        return Step(op, op.inputs[0], out=out, bits=signs, more=op.inputs[1:])
    residual = op.inputs[1] if len(op.inputs) > 1 else None
    return Step(op, op.inputs[0], residual, out, signs)


def _takes_signs(op: Op) -> bool:
    return _makes_floats(op) or isinstance(op, Add)


def steps_of(program: Program, types: Mapping[str, ValueType]) -> list[Step]:
    """Calls of a verified ``program`` in order; ``types`` as from ``infer_types``."""
    steps = [_first(op, types[op.name].kind) for op in program.ops]
    return fuse_signs(fuse_adds(steps, _makes_floats), program.ops[-1].name, _takes_signs)


def _shared(steps: list[Step], alive: Mapping[str, tuple[int, int]], result: str) -> dict[str, str]:
    """For each float map, the value whose memory it takes (its own name if none).

    A sum is written over an operand that is not needed afterwards. A convolution reads its
    source around each pixel, so it never writes over that.
    """
    owner = {name: name for name in alive}
    for i, step in enumerate(steps):
        if step.residual is None or step.out is None or step.out == result:
            continue
        operands = step.reads if isinstance(step.op, Add) else (step.residual,)
        for name in operands:
            is_read_around = name == step.source and not isinstance(step.op, Add)
            if alive[name][1] == i and not is_read_around and name != INPUT:
                owner[step.out] = owner[name]
                break
    return owner


def _arena(
    sizes: Mapping[str, int], spans: Mapping[str, tuple[int, int]]
) -> tuple[dict[str, int], int]:
    """Element offsets of one arena's values, and its size in elements of four bytes."""
    layouts = {name: Layout((1, 1), 4 * size, 4) for name, size in sizes.items()}
    offsets, end = place(layouts, {name: spans[name] for name in sizes}, 0, reuse=True)
    return {name: offset // 4 for name, offset in offsets.items()}, end // 4


def places(steps: list[Step], types: Mapping[str, ValueType], result: str) -> Places:
    """Plan both arenas: values that never live together share memory.

    Raises:
        FormatError: if an arena is larger than 2 GiB.
    """
    alive = spans(steps)
    owner = _shared(steps, alive, result)
    joint: dict[str, tuple[int, int]] = {}
    for name, (first, last) in alive.items():
        start, end = joint.get(owner[name], (first, last))
        joint[owner[name]] = (min(start, first), max(end, last))
    offsets: dict[str, int] = {}
    totals = {}
    for kind in ("f32", "bits"):
        sizes = {
            name: elements(types[name])
            for name in joint
            if types[name].kind == kind and name not in (INPUT, result)
        }
        found, totals[kind] = _arena(sizes, joint)
        offsets.update(found)
    for name, whose in owner.items():
        if whose in offsets:
            offsets[name] = offsets[whose]
    return Places(offsets, totals["f32"], totals["bits"])
