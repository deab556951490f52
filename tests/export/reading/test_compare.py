"""The comparison with the source: equal where it is, and every wrong layer found by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from frostbit.export.errors import SourceDiffers
from frostbit.export.inputs import random_images
from frostbit.export.lce.outputs import with_outputs
from frostbit.export.lce.tflite_reader import read
from frostbit.export.reading.compare import SIGN_TOLERANCE, compare
from frostbit.export.reading.imported import Imported
from frostbit.export.reading.match import to_program
from frostbit.export.reading.tflite.read import read_graph
from frostbit.export.reading.tflite.runtime import LceSource
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import (
    Affine,
    BinaryConv,
    Conv,
    GlobalSum,
    MaxPool,
    Op,
    PRelu,
    Program,
    Scale,
    Sign,
    Threshold,
)
from frostbit.kernels.ir.verify import infer_types
from tests.export.lce.lce_fixture import require_lce
from tests.export.reading.foreign import TFLITE, tflite


class Replay:
    """A source that gives stored values, some of them changed."""

    name = "a replay"

    def __init__(self, program: Program, change: Callable[[dict[str, np.ndarray]], None]) -> None:
        self._program, self._change = program, change

    def values(self, images: np.ndarray) -> dict[str, np.ndarray]:
        found = reference.trace(self._program, images)
        self._change(found)
        return found

    def close(self) -> None:
        pass


@pytest.mark.parametrize("name", TFLITE)
def test_every_layer_equals_the_sources(name: str) -> None:
    require_lce()
    data = tflite(name)
    imported = to_program(read_graph(data))
    source = LceSource(data, imported)
    try:
        found = compare(imported, source, random_images(imported.program, 0, 2))
    finally:
        source.close()
    types = infer_types(imported.program)
    bits = sum(math.prod(value.shape) for value in types.values() if value.kind == "bits")
    assert found.images == 2
    assert found.sign_bits == 2 * bits > 500
    assert found.flips <= 2
    assert found.values == len(imported.names) >= 0.6 * len(imported.program.ops)
    assert found.numbers < 1e-5
    assert found.answers < 1e-5
    assert "Larq Compute Engine 0.16" in found.verdict


def small() -> Imported:
    """Float32 2x2x3 -> 3 numbers by way of a sign, with names of a source."""
    ops = (
        Scale("scale", ("input",), np.ones(3, np.float32), np.zeros(3, np.float32)),
        Sign("sign", ("scale",)),
        GlobalSum("answer", ("sign",)),
    )
    program = Program((2, 2, 3), ops, "", ("a", "b", "c"), input_kind="f32")
    return Imported(program, "a replay", (), (), {op.name: op.name for op in ops})


def flip_first(values: dict[str, np.ndarray]) -> None:
    values["sign"][0, 0, 0, 0] *= -1
    values["answer"] = values["sign"].astype(np.float32).sum(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("closeness", [0.5, 2.0])
def test_a_bit_may_differ_only_at_its_threshold(closeness: float) -> None:
    imported = small()
    image = np.full((1, 2, 2, 3), 4.0, np.float32)
    image[0, 0, 0, 0] = closeness * SIGN_TOLERANCE * 4.0
    source = Replay(imported.program, flip_first)
    if closeness > 1:
        with pytest.raises(SourceDiffers, match=r"'sign' \(Sign\): 1 of 12 bits"):
            compare(imported, source, image)
        return
    found = compare(imported, source, image)
    assert (found.flips, found.sign_bits, found.whole) == (1, 12, 0)
    assert "1 within 1e-05 of their threshold" in found.verdict


def changed(op: Op) -> Op | None:
    """``op`` with one small thing wrong; None if it has nothing of that kind."""
    match op:
        case BinaryConv(epilogue=Threshold(level=level)):
            return replace(op, epilogue=Threshold(np.minimum(level + 8, op.taps + 1)))
        case BinaryConv(epilogue=Affine() as affine) if affine.low == 0:
            return replace(op, epilogue=replace(affine, low=-100))
        case BinaryConv():
            words = op.words.copy()
            words.flat[0] ^= np.uint64(1)
            return replace(op, words=words)
        case Conv():
            return replace(op, add=op.add + np.float32(0.01))
        case Scale() if op.mul.any():
            return replace(op, mul=-op.mul)
        case PRelu():
            return replace(op, slope=op.slope + np.float32(0.1))
        case MaxPool() if any(op.window.pads):
            return replace(op, window=replace(op.window, pads=op.window.pads[::-1]))
    return None


def first_compared(imported: Imported, op: Op) -> set[str]:
    """``op`` if the source has its value, else those that are made of it and have one."""
    if op.name in imported.names:
        return {op.name}
    readers = [other for other in imported.program.ops if op.name in other.inputs]
    return set().union(*(first_compared(imported, other) for other in readers))


@pytest.mark.parametrize("name", TFLITE)
def test_a_wrong_layer_is_found_by_name(name: str) -> None:
    require_lce()
    data = tflite(name)
    imported = to_program(read_graph(data))
    program = imported.program
    images = random_images(program, 0, 1)
    source = LceSource(data, imported)
    try:
        for position, op in enumerate(program.ops):
            wrong = changed(op)
            if wrong is None:
                continue
            ops = (*program.ops[:position], wrong, *program.ops[position + 1 :])
            with pytest.raises(SourceDiffers, match="differ from the source's") as caught:
                compare(replace(imported, program=replace(program, ops=ops)), source, images)
            blamed = first_compared(imported, op)
            assert any(f"'{each}'" in str(caught.value) for each in blamed)
    finally:
        source.close()


def test_a_copy_gives_the_values_that_are_asked_for() -> None:
    data = tflite("bits_one")
    copy = with_outputs(data, [5, 3])
    assert read(copy).outputs == (5, 3)
    assert [each.outputs for each in read(copy).operators] == [
        each.outputs for each in read(data).operators
    ]
    assert len(copy) - len(data) <= 16


def test_images_must_fit() -> None:
    imported = small()
    source = Replay(imported.program, lambda values: None)
    with pytest.raises(ValueError, match="float32"):
        compare(imported, source, np.zeros((1, 2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="NaN"):
        compare(imported, source, np.full((1, 2, 2, 3), np.nan, np.float32))
