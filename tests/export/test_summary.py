"""Summaries of the same network in every format agree where they must."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from onnx import numpy_helper

from frostbit.export.errors import ExportError
from frostbit.export.lce.convert import convert as to_tflite
from frostbit.export.lce.padding import grown_size
from frostbit.export.lce.summary import summarise_tflite
from frostbit.export.onnx import int8 as to_onnx_int8
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx import qonnx as to_qonnx
from frostbit.export.onnx.float_twin import onnx_twin
from frostbit.export.onnx.graph import serialize
from frostbit.export.onnx.summary import summarise_onnx
from frostbit.export.summary import Layer, Summary, by_layer, readable, summarise_program
from frostbit.kernels.ir.file import dumps
from frostbit.kernels.ir.program import BinaryConv, Conv, Dense, MaxPool, Program, Threshold
from frostbit.kernels.ir.verify import infer_types
from tests.export.summary_nets import chain_net, grouped_net, mixed_net, residual_net
from tests.kernels.programs import programs
from tests.nets import every_op, imported

Counts = dict[str, tuple[int, int]]

NETS: dict[str, Callable[[], Program]] = {
    "every op": every_op,
    "mixed": mixed_net,
    "residual": residual_net,
    "chain": chain_net,
    "grouped": grouped_net,
    "imported": imported,
}


def of_program(program: Program) -> Summary:
    return summarise_program(program, len(dumps(program)))


def binary(summary: Summary) -> Counts:
    """1-bit parameters and MACs of every layer that has any."""
    found = {
        layer.name: (layer.parameters.get(1, 0), layer.macs.get(1, 0)) for layer in summary.layers
    }
    return {name: counts for name, counts in found.items() if any(counts)}


def lce_size(op: BinaryConv, size: tuple[int, int]) -> tuple[int, int]:
    """``(OH, OW)`` that LCE computes: maps that grow are cropped afterwards."""
    grown = grown_size(op.window, *size)
    if op.pad_value == 1 or grown is None or op.channels_in % 2 or not any(op.window.pads):
        return op.window.output(*size)
    return -(-grown[0] // op.window.stride[0]), -(-grown[1] // op.window.stride[1])


def expected(program: Program, in_lce: bool = False) -> Counts:
    """What :func:`binary` must find: binary convolutions, 1-bit MACs only where the input is."""
    types = infer_types(program)
    found: Counts = {}
    for op in program.ops:
        if isinstance(op, BinaryConv):
            height, width, channels = types[op.name].shape
            if in_lce:
                height, width = lce_size(op, types[op.inputs[0]].shape[:2])
            of_bits = types[op.inputs[0]].kind == "bits"
            if of_bits or not in_lce:
                macs = height * width * channels * op.taps if of_bits else 0
                found[op.name] = (channels * op.taps, macs)
    return found


def more_than_one_bit(found: Summary) -> int:
    """MACs of full-precision layers: pixels have 8 bits in some formats and 32 in others."""
    return sum(count for bits, count in found.macs.items() if bits > 1)


def real_inputs(program: Program) -> int:
    """Binary weights that read numbers: LCE has no operator for them, so they take a byte."""
    types = infer_types(program)
    found = [op for op in program.ops if isinstance(op, BinaryConv)]
    return sum(op.channels_out * op.taps for op in found if types[op.inputs[0]].kind == "f32")


def check_agreement(program: Program) -> tuple[Summary, Summary, Summary]:
    """Hold .bnn, .onnx and .tflite to the Program, layer by layer; returns all three."""
    own, in_onnx = of_program(program), summarise_onnx(to_onnx.convert(program))
    in_tflite = summarise_tflite(to_tflite(program))
    assert binary(own) == binary(in_onnx) == expected(program)
    assert binary(in_tflite) == expected(program, in_lce=True)
    for found in (own, in_onnx, in_tflite):
        assert more_than_one_bit(found) == more_than_one_bit(own)
        assert set(found.macs) <= {1, 8, 32}
    assert in_onnx.parameters[8] == own.parameters[8]
    assert in_tflite.parameters[8] == own.parameters[8] + real_inputs(program)
    for found in (own, in_onnx, in_tflite):
        assert found.notes == ()
    return own, in_onnx, in_tflite


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
    assert binary(of_program(program)) == expected(program)
    assert binary(summarise_onnx(to_onnx.convert(program))) == expected(program)
    assert binary(summarise_tflite(tflite)) == expected(program, in_lce=True)


def test_where_nothing_is_rewritten_all_figures_agree() -> None:
    own, in_onnx, in_tflite = check_agreement(chain_net())
    assert own.parameters == in_onnx.parameters == in_tflite.parameters
    assert own.float_bytes == in_tflite.float_bytes
    assert own.binary_share == in_onnx.binary_share == in_tflite.binary_share


def test_what_tflite_and_onnx_add_is_known() -> None:
    own, in_onnx, in_tflite = check_agreement(mixed_net())
    assert in_onnx.parameters[32] == own.parameters[32] + 2  # a zero point for each colour
    margin = 33 + 6 * 7 * 33  # of the first: multipliers of one, border for odd channels
    assert in_tflite.parameters[32] == own.parameters[32] + 2 + margin


def test_figures_by_hand() -> None:
    found = of_program(mixed_net())
    stem, _, first, second, *_, dense = found.layers
    assert (second.op, second.input_bits, second.output) == ("BinaryConv", 1, (6, 7, 9))
    assert second.parameters == {1: 9 * 33 * 9, 32: 9}
    assert second.bytes == 9 * 38 + 9 * 4
    assert second.macs == {1: 6 * 7 * 9 * 9 * 33}
    assert stem.input_bits == 8
    assert stem.macs == {8: 6 * 7 * 9 * 9 * 2}
    assert stem.parameters == {8: 9 * 9 * 2, 32: 9 + 9}, "a scale and an addend per channel"
    assert stem.bytes == 9 * 9 * 2 + 4 * (9 + 9) + 2, "and a zero point per colour"
    assert first.parameters == {1: 33 * 9 * 9, 32: 33}
    assert dense.parameters == {8: 5 * 18, 32: 5 + 5}
    assert dense.macs == {32: 5 * 18}, "of sums"
    ones, full = found.parameters[1], found.parameters[8] + found.parameters[32]
    assert ones == 9 * 33 * 9 * 2 + 9 * 9 * 9 + 9 * 18 * 18
    assert found.float_bytes == 4 * (ones + full)
    assert found.eight_bit_bytes == -(-(ones + 8 * full) // 8)
    assert found.binary_share == found.macs[1] / (found.macs[1] + more_than_one_bit(found))


def test_packed_maps_of_tflite_show_their_channels() -> None:
    program = mixed_net()
    rows = {layer.name: layer for layer in summarise_tflite(to_tflite(program)).layers}
    types = infer_types(program)
    for op in program.ops:
        if types[op.name].kind == "bits":
            assert rows[op.name].output == types[op.name].shape
    widths = [rows[op.name].input_bits for op in program.ops if isinstance(op, MaxPool)]
    assert widths == [1]


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
    scales = sum(len(op.add) for op in program.ops if isinstance(op, (Conv, Dense)))
    assert plain.parameters == {32: sum(own.parameters.values()) - scales}
    assert plain.binary_share == 0
    bipolar = summarise_onnx(serialize(to_qonnx.build(program)))
    assert binary(bipolar) == binary(own)
    assert bipolar.parameter_bytes == own.float_bytes - 3 * own.parameters[8]


def test_a_plain_twin_has_the_same_macs_in_32_bits() -> None:
    program = residual_net()
    found, own = summarise_onnx(onnx_twin(program)), of_program(program)
    assert sum(own.macs.values()) == found.macs[32]
    assert set(found.parameters) == {32}


def test_a_clip_is_a_sign_only_where_it_must_be() -> None:
    model = onnx.load_from_string(to_onnx.convert(chain_net()))
    before = summarise_onnx(model.SerializeToString()).macs
    bias = next(t for t in model.graph.initializer if t.name.endswith("/bias"))
    odd = numpy_helper.to_array(bias)
    for other in (odd + 1, odd + np.float32(np.inf)):
        bias.CopyFrom(numpy_helper.from_array(other, bias.name))
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
