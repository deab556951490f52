"""What a file asks for is looked at before memory is taken: sizes, counts, shapes, names."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from frostbit.kernels.ir import file as model_file
from frostbit.kernels.ir import limits
from frostbit.kernels.ir.program import BinaryConv, FormatError, Program, Window
from frostbit.kernels.ir.verify import verify
from tests.nets import every_op
from tests.reliability.mutate import signed

Header = dict[str, Any]


@pytest.fixture(scope="module")
def data() -> bytes:
    return model_file.dumps(every_op())


def parts(data: bytes) -> tuple[Header, bytes]:
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def refused(data: bytes, word: str) -> None:
    """Loading fails with ``word``, having taken less than 8 MB."""
    tracemalloc.start()
    try:
        with pytest.raises(FormatError, match=word):
            model_file.loads(data)
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**40, 2**40]},
        {"shape": [2**63, 2]},
        {"shape": [0, 2**62]},
        {"shape": [-1, -9]},
        {"shape": [True, 9]},
        {"shape": [1] * 50 + [9]},
        {"shape": [9.0]},
        {"dtype": "F64"},
        {"dtype": None},
        {"data_offsets": [0, 2**62]},
        {"data_offsets": [0]},
    ],
)
def test_tensors_that_do_not_fit_their_place(data: bytes, change: Header) -> None:
    header, body = parts(data)
    header["stem/add"] = {**header["stem/add"], **change}
    refused(signed(header, body), "impossible dtype|header is damaged")


def test_too_many_tensors_and_ops(data: bytes) -> None:
    header, body = parts(data)
    empty = {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}
    many = {**header, **{f"x{i}": empty for i in range(limits.MAX_TENSORS)}}
    with pytest.raises(FormatError, match="tensors"):
        model_file.loads(signed(many, body))
    program = every_op()
    ops = program.ops * (limits.MAX_OPS // len(program.ops) + 1)
    with pytest.raises(FormatError, match=f"1 to {limits.MAX_OPS} ops"):
        verify(replace(program, ops=ops))


def test_a_header_of_many_megabytes_is_not_parsed() -> None:
    length = limits.MAX_HEADER_BYTES + 1
    refused(struct.pack("<Q", length) + b"[" * length, "header is larger")


def test_a_file_that_is_too_large(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "huge.bnn"
    with path.open("wb") as stream:
        stream.truncate(limits.MAX_FILE_BYTES + 1)  # sparse: takes no disk
    with pytest.raises(FormatError, match="larger than"):
        model_file.load_program(path)


def test_one_bit_rows_cannot_ask_for_64_times_their_size(data: bytes) -> None:
    """One channel a tap takes a whole word in memory: 2 MB of bits would become 128 MB."""
    rows = np.zeros((1, (4096 * 4096) // 8), np.uint8)
    tracemalloc.start()
    with pytest.raises(FormatError, match="too large"):
        model_file._words(rows, Window((4096, 4096)), 1, "words")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    program = every_op()
    wide = next(op for op in program.ops if isinstance(op, BinaryConv))
    words = np.zeros((1, 1, 1, 1), np.uint64)
    huge = replace(wide, words=words, window=Window((2**15, 2**15)))
    with pytest.raises(FormatError, match="too large"):
        verify(replace(program, ops=(*program.ops[:2], huge)))


def test_rows_are_widened_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    program = every_op()
    conv = next(op for op in program.ops if isinstance(op, BinaryConv))
    rows = model_file._rows_of_bits(conv)
    for at_once in (1, 1 << 12, 1 << 26):
        monkeypatch.setattr(model_file, "_AT_ONCE", at_once)
        words = model_file._words(rows, conv.window, conv.channels_in, "words")
        assert np.array_equal(words, conv.words)


Change = Callable[[Program, str], Program]
PLACES: dict[str, Change] = {
    "class": lambda p, name: replace(p, classes=(name, *p.classes[1:])),
    "op": lambda p, name: replace(p, ops=(*p.ops[:-1], replace(p.ops[-1], name=name))),
    "dataset": lambda p, name: replace(p, dataset=name),
    "hash": lambda p, name: replace(p, settled_hash=name),
}


@pytest.mark.parametrize("name", ["a\nb", "\x1b[2J", "\x9b31m", "\u202e", "x" * 257])
@pytest.mark.parametrize("place", PLACES)
def test_names_that_could_forge_output_are_refused(place: str, name: str) -> None:
    data = model_file.dumps(PLACES[place](every_op(), name))
    with pytest.raises(FormatError, match=r"the name '.*control character") as refusal:
        model_file.loads(data)
    assert str(refusal.value).isprintable()


def test_a_source_that_does_not_exist_cannot_forge_output(data: bytes) -> None:
    header, body = parts(data)
    document = json.loads(header["__metadata__"]["frostbit"])
    document["ops"][0]["inputs"] = ["a\nb"]
    header["__metadata__"]["frostbit"] = json.dumps(document)
    refused(signed(header, body), "control character")


def test_half_a_character_is_no_name() -> None:
    with pytest.raises(FormatError, match="control character"):
        limits.check_name("a\ud800")


def test_names_in_any_language_are_welcome() -> None:
    program = replace(every_op(), classes=("Käse", "猫", "قط", "👩‍🔬", "<b>|`$"))
    assert model_file.loads(model_file.dumps(program)).classes == program.classes
