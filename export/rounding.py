"""Comparison of a network whose values float32 rounds: an imported one, or one not settled.

A sum next to its threshold can fall on either side, and the flipped bit changes all that follows.
So the reference is led: after each op that gives bits it goes on with the runtime's own. Every
other bit must then be equal, and the logits close, on every image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import INPUT, Program, Sign, Softmax
from frostbit.kernels.ir.reference import Array
from frostbit.kernels.ir.verify import infer_types

THRESHOLD_TOLERANCE = 1e-5
"""A sign may differ where its value is smaller than this share of the map's largest."""


def scales(program: Program, values: Mapping[str, Array]) -> dict[str, float]:
    """Largest absolute value of every map of which signs are taken, over all images."""
    signs = [op for op in program.ops if isinstance(op, Sign)]
    return {op.inputs[0]: float(np.abs(values[op.inputs[0]]).max()) for op in signs}


def logit_scale(program: Program, values: Mapping[str, Array]) -> NDArray[np.float64]:
    """What a difference of logits is relative to, ``[N]``: the largest of its image.

    Probabilities change by at most half of what the logits before their Softmax change by.
    """
    last = program.ops[-1]
    of_probabilities = isinstance(last, Softmax)
    logits = values[last.inputs[0] if of_probabilities else last.name]
    largest = np.abs(logits.astype(np.float64)).max(axis=(1, 2, 3))
    least = 1.0 if of_probabilities else np.finfo(np.float32).tiny
    return np.asarray(np.maximum(largest / 2 if of_probabilities else largest, least))


@dataclass(frozen=True)
class Led:
    """The reference after a runtime's own bits, image by image.

    Attributes:
        values: every value by name.
        differing: bits that differ, ``[N]``.
        near: those of them whose value lies next to its threshold, ``[N]``.
        first: name of the first op with a bit that differs without that excuse ("" if none).
    """

    values: dict[str, Array]
    differing: NDArray[np.int64]
    near: NDArray[np.int64]
    first: str


def lead(
    program: Program,
    images: Array,
    signs: Mapping[str, bits.Words],
    largest: Mapping[str, float],
) -> Led:
    """Run the reference on ``images``, with the ``signs`` of a runtime instead of its own.

    Args:
        program: the network.
        images: as it takes them.
        signs: every ``bits`` value by op name, packed.
        largest: as from :func:`scales`.
    """
    types, values = infer_types(program), {INPUT: images}
    differing, near = np.zeros(len(images), np.int64), np.zeros(len(images), np.int64)
    first = ""
    for op in program.ops:
        value = reference.RULES[type(op)](op, *(values[name] for name in op.inputs))
        if types[op.name].kind == "bits":
            seen = bits.unpack(signs[op.name], types[op.name].shape[2])
            different = value != seen
            excused = np.zeros_like(different)
            if isinstance(op, Sign):
                margin = THRESHOLD_TOLERANCE * largest[op.inputs[0]]
                excused = different & (np.abs(values[op.inputs[0]]) <= margin)
            differing += different.sum(axis=(1, 2, 3))
            near += excused.sum(axis=(1, 2, 3))
            if not first and (different & ~excused).any():
                first = op.name
            value = seen
        values[op.name] = value
    return Led(values, differing, near, first)


def follows(
    program: Program,
    images: Array,
    signs: Mapping[str, bits.Words],
    logits: NDArray[np.float32],
    tolerance: float,
) -> NDArray[np.bool_]:
    """Whether ``logits`` ``[N, classes]`` of a runtime are the reference's after its own ``signs``.

    False where a sign differs that rounding does not explain, ``[N]``.
    """
    led = lead(program, images, signs, scales(program, reference.trace(program, images)))
    wanted = led.values[program.ops[-1].name][:, 0, 0].astype(np.float64)
    apart = np.abs(logits - wanted).max(axis=1) / logit_scale(program, led.values)
    return np.asarray((led.differing == led.near) & (apart <= tolerance))
