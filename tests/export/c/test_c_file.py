"""The C file as text and as a library: sizes, names, bytes, and the runtime that compiles it."""

from __future__ import annotations

import ctypes
import dataclasses
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frostbit.export.c import convert as to_c
from frostbit.export.c import text as c_text
from frostbit.export.c.functions import KERNELS
from frostbit.export.c.runtime import CRuntime
from frostbit.export.errors import ExportError, RuntimeMissing
from frostbit.export.parity import compare
from frostbit.export.runtimes import Runtime
from frostbit.kernels.ir.program import INPUT, Dense, Program, Window
from tests.export.c.c_targets import STRICT, assert_exact
from tests.kernels.programs import Builder
from tests.needs import need
from tests.nets import every_op, images

SAME = Window((3, 3), pads=(1, 1, 1, 1))


@pytest.fixture(autouse=True)
def gcc() -> None:
    need("gcc", "size")


def test_no_two_functions_have_one_name() -> None:
    names = [
        name
        for key, kernel in KERNELS.items()
        if key != "accumulate_masked"  # takes the place of accumulate
        for name in re.findall(r"^static .*?(fb_\w+)\(", kernel.text, re.MULTILINE)
    ]
    assert len(names) > 20
    assert len(names) == len(set(names))


def test_the_file_promises_what_is_proved() -> None:
    program = every_op()
    head = program.ops[-1]
    assert isinstance(head, Dense)
    rounded = dataclasses.replace(head, weights=head.weights / np.float32(3))
    inexact = dataclasses.replace(program, ops=(*program.ops[:-1], rounded))
    assert b"gives the same logits, bit for bit" in to_c.convert(program)
    assert b"gives the same signs; the logits round" in to_c.convert(inexact)


def sizes(source: bytes, folder: Path) -> tuple[int, int]:
    """Bytes of code with constants, and of static memory, of the compiled file."""
    (folder / "model.c").write_bytes(source)
    subprocess.run(["gcc", *STRICT, "-O2", "-c", "model.c"], cwd=folder, check=True)
    done = subprocess.run(
        ["size", "model.o"], cwd=folder, check=True, capture_output=True, text=True
    )
    text, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
    assert data == 0
    return text, bss


def test_the_file_says_how_large_it_is(tmp_path: Path) -> None:
    b = Builder((8, 8, 1))
    x = b.conv(INPUT, 64, SAME)
    for channels in (96, 128):
        x = b.binary_conv(b.sign(x), channels, SAME)
    program = b.finish(x)
    source = to_c.convert(program)
    flash, ram = (
        int(re.search(rf"{word} +([0-9,]+) bytes", source.decode())[1].replace(",", ""))  # type: ignore[index]
        for word in ("flash", "RAM")
    )
    binary = 9 * (64 * 96 + 96 * 128)
    assert f"{binary // 8:,} of them for {binary:,} binary weights, 1.000 bits" in source.decode()
    text, bss = sizes(source, tmp_path)
    assert flash <= text <= flash + 8000
    assert ram <= bss <= ram + 256


def test_memory_is_shared_and_sums_are_in_place() -> None:
    b = Builder((8, 8, 1))
    x = b.conv(INPUT, 32, SAME)
    for _ in range(5):
        x = b.add(x, b.binary_conv(b.sign(x), 32, SAME))
    text = to_c.convert(b.finish(x)).decode()
    floats = int(re.search(r"fb_floats\[(\d+)\]", text)[1])  # type: ignore[index]
    assert 8 * 8 * 32 <= floats <= 8 * 8 * 32 + 64


HOSTILE = [
    "*/ int main(void) { return 1; } /*",
    "a\n#error no\n",
    "??/\n??'",
    'quote " backslash \\',
    "\u2028\u00e9\u4e2d %s %n",
    "long " * 100,
    "/* // *",
    "NULL",
]


def hostile() -> Program:
    """A toy network whose every name tries to break out."""
    program = every_op()
    names = {op.name: f"{HOSTILE[i % 8]}{i}" for i, op in enumerate(program.ops)}
    ops = tuple(
        dataclasses.replace(
            op, name=names[op.name], inputs=tuple(names.get(name, name) for name in op.inputs)
        )
        for op in program.ops
    )
    return dataclasses.replace(program, ops=ops, dataset=HOSTILE[0], classes=tuple(HOSTILE[:5]))


