"""Files of the official converter: read, and equal to what its own runtime gave."""

from __future__ import annotations

import pytest

from frostbit.export.reading.match import to_program
from frostbit.export.reading.tflite.read import read_graph
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import BinaryConv, Softmax
from tests.export.reading.foreign import TFLITE, answers, far, tflite


@pytest.mark.parametrize("name", TFLITE)
def test_gives_what_the_source_gives(name: str) -> None:
    found, known = to_program(read_graph(tflite(name))), answers(name)
    got = reference.run(found.program, known.images)
    assert far(got, known.output) < 1e-5
    assert far(got, known.keras) < 1e-5


@pytest.mark.parametrize(
    ("name", "layers"), [("larq_mnist", 2), ("larq_cifar_small", 3), ("xnor_separable", 1)]
)
def test_layers_left_as_numbers_become_one_bit(name: str, layers: int) -> None:
    found = to_program(read_graph(tflite(name)))
    assert len(found.restored) == layers
    for each in found.restored:
        assert each.bytes_before == 4 * each.weights
        assert each.weights <= 8 * each.bytes_after < each.bytes_before
    others = to_program(read_graph(tflite("mini_quicknet")))
    assert not others.restored
    assert sum(isinstance(op, BinaryConv) for op in others.program.ops) == 4


def test_logits_leave_the_softmax_out() -> None:
    graph = read_graph(tflite("mini_quicknet"))
    whole, cut = to_program(graph), to_program(graph, logits=True)
    assert isinstance(whole.program.ops[-1], Softmax)
    assert whole.program.ops[:-1] != cut.program.ops
    assert [op.name for op in whole.program.ops[:-1]] == [op.name for op in cut.program.ops]
    assert any("softmax" in note for note in cut.notes)
    without = to_program(read_graph(tflite("bits_one")), logits=True)
    assert any("no final softmax" in note for note in without.notes)
