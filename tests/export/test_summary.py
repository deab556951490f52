"""Summaries of the same network in every format agree where they must."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from onnx import numpy_helper

from export import to_onnx, to_onnx_int8, to_qonnx
from export.errors import ExportError
from export.onnx_graph import serialize
from export.summary import Layer, Summary, by_layer, readable, summarise_program
from export.summary_onnx import summarise_onnx
from export.summary_tflite import summarise_tflite
from export.to_lce import convert as to_tflite
from export.twins import onnx_twin
from kernels.container import dumps
from kernels.program import INPUT, BinaryConv, Conv, Program, Threshold, Window
from tests.kernels.programs import Builder, programs
from tests.nets import every_op

SAME3 = (1, 1, 1, 1)
Counts = dict[str, tuple[int, int]]


def residual_net(pad_value: int = 0) -> Program:
    """A small ResNet: strided stem and pool, a plain block, a block that halves the map."""
    b = Builder((16, 16, 3))
    x = b.max_pool(b.conv(INPUT, 16, Window((7, 7), (2, 2), (3, 3, 3, 3))), Window((2, 2), (2, 2)))
    for _ in range(2):
        y = b.binary_conv(b.sign(x), 16, Window((3, 3), pads=SAME3), pad_value=pad_value)
        x = b.add(y, x)
    down = Window((3, 3), (2, 2), SAME3)
    y = b.binary_conv(b.sign(x), 40, down, pad_value=pad_value)
    x = b.add(y, b.conv(b.avg_pool(x, Window((2, 2), (2, 2))), 40, Window((1, 1))))
    return b.finish(x, 10)


def chain_net() -> Program:
    """Padding with +1, groups and thresholds only, one zero point for all pixels."""
    b = Builder((8, 8, 2), seed=3)
    x = b.sign(b.conv(INPUT, 64, Window((3, 3), pads=SAME3)))
    x = b.binary_conv(x, 64, Window((3, 3), pads=SAME3), affine=False)
    x = b.max_pool(x, Window((2, 2), (2, 2)))
    x = b.binary_conv(x, 33, Window((3, 3), pads=SAME3), affine=False)
    program = b.finish(b.binary_conv(x, 7, Window((1, 1))), 4)
    stem = program.ops[0]
    assert isinstance(stem, Conv)
    plain = dataclasses.replace(stem, pad_value=np.array([7, 7], np.uint8))
    return dataclasses.replace(program, ops=(plain, *program.ops[1:]))


def grouped_net() -> Program:
    b = Builder((6, 5, 1), seed=4)
    x = b.sign(b.conv(INPUT, 12, Window((2, 2))))
    x = b.binary_conv(x, 6, Window((3, 2), pads=(1, 0, 1, 1)), groups=3, pad_value=0, affine=False)
    return b.finish(b.binary_conv(x, 4, Window((2, 2)), groups=2), 3)


NETS: dict[str, Callable[[], Program]] = {
    "every op": every_op, "residual": residual_net, "chain": chain_net, "grouped": grouped_net
}  # fmt: skip


def of_program(program: Program) -> Summary:
    return summarise_program(program, len(dumps(program)))


def binary(summary: Summary) -> Counts:
    """1-bit parameters and MACs of every layer that has any."""
    found = {
        layer.name: (layer.parameters.get(1, 0), layer.macs.get(1, 0)) for layer in summary.layers
    }
    return {name: counts for name, counts in found.items() if any(counts)}


def check_agreement(program: Program) -> tuple[Summary, Summary, Summary]:
    """Hold .onnx and .tflite to the Program, layer by layer; returns all three."""
    own = of_program(program)
    theirs = summarise_onnx(to_onnx.convert(program)), summarise_tflite(to_tflite(program))
    expected = {
        op.name: (op.channels_out * op.taps, own.layers[index].macs[1])
        for index, op in enumerate(program.ops)
        if isinstance(op, BinaryConv)
    }
    for found in (own, *theirs):
        assert binary(found) == expected
        assert found.macs[32] == own.macs[32]
        assert set(found.macs) <= {1, 32}
        assert found.notes == ()
    return own, *theirs


@pytest.mark.parametrize("name", NETS)
def test_the_formats_agree_layer_by_layer(name: str) -> None:
    own, in_onnx, in_tflite = check_agreement(NETS[name]())
    assert in_onnx.parameters[32] >= own.parameters[32]
    assert in_tflite.parameters[32] >= own.parameters[32]
    for found in (own, in_onnx, in_tflite):
        assert found.parameters[1] / 8 < found.parameter_bytes < found.file_bytes


@settings(deadline=None, max_examples=60)
@given(programs())
def test_the_formats_agree_on_random_networks(program: Program) -> None:
    try:
        tflite = to_tflite(program)
    except ExportError:
        assume(False)
    expected = binary(of_program(program))
    assert binary(summarise_tflite(tflite)) == expected
    assert binary(summarise_onnx(to_onnx.convert(program))) == expected


def test_where_nothing_is_rewritten_all_figures_agree() -> None:
    own, in_onnx, in_tflite = check_agreement(chain_net())
    assert own.parameters == in_onnx.parameters == in_tflite.parameters
    assert own.float_bytes == in_tflite.float_bytes
    assert own.binary_share == in_onnx.binary_share == in_tflite.binary_share


def test_what_tflite_and_onnx_add_is_known() -> None:
    program = every_op()
    own, in_onnx, in_tflite = check_agreement(program)
    assert in_onnx.parameters[32] == own.parameters[32] + 2  # a zero point for each colour
    margin = 33 + 6 * 7 * 33  # conv0: multipliers of one, and its border of channels odd in number
    assert in_tflite.parameters[32] == own.parameters[32] + 2 + margin


def test_figures_by_hand() -> None:
    found = of_program(every_op())
    rows = {layer.name: layer for layer in found.layers}
    conv = rows["conv1"]
    assert (conv.op, conv.input_bits, conv.output) == ("BinaryConv", 1, (6, 7, 9))
    assert conv.parameters == {1: 9 * 33 * 9, 32: 9}
    assert conv.bytes == 9 * 38 + 9 * 4
    assert conv.macs == {1: 6 * 7 * 9 * 9 * 33}
    assert rows["stem"].input_bits == 8
    assert rows["stem"].macs == {32: 6 * 7 * 9 * 9 * 2}
    assert rows["logits"].parameters == {32: 5 * 18 + 5}
    assert rows["peak"].macs == {}
    ones, full = found.parameters[1], found.parameters[32]
    assert ones == 9 * 33 * 9 * 2 + 9 * 9 * 9 + 9 * 18 * 18
    assert found.float_bytes == 4 * (ones + full)
    assert found.eight_bit_bytes == -(-(ones + 8 * full) // 8)
    assert found.binary_share == found.macs[1] / (found.macs[1] + found.macs[32])


def test_packed_maps_of_tflite_show_their_channels() -> None:
    rows = {layer.name: layer for layer in summarise_tflite(to_tflite(every_op())).layers}
    assert rows["sign"].output == (6, 7, 9)
    assert rows["conv0"].output == (6, 7, 33)
    assert rows["most"].output == (3, 4, 18)
    assert [rows[name].input_bits for name in ("stem", "sign", "conv0", "most")] == [32, 32, 1, 1]


def test_forms_of_onnx() -> None:
    program = chain_net()
    own = of_program(program)
    thresholds = [
        op.name
        for op in program.ops
        if isinstance(op, BinaryConv) and isinstance(op.epilogue, Threshold)
    ]
    int8 = summarise_onnx(to_onnx_int8.convert(program))
    rows = {layer.name: layer for layer in int8.layers}
    assert int8.parameters == own.parameters
    assert all(set(rows[name].macs) == {8} for name in thresholds)
    plain = summarise_onnx(to_onnx.convert(program, packed=False))
    assert plain.parameters == {32: own.parameters[1] + own.parameters[32]}
    assert plain.binary_share == 0
    bipolar = summarise_onnx(serialize(to_qonnx.build(program)))
    assert binary(bipolar) == binary(own)
    assert bipolar.parameter_bytes == own.float_bytes


def test_a_plain_twin_has_the_same_macs_in_32_bits() -> None:
    program = residual_net()
    found, own = summarise_onnx(onnx_twin(program)), of_program(program)
    assert sum(own.macs.values()) == found.macs[32]
    assert set(found.parameters) == {32}


def test_a_clip_is_a_sign_only_where_it_must_be() -> None:
    model = onnx.load_from_string(to_onnx.convert(chain_net()))
    before = summarise_onnx(model.SerializeToString()).macs
    bias = next(t for t in model.graph.initializer if t.name.endswith("/bias"))
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + 1, bias.name))
    after = summarise_onnx(model.SerializeToString()).macs
    assert sum(after.values()) == sum(before.values())
    assert after[1] < before[1]


def test_operators_of_one_layer_are_one_row() -> None:
    rows = [
        Layer("a/padded", "Pad", 8, (4, 4, 3)),
        Layer("a/acc", "Conv", 1, (2, 2, 3), {1: 5}, 7, {1: 20}),
        Layer("b/c", "Relu", 32, (2, 2, 3)),
        Layer("a", "Add", 32, (2, 2, 6), {32: 6}, 24),
    ]
    joined, other = by_layer(rows)
    assert joined == Layer("a", "Conv", 1, (2, 2, 6), {1: 5, 32: 6}, 31, {1: 20})
    assert other == rows[2]


def test_names_from_files_are_safe_to_print() -> None:
    assert readable("conv\x1b[31m\n1") == "conv?[31m?1"
    assert len(readable("x" * 10_000)) == 120
