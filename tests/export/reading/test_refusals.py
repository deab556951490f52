"""What cannot be read of a .tflite file: one line that names the operator and the layer."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import frostbit as fb
from frostbit.export.foreign import read_file
from frostbit.export.lce.outputs import with_outputs
from frostbit.export.lce.tflite_reader import INT8, Table, read, root_table
from frostbit.export.lce.tflite_writer import GraphWriter
from frostbit.export.reading.match import to_program
from frostbit.export.reading.tflite.read import read_graph
from tests.export.reading.foreign import FOLDER, tflite


def patched(data: bytes, place: int | None, kind: str, value: float) -> bytes:
    assert place is not None, "the file leaves this field out"
    changed = bytearray(data)
    struct.pack_into(kind, changed, place, value)
    return bytes(changed)


def option(file: str, operator: str, slot: int, kind: str, value: float) -> bytes:
    """A file with one option of the first operator of a name changed."""
    data = tflite(file)
    found = next(each for each in read(data).operators if each.name == operator)
    assert found.options is not None
    return patched(data, found.options.place(slot), kind, value)


def tensors(data: bytes) -> list[Table]:
    return root_table(data).tables(2)[0].tables(0)


def typed(file: str, index: int, kind: int) -> bytes:
    data = tflite(file)
    return patched(data, tensors(data)[index].place(1), "<b", kind)


def sized(file: str, index: int, axis: int, size: int) -> bytes:
    data = tflite(file)
    return patched(data, tensors(data)[index].vector(0, 4)[0] + 4 * axis, "<i", size)


def refusal(data: bytes) -> str:
    with pytest.raises(fb.FormatError) as caught:
        to_program(read_graph(data))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


BITS = next(
    each.outputs[0] for each in read(tflite("bits_one")).operators if each.name == "LceQuantize"
)
CASES: dict[str, tuple[Callable[[], bytes], str]] = {
    "an activation": (
        lambda: option("mini_quicknet", "CONV_2D", 3, "<b", 4),
        "CONV_2D 'quicknet/activation/Relu;",
    ),
    "a stride of 0": (lambda: option("bits_one", "CONV_2D", 1, "<i", 0), "stride (1, 0)"),
    "a padding": (
        lambda: option("larq_mnist", "MAX_POOL_2D", 0, "<b", 7), "MAX_POOL_2D 'sequential/max_"
    ),
    "a multiplier": (
        lambda: option("mini_quicknet", "DEPTHWISE_CONV_2D", 3, "<i", 3),
        "on 4 channels, each used 3 times",
    ),
    "a beta": (lambda: option("mini_quicknet", "SOFTMAX", 0, "<f", 0.5), "SOFTMAX 'Stateful"),
    "another axis": (
        lambda: option("mini_densenet", "CONCATENATION", 0, "<i", 1), "along axis 1 of 4"
    ),
    "integers": (lambda: typed("bits_one", BITS, INT8), "works on quantised integers"),
    "a batch": (lambda: sized("bits_one", 0, 0, 2), "the input: 'serving_default"),
    "another shape": (lambda: sized("bits_one", 0, 1, 20), "the file says [1, 16, 16, 32]"),
    "a huge map": (lambda: sized("bits_one", 0, 1, 1 << 30), "is impossible or too large"),
    "two outputs": (lambda: with_outputs(tflite("bits_one"), [3, 5]), "has 2 outputs ('"),
    "an operator": (
        lambda: tflite("bits_one").replace(b"LceQuantize", b"LceQuantise"),
        "LceQuantise 'model/",
    ),
    "an operator of the schema": (
        lambda: patched(
            tflite("larq_mnist"), root_table(tflite("larq_mnist")).tables(1)[0].place(0), "<b", 67
        ),
        "TRANSPOSE_CONV 'sequential/quant_conv2d",
    ),
    "LCE's option": (
        lambda: tflite("mini_quicknet").replace(b"pad_values", b"pad_colour"),
        "the option 'pad_values' is missing",
    ),
    "another file": (lambda: b"PK\x03\x04" + bytes(64), "not a TFLite file"),
    "nothing": (lambda: b"", "not a TFLite file"),
    "half a file": (lambda: tflite("bits_one")[:15_000], "the TFLite file is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_refused_by_name(name: str) -> None:
    make, why = CASES[name]
    assert why in refusal(make())


def bconv(**changed: int) -> bytes:
    """One LceBconv2d of 64 channels, with some options changed."""
    writer = GraphWriter()
    first = writer.tensor("x", (1, 4, 4, 64), np.float32)
    packed = writer.tensor("bits", (1, 4, 4, 2), np.int32)
    words = changed.pop("words", 2)
    weights = writer.constant("weights", np.zeros((8, 3, 3, words), np.int32))
    ones = writer.constant("ones", np.ones(8, np.float32))
    last = writer.tensor("conv", (1, 4, 4, 8), np.float32)
    options = {
        "channels_in": 64, "dilation_height_factor": 1, "dilation_width_factor": 1,
        "fused_activation_function": 0, "pad_values": 1, "padding": 0, "stride_height": 1,
        "stride_width": 1,
    }  # fmt: skip
    writer.operator("LceQuantize", [first], [packed])
    writer.operator("LceBconv2d", [packed, weights, ones, ones, -1], [last], {**options, **changed})
    return writer.finish([first], [last], "test")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"pad_values": 2}, "LceBconv2d 'conv': pad_values 2"),
        ({"fused_activation_function": 4}, "LceBconv2d 'conv': the fused activation TANH"),
        ({"channels_in": 48}, "LceBconv2d 'conv': reads 64 channels as 48"),
        ({"words": 3}, "LceBconv2d 'conv': weights of 3 words on 2"),
        ({"padding": 3}, "LceBconv2d 'conv': padding 3"),
        ({"dilation_width_factor": 0}, "LceBconv2d 'conv': stride (1, 1), dilation (1, 0)"),
        ({"flavour": 1}, "LceBconv2d 'conv': has an option 'flavour'"),
        ({"pad_values": 0, "fused_activation_function": 1}, "LceBconv2d 'conv': pads with zeros"),
    ],
)
def test_options_of_lce_are_refused_by_name(changed: dict[str, int], why: str) -> None:
    assert why in refusal(bconv(**changed))
    assert "the answer is a map" in refusal(bconv())


def test_the_path_is_named(tmp_path: Path) -> None:
    path = tmp_path / "of another kind.tflite"
    path.write_bytes((FOLDER / "bits_one.npz").read_bytes())
    with pytest.raises(fb.FormatError, match=r"of another kind\.tflite: not a TFLite file"):
        read_file(path)


def test_constants_that_grow_are_refused() -> None:
    """A column times a row, of which a few bytes make gigabytes."""
    writer = GraphWriter()
    first = writer.tensor("x", (1, 1, 1, 4), np.float32)
    column = writer.constant("column", np.ones((60_000, 1), np.float32))
    row = writer.constant("row", np.ones((1, 60_000), np.float32))
    table = writer.tensor("table", (60_000, 60_000), np.float32)
    writer.operator("ADD", [column, row], [table])
    last = writer.tensor("y", (1, 60_000), np.float32)
    writer.operator("FULLY_CONNECTED", [first, table, -1], [last])
    start = time.process_time()
    assert "ADD 'table': computes constants far larger" in refusal(
        writer.finish([first], [last], "test")
    )
    assert time.process_time() - start < 5


def test_constants_computed_over_and_over_are_refused() -> None:
    """A chain of operators on one large constant, which would take hours."""
    writer = GraphWriter()
    first = writer.tensor("x", (1, 1, 1, 4), np.float32)
    last = writer.constant("c0", np.ones((1, 1 << 20), np.float32))
    for number in range(200):
        made = writer.tensor(f"c{number + 1}", (1, 1 << 20), np.float32)
        writer.operator("RELU_N1_TO_1", [last], [made])
        last = made
    answer = writer.tensor("y", (1, 1 << 20), np.float32)
    writer.operator("ADD", [first, last], [answer])
    why = refusal(writer.finish([first], [answer], "test"))
    assert "RELU_N1_TO_1 'c" in why
    assert "computes constants far larger" in why
