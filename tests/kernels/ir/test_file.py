"""model.bnn: what is written comes back, and anything damaged is refused."""

import dataclasses
import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

import frostbit.kernels
from frostbit.kernels.ir import file as model_file
from frostbit.kernels.ir.program import BinaryConv, FormatError, Program
from tests.nets import every_op


def assert_same(a: object, b: object) -> None:
    """Deep equality of dataclasses that hold arrays."""
    assert type(a) is type(b)
    if dataclasses.is_dataclass(a):
        for field in dataclasses.fields(a):
            assert_same(getattr(a, field.name), getattr(b, field.name))
    elif isinstance(a, np.ndarray):
        assert a.dtype == b.dtype
        assert np.array_equal(a, b)
    elif isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


def reseal(data: bytes) -> bytes:
    """Give edited bytes a correct checksum, as a forger would."""
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + length])
    digest = json.loads(header["__metadata__"]["frostbit"])["sha256"]
    blank = data.replace(digest.encode(), b"0" * 64)
    return data.replace(digest.encode(), hashlib.sha256(blank).hexdigest().encode())


def edited(data: bytes, change: str, into: str) -> bytes:
    """Replace text in the metadata, same length of the tensors, and reseal."""
    length = struct.unpack("<Q", data[:8])[0]
    header = data[8 : 8 + length].decode()
    assert change in header
    changed = header.replace(change, into, 1).rstrip(" ")
    changed += " " * (-len(changed) % 8)
    return reseal(struct.pack("<Q", len(changed)) + changed.encode() + data[8 + length :])


@pytest.fixture(scope="module")
def program() -> Program:
    return every_op()


@pytest.fixture(scope="module")
def data(program: Program) -> bytes:
    return model_file.dumps(program)


def test_round_trip_keeps_everything(program: Program, data: bytes) -> None:
    again = model_file.loads(data)
    assert_same(again, program)
    assert model_file.dumps(again) == data


def test_one_group_takes_no_place(program: Program, data: bytes) -> None:
    """A number with its op's default value is left out: files from before it existed stay good."""
    entries = json.loads(
        json.loads(data[8:].split(b"}}", 1)[0] + b"}}")["__metadata__"]["frostbit"]
    )
    groups = {op["name"]: op.get("groups") for op in entries["ops"] if op["op"] == "Conv"}
    assert groups == {"stem": None, "depth": 9}


def test_every_flipped_bit_is_refused(data: bytes) -> None:
    rng = np.random.default_rng(0)
    header = range(0, 600, 7)
    for position in [*header, *rng.integers(0, len(data), 300)]:
        for bit in (0, 5, 7):
            damaged = bytearray(data)
            damaged[position] ^= 1 << bit
            with pytest.raises(FormatError):
                model_file.loads(bytes(damaged))


def test_every_truncation_is_refused(data: bytes) -> None:
    for length in [*range(0, 40), *range(40, len(data), 97), len(data) - 1]:
        with pytest.raises(FormatError):
            model_file.loads(data[:length])
    with pytest.raises(FormatError):
        model_file.loads(data + b"\0")


@pytest.mark.parametrize(
    ("change", "into", "message"),
    [
        (r"\"format\":3", r"\"format\":2", "format version"),
        (r"\"op\":\"Sign\"", r"\"op\":\"Sing\"", "'sign': unknown op 'Sing': it may need a newer"),
        (r"\"groups\":1", r"\"groups\":2", "groups"),
        (r"\"groups\":1", r"\"groups\":true", "integers"),
        (r"\"window\":[3,3", r"\"window\":[3,4", "bytes a row|shape"),
        (r"\"window\":[3,3", r"\"window\":[3,-3", "impossible|shape"),
        (r"\"channels_in\":9", r"\"channels_in\":99999999999", "impossible"),
        (r"\"times\":2", r"\"times\":70000", "times|range"),
        (r"\"input_shape\":[6,7,2]", r"\"input_shape\":[6,7,0]", "input shape"),
        (r"\"inputs\":[\"sign\"]", r"\"inputs\":[\"sing\"]", "not computed"),
        (r"\"classes\":[\"a\",", r"\"classes\":[", "class names"),
    ],
)
def test_a_forged_header_is_refused_with_a_reason(
    data: bytes, change: str, into: str, message: str
) -> None:
    with pytest.raises(FormatError, match=message):
        model_file.loads(edited(data, change, into))


def test_weights_take_one_bit_each(program: Program, data: bytes) -> None:
    stored = safetensors.numpy.load(data)
    for op in program.ops:
        if isinstance(op, BinaryConv):
            assert stored[f"{op.name}/words"].nbytes == op.channels_out * -(-op.taps // 8)


def test_a_file_is_replaced_whole_or_not_at_all(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "model.bnn"
    path.write_bytes(b"old")
    broken = dataclasses.replace(program, classes=())
    with pytest.raises(FormatError):
        model_file.save_program(broken, path)
    assert path.read_bytes() == b"old"
    model_file.save_program(program, path)
    assert_same(model_file.load_program(path), program)
    assert [p.name for p in tmp_path.iterdir()] == ["model.bnn"]


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "junk.bnn"
    path.write_bytes(b"not a model at all, only some text")
    with pytest.raises(frostbit.kernels.FormatError, match=r"junk\.bnn"):
        model_file.load_program(path)
