"""The engine beside the reference where float32 rounds: the one rule of what may differ.

Engine and reference add the same numbers in another order and round at other places, so a float of
the engine may be off by ``ROUNDING`` times the largest sum that rounding on the way to it could
have come from. Then

* a sign may differ where the reference's float lies that near to 0, and nowhere else;
* logits may differ by so much.

The reference goes on from the engine's bits, so one sign that differs does not spread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import (
    INPUT,
    Add,
    BinaryConv,
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
)
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.machine import cpu
from tests.kernels.programs import random_images

ROUNDING = 2.0**-20
"""Sixteen times the rounding of one float32 operation."""


def _size(values: NDArray[Any]) -> float:
    return float(np.abs(values.astype(np.float64)).max(initial=0.0))


def _reach(op: Op, sources: list[float], pixels: int) -> float:
    """Largest sum from which a rounding error of ``op``'s result can come."""
    source = sources[0]
    match op:
        case Conv() | Dense():
            rows = np.abs(op.weights.astype(np.float64)).reshape(len(op.weights), -1)
            return float(rows.sum(axis=1).max()) * source + _size(op.add)
        case BinaryConv():
            if isinstance(op.epilogue, Threshold):
                return 0.0
            return op.taps * max(source, 1.0) * _size(op.epilogue.mul) + _size(op.epilogue.add)
        case GlobalSum():
            return source * pixels
        case Add():
            return sum(sources)
        case Mul():
            return sources[0] * sources[1]
        case Concat():
            return max(sources)
        case Scale():
            return source * _size(op.mul) + _size(op.add)
        case PRelu():
            return source * max(1.0, _size(op.slope))
        case Sigmoid():
            return max(1.0, source)
    return max(1.0, source)


def _near_a_half(op: Quantize, x: NDArray[Any], reach: float) -> bool:
    """Whether the engine may round an element of ``x`` to another step."""
    steps = x / op.step
    return bool((np.abs(steps - np.floor(steps) - 0.5) * op.step <= ROUNDING * reach).any())


def guided(
    program: Program, images: NDArray[Any], signs: dict[str, bits.Words]
) -> tuple[NDArray[np.float32], float]:
    """Logits of the reference on the engine's ``signs``, and by how much they may differ.

    Raises:
        AssertionError: if a bit differs that may not.
    """
    types = infer_types(program)
    values, reach = {INPUT: images}, {INPUT: max(1.0, _size(images))}
    for op in program.ops:
        value = reference.RULES[type(op)](op, *(values[name] for name in op.inputs))
        height, width, _ = types[op.inputs[0]].shape
        reach[op.name] = _reach(op, [reach[name] for name in op.inputs], height * width)
        if isinstance(op, Quantize) and _near_a_half(op, values[op.inputs[0]], reach[op.name]):
            reach[op.name] = max(reach[op.name], op.step / ROUNDING)
        if types[op.name].kind == "bits":
            reach[op.name] = 1.0
            mine = bits.unpack(signs[op.name], value.shape[-1]).astype(np.int8)
            differs = mine != value
            if isinstance(op, Sign):
                source = values[op.inputs[0]]
                differs &= np.abs(source) > ROUNDING * reach[op.inputs[0]]
            assert not differs.any(), f"{op.name}: {differs.sum()} bits"
            value = mine
        values[op.name] = value
    last = program.ops[-1].name
    return values[last][:, 0, 0], ROUNDING * reach[last]


def check_near(program: Program, count: int = 3) -> None:
    """The rule of this module for every micro-kernel; all of them give the same bits."""
    images = random_images(program, count)
    found = []
    for kernel in cpu.available():
        engine = Engine(program, keep=True, kernel=kernel)
        logits, signs = engine.run(images), engine.signs(images)
        shared = Engine(program, kernel=kernel).run(images)  # values share memory
        np.testing.assert_array_equal(shared, logits)
        found.append((logits, signs))
    logits, signs = found[0]
    for others, other_signs in found[1:]:
        np.testing.assert_array_equal(others, logits)
        for name, words in signs.items():
            np.testing.assert_array_equal(other_signs[name], words, err_msg=name)
    expected, tolerance = guided(program, images, signs)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance)
