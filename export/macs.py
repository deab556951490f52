"""Per-op accounting of a Program: shapes, parameters, bytes, multiply-accumulates.

In the manner of larq's ``models.summary``: 1-bit and 32-bit parameters and MACs apart.
"""

from __future__ import annotations

from dataclasses import dataclass

from kernels.program import (
    BinaryConv,
    Conv,
    Dense,
    Op,
    Program,
    Threshold,
    ValueType,
)
from kernels.verify import infer_types


@dataclass(frozen=True)
class OpCost:
    """One op's share.

    Attributes:
        name, kind: op name and type.
        output: kind and shape of the output value.
        binary_parameters: 1-bit weights.
        float_parameters: 32-bit numbers (weights, addends, multipliers, integer thresholds).
        bytes: size of its arrays in the packed file.
        binary_macs, float_macs: multiply-accumulates for one image.
    """

    name: str
    kind: str
    output: ValueType
    binary_parameters: int = 0
    float_parameters: int = 0
    bytes: int = 0
    binary_macs: int = 0
    float_macs: int = 0


def _cost(op: Op, output: ValueType) -> OpCost:
    kind = type(op).__name__
    height, width, channels = output.shape
    if isinstance(op, BinaryConv):
        weights = op.channels_out * op.taps
        is_threshold = isinstance(op.epilogue, Threshold)
        numbers = channels if is_threshold else 2 * channels
        macs = height * width * weights
        size = op.channels_out * -(-op.taps // 8) + 4 * numbers
        return OpCost(op.name, kind, output, weights, numbers, size, binary_macs=macs)
    if isinstance(op, (Conv, Dense)):
        numbers = op.weights.size + op.add.size
        size = 4 * numbers + (op.pad_value.nbytes if isinstance(op, Conv) else 0)
        macs = height * width * op.weights.size
        return OpCost(op.name, kind, output, 0, numbers, size, float_macs=macs)
    return OpCost(op.name, kind, output)


def costs(program: Program) -> list[OpCost]:
    """One row per op, in order; raises FormatError if ``program`` is malformed."""
    types = infer_types(program)
    return [_cost(op, types[op.name]) for op in program.ops]


def float_bytes(program: Program) -> int:
    """Bytes of the fp32 state of the same network: four per weight and per channel number."""
    return sum(4 * (row.binary_parameters + row.float_parameters) for row in costs(program))
