"""How far apart float32 may put two right answers of a Program whose head is not exact.

A runtime adds in an order of its own, and rounds after each addition, by at most half a unit in the
last place of what it has added so far. That is bounded by the sum of the *magnitudes* of all terms,
which can be far larger than the sum itself: behind a BatchNorm of a channel that hardly varies,
large terms cancel. So an allowance relative to the logit alone would refuse a right answer
(N. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., chapter 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.exact import grids
from frostbit.kernels.ir.program import (
    Affine,
    BinaryConv,
    Clip,
    Conv,
    Dense,
    Op,
    PRelu,
    Program,
    Quantize,
    Scale,
    Sigmoid,
    Softmax,
)
from frostbit.kernels.ir.verify import infer_types

Values = Mapping[str, NDArray[np.floating]]
CURVED = (PRelu, Quantize, Sigmoid, Softmax)
"""Ops that do more than add what they read, each value times a number."""


def terms(op: Op, *sources: NDArray[np.floating]) -> NDArray[np.floating]:
    """Sums of the magnitudes of what ``op`` adds up to make each of its values.

    Args:
        op: any op that gives numbers.
        sources: what it reads, or the magnitudes of that.
    """
    if isinstance(op, Clip):  # takes away from the value, and nothing from its error
        return np.asarray(np.abs(sources[0]))
    rule = reference.RULES[type(op)]
    return np.asarray(rule(_absolute(op), *(np.abs(each) for each in sources)))


def magnitudes(program: Program, values: Values) -> Values:
    """:func:`terms` of every value that float32 may round, through all that made it up.

    Args:
        program: a verified Program.
        values: every value by name, from :func:`frostbit.kernels.ir.reference.trace`.

    Returns:
        Arrays in the shapes of ``values``, by the names of the values that are not exact; without
        those of :data:`CURVED` ops, whose own magnitude counts behind them.
    """
    proofs, types = grids(program), infer_types(program)
    found: dict[str, NDArray[np.floating]] = {}
    for op in program.ops:
        known = proofs[op.name].exact or types[op.name].kind == "bits"
        if not known and not isinstance(op, CURVED):
            found[op.name] = terms(op, *(found.get(name, values[name]) for name in op.inputs))
    return found


def _absolute(op: Op) -> Op:
    """``op`` with its numbers made positive: of magnitudes it gives the sum of magnitudes."""
    match op:
        case Conv() | Dense():
            return replace(op, weights=np.abs(op.weights), add=np.abs(op.add))
        case Scale():
            return replace(op, mul=np.abs(op.mul), add=np.abs(op.add))
        case BinaryConv(epilogue=Affine(mul, add)):
            ones = np.ones((op.channels_out, *op.window.kernel, op.channels_in), np.int8)
            epilogue = Affine(np.abs(mul), np.abs(add))
            return replace(op, words=bits.pack(ones), epilogue=epilogue)
    return op


def cancels_most(program: Program, values: Values) -> str:
    """Name of the op whose terms cancel most, where float32 loses the most digits."""
    types = infer_types(program)
    lost = {
        op.name: _largest(terms(op, *(values[name] for name in op.inputs)))
        / max(_largest(values[op.name]), 1e-30)
        for op in program.ops
        if types[op.name].kind != "bits" and not isinstance(op, CURVED)
    }
    return max(lost, key=lost.__getitem__)


def _largest(value: NDArray[np.floating]) -> float:
    return float(np.abs(value).max())
