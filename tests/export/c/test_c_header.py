"""Two networks in one program, in C and in C++: prefixes, and the header that declares them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from frostbit.export.c import convert as to_c
from frostbit.export.c import header as c_header
from frostbit.export.c.runtime import CRuntime
from frostbit.export.errors import ExportError
from frostbit.export.parity import compare
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import INPUT, Program, Window
from tests.export.c.c_targets import STRICT
from tests.kernels.programs import Builder, random_images
from tests.needs import need
from tests.nets import every_op, images

MAIN = """
#include "left.h"
#include "right_2.h"
#include <stdio.h>
#include <string.h>

static const uint8_t left[LEFT_INPUT_SIZE] = {%s};
static const uint8_t right[RIGHT_2_INPUT_SIZE] = {%s};

static void print(const float *logits, int32_t count)
{
    int32_t i;
    for (i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, logits + i, 4);
        printf("%%08lx\\n", (unsigned long)word);
    }
}

int main(void)
{
    float one[LEFT_CLASSES], other[RIGHT_2_CLASSES];
    int i;
    for (i = 0; i < 2; i++) {
        left_run(left, one);
        right_2_run(right, other);
        print(one, left_classes);
        print(other, right_2_classes);
        printf("%%s %%s\\n", left_class_names[0], right_2_class_names[0]);
    }
    return left_input_size != LEFT_INPUT_SIZE || right_2_input_size != RIGHT_2_INPUT_SIZE;
}
"""


@pytest.fixture(autouse=True)
def compilers() -> None:
    need("gcc", "g++")


def small() -> Program:
    """Another network, of another size and with other functions."""
    b = Builder((5, 4, 1), seed=3)
    x = b.conv(INPUT, 24, Window((3, 3), pads=(1, 1, 1, 1)))
    return b.finish(b.binary_conv(b.sign(x), 24, Window((3, 3))), 3)


def printed(program: Program, image: np.ndarray) -> list[str]:
    logits = reference.run(program, image)
    assert np.unique(logits).size > 1
    return [f"{word:08x}" for word in logits.view(np.uint32).reshape(-1)]


@pytest.mark.parametrize(
    ("compiler", "main", "options"),
    [("gcc", "main.c", STRICT), ("g++", "main.cpp", ("-std=c++11", *STRICT[1:]))],
)
def test_two_networks_in_one_program(
    compiler: str, main: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    programs = {"left": every_op(), "right_2": small()}
    shown = {prefix: random_images(program, 1) for prefix, program in programs.items()}
    for prefix, program in programs.items():
        (tmp_path / f"{prefix}.c").write_bytes(to_c.convert(program, prefix))
        (tmp_path / f"{prefix}.h").write_bytes(c_header.header(program, prefix))
        command = ["gcc", *STRICT, "-O2", "-DFROSTBIT_CLASS_NAMES", "-c", f"{prefix}.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
    pixels = (",".join(map(str, image.reshape(-1).tolist())) for image in shown.values())
    (tmp_path / main).write_text(MAIN % tuple(pixels))
    command = [compiler, *options, main, "left.o", "right_2.o", "-o", "program"]
    subprocess.run(command, cwd=tmp_path, check=True)
    done = subprocess.run(["./program"], cwd=tmp_path, capture_output=True, text=True, check=True)
    expected = [word for prefix in programs for word in printed(programs[prefix], shown[prefix])]
    names = " ".join(program.classes[0] for program in programs.values())
    assert done.stdout.splitlines() == 2 * [*expected, names]


def test_a_file_with_a_prefix_is_run_and_compared() -> None:
    program = every_op()
    source = to_c.convert(program, "gesture")
    assert b"frostbit_" not in source
    assert compare(program, [CRuntime(program, source)], images(program, 6)).passed


@pytest.mark.parametrize("prefix", ["", "1st", "_x", "a-b", "fb", "x" * 32, "é", "a\n", "a b"])
def test_what_cannot_begin_a_name_is_refused(prefix: str) -> None:
    for make in (to_c.convert, c_header.header):
        with pytest.raises(ExportError, match="cannot begin names in C"):
            make(every_op(), prefix)


def test_a_library_without_our_function_is_refused() -> None:
    with pytest.raises(ExportError, match="no export of Frostbit"):
        CRuntime(every_op(), b"int answer(void) { return 42; }\n")
