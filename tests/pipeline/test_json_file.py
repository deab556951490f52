"""Every JSON file is held to one schema, and what is wrong names the field."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from frostbit.pipeline import json_file
from frostbit.pipeline.bench import file as bench_file
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import JsonError, Number
from tests import RECORDS

RECORD = RECORDS / "2026-11-25-bench-fashion-best.json"
ROUNDS = ("runtimes", 0, "latency_ms", "rounds")
PLACES: list[tuple[Any, ...]] = [
    (*ROUNDS, 0), ("runtimes", 0, "latency_ms", "median"), ("runtimes", 0, "size_bytes"),
    ("runtimes", 0, "ratio", "low"), ("runtimes", 0, "accuracy"), ("conditions", "batch"),
    ("parity", "sign_bits_differing"), ("parity", "runtimes", 0, "top1_agreement"),
]  # fmt: skip
WRONG = ["1e999", "-1e999", "Infinity", "NaN", "1" + "0" * 400, "1" + "0" * 5000, "true", '"1"',
         "-1", "[1]", "{}", "[" * 100_000 + "]" * 100_000]  # fmt: skip


class Point(Struct):
    x: Number
    rest: Any = None


def changed(place: tuple[Any, ...], text: str) -> str:
    """The record with ``text`` as it stands in one place."""
    document = json.loads(RECORD.read_text())
    owner = document
    for key in place[:-1]:
        owner = owner[key]
    owner[place[-1]] = "HERE"
    return json.dumps(document).replace('"HERE"', text)


def test_records_are_read() -> None:
    found = bench_file.read(RECORD)
    written = json.loads(RECORD.read_text())  # before benchmarks had several numbers of threads
    rows = [{**row, "threads": written["conditions"]["threads"]} for row in written["runtimes"]]
    assert found == {**written, "runtimes": rows, "scaling": []}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: str(place[-1]))
def test_no_wrong_value_passes_in_a_benchmark(tmp_path: Path, place: tuple[Any, ...]) -> None:
    path = tmp_path / "base.json"
    field = next(str(key) for key in reversed(place) if isinstance(key, str))
    for text in WRONG:
        path.write_text(changed(place, text))
        with pytest.raises(UserError) as refused:
            bench_file.read(path)
        message = str(refused.value)
        assert f"'{path}'" in message
        assert field in message or "nested" in message, message
        assert message.isprintable()
        assert len(message) < 600


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "\0", "\ufeff{}", '{"runtimes": []}', "[" * 10**6]
)
def test_what_is_no_benchmark(tmp_path: Path, text: str) -> None:
    path = tmp_path / "base.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"no bench\.json of this version \(.+\)"):
        bench_file.read(path)


def test_depth_is_bounded_where_a_schema_leaves_a_field_open() -> None:
    deepest = json_file.MAX_LEVELS - 1
    text = '{"x": 1, "rest": %s}'
    assert json_file.document((text % ("[" * deepest + "]" * deepest)).encode(), Point)["x"] == 1
    for levels in (deepest + 1, 500, 10**5):
        with pytest.raises(JsonError, match="nested too deeply"):
            json_file.document((text % ("[" * levels + "]" * levels)).encode(), Point)


@given(st.floats() | st.integers(), st.sampled_from([repr, json.dumps]))
def test_a_number_is_what_it_says_or_refused(value: float, write: Callable[[Any], str]) -> None:
    data = f'{{"x": {write(value)}}}'.encode()
    if math.isfinite(value) and abs(value) <= 1e30:
        assert json_file.parse(data, Point).x == float(value)
    else:
        with pytest.raises(JsonError, match="x"):
            json_file.parse(data, Point)


def test_a_message_cannot_act() -> None:
    with pytest.raises(JsonError) as refused:
        json_file.parse('{"\x9b1m\u202e": 1 oops}'.encode(), Point)
    assert str(refused.value).isprintable()
    assert "\\x9b1m\\u202e" in str(refused.value)


def test_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    path = tmp_path / "a"
    path.write_bytes(b"x" * 11)
    with pytest.raises(JsonError, match="larger"):
        json_file.read_bytes(path)
