"""Files of the official converter: read, and equal to what its own runtime gave."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from frostbit.export.lce import convert as to_lce
from frostbit.export.reading.match import to_program
from frostbit.export.reading.tflite.read import read_graph
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.integer_weights import as_int8
from frostbit.kernels.ir.program import INPUT, BinaryConv, Conv, Dense, FormatError, Softmax, Window
from tests.export.reading.foreign import TFLITE, answers, far, tflite
from tests.kernels.programs import Builder


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


def small() -> Builder:
    """Full-precision convolution, depthwise convolution and head of 8 bits, a scale per channel."""
    b = Builder((6, 5, 3))
    x = b.sign(b.conv(INPUT, 33, Window((3, 3)), bits=8))
    x = b.sign(b.conv(x, 33, Window((2, 2)), groups=33, bits=8))
    b.finish(b.binary_conv(x, 9, Window((1, 1))), bits=8)
    return b


def test_weights_of_8_bits_come_back() -> None:
    b = small()
    program, images = b.program(), b.images(3)
    found = to_program(read_graph(to_lce.convert(program))).program
    full = [op.weights for op in found.ops if isinstance(op, (Conv, Dense))]
    assert len(full) == 3
    assert all(as_int8(weights) is not None for weights in full)
    got = reference.run(found, images.astype(np.float32))
    assert np.array_equal(got, reference.run(program, images))


@pytest.mark.parametrize("change", ["scale", "zeroPoint", "quantizedDimension"])
def test_scales_that_do_not_fit_are_refused(change: str) -> None:
    model = schema.ModelT.InitFromPackedBuf(to_lce.convert(small().program()), 0)
    about = next(t.quantization for t in model.subgraphs[0].tensors if t.quantization is not None)
    setattr(about, change, 1 if change == "quantizedDimension" else getattr(about, change)[:-1])
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), b"TFL3")
    with pytest.raises(FormatError, match=r"DEQUANTIZE .*has [0-9]+ scales and [0-9]+ zero points"):
        read_graph(bytes(builder.Output()))