def test_hostile_names_do_no_harm() -> None:
    source = to_c.convert(hostile())
    assert source.isascii()
    assert source.count(b"/*") == source.count(b"*/")
    assert b"#error" not in source.replace(b'"a\\012\\043error no\\012"', b"")
    assert_exact(hostile())


def test_class_names_are_given_exactly(tmp_path: Path) -> None:
    (tmp_path / "model.c").write_bytes(to_c.convert(hostile()))
    options = ["-O1", "-shared", "-fPIC", "-DFROSTBIT_CLASS_NAMES", "-o", "model.so"]
    subprocess.run(["gcc", *STRICT, *options, "model.c"], cwd=tmp_path, check=True)
    library = ctypes.CDLL(str(tmp_path / "model.so"))
    names = (ctypes.c_char_p * 5).in_dll(library, "frostbit_class_names")
    assert [name.decode() for name in names if name] == HOSTILE[:5]
    assert ctypes.c_int32.in_dll(library, "frostbit_classes").value == 5
    assert ctypes.c_int32.in_dll(library, "frostbit_input_size").value == 6 * 7 * 2


def test_a_class_name_too_long_for_c_is_refused() -> None:
    program = dataclasses.replace(every_op(), classes=("x" * 5000, *"bcde"))
    with pytest.raises(ExportError, match="longer than C strings may be"):
        to_c.convert(program)


@settings(deadline=None)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_numbers_are_written_exactly(value: float) -> None:
    text = c_text.number(value)
    assert text.endswith("f")
    assert float.fromhex(text[:-1]) == value


def test_parity_passes_and_a_changed_weight_is_caught() -> None:
    program = every_op()
    source = to_c.convert(program)
    batch = images(program, 12)
    assert compare(program, [CRuntime(program, source)], batch).passed
    words = re.search(rb"conv2_weights\[\d+\] = \{\n    (0x[0-9a-f]{8})", source)
    assert words is not None
    start, end = words.span(1)
    changed = source[:start] + b"0x%08x" % (int(words[1], 16) ^ 0xFFFF) + source[end:]
    report = compare(program, [CRuntime(program, changed)], batch)
    assert not report.passed
    assert report.comparisons[0].first_difference == "sign2"


def test_the_runtime_times_and_refuses() -> None:
    program = every_op()
    runtime = CRuntime(program)
    assert isinstance(runtime, Runtime)
    assert runtime.name == "c"
    assert runtime.size_bytes == len(to_c.convert(program))
    times = runtime.latency(images(program, 1), 5)
    assert times.shape == (5,)
    assert (times > 0).all()
    for call in (runtime.logits, runtime.signs):
        with pytest.raises(ValueError, match="shape"):
            call(np.zeros((1, 2, 2, 2), np.uint8))
    runtime.close()


def test_a_missing_compiler_is_named_with_the_remedy() -> None:
    with pytest.raises(RuntimeMissing, match="'no-such-cc'; install one"):
        CRuntime(every_op(), compiler="no-such-cc")


def test_a_file_that_does_not_compile_is_an_error() -> None:
    with pytest.raises(ExportError, match=r"refuses the generated C file: .*error"):
        CRuntime(every_op(), b"int frostbit_run(")


def test_it_needs_nothing_but_what_string_h_declares(tmp_path: Path) -> None:
    """No allocation, no mathematics library, no input or output; no writable data but zeros."""
    need("nm")
    source = to_c.convert(every_op())
    headers = re.findall(rb"#\s*include\s*(\S+)", source)
    assert sorted(headers) == [b"<stdint.h>", b"<string.h>"]
    (tmp_path / "model.c").write_bytes(source)
    subprocess.run(["gcc", *STRICT, "-O2", "-c", "model.c"], cwd=tmp_path, check=True)
    done = subprocess.run(
        ["nm", "model.o"], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    kinds: dict[str, set[str]] = {}
    for *_, kind, name in (line.split() for line in done.stdout.splitlines()):
        kinds.setdefault(kind, set()).add(name)
    assert kinds["U"] <= {"memcpy", "memset", "memmove", "memcmp"}
    assert not {"D", "d"} & set(kinds)
    assert kinds["T"] == {"frostbit_run"}
    assert kinds["R"] == {"frostbit_input_size", "frostbit_classes"}
