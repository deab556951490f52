"""Compile a generated C file for a machine, run it there (or emulated), and read its bits."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from frostbit.export.c import convert as to_c
from frostbit.export.c.header import image_of
from frostbit.export.c.runtime import CRuntime, words_of
from frostbit.kernels.ir import bits, exact, reference
from frostbit.kernels.ir.program import Program
from tests.kernels.programs import random_images
from tests.needs import need

STRICT = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic")

MAIN = r"""
#include "model.c"
#include <stdio.h>

static const %(type)s images[] = {%(pixels)s};

static void print(const void *words, long count)
{
    long i;
    for (i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, (const char *)words + 4 * i, 4);
        printf("%%08lx\n", (unsigned long)word);
    }
}

int main(void)
{
    long i;
    for (i = 0; i < %(count)d; i++) {
        float logits[%(classes)d];
        frostbit_run(images + i * frostbit_input_size, logits);
        print(frostbit_debug_words, %(words)d);
        print(logits, frostbit_classes);
    }
    return 0;
}
"""

# What a Cortex-M reads at reset: its stack and where to start; the FPU is off until switched on.
VECTORS = """
extern void _start(void);
static void reset(void)
{
    *(volatile unsigned long *)0xe000ed88 |= 0xful << 20;
    _start();
}
__attribute__((section(".vectors"), used))
static const struct { unsigned long stack; void (*start)(void); } vectors = {0x20100000, reset};
"""


@dataclass(frozen=True)
class Target:
    """A compiler with its options, and the command that runs its programs."""

    compiler: str
    options: tuple[str, ...]
    runner: tuple[str, ...] = ()
    bare: bool = False


BARE = ("-mthumb", "--specs=rdimon.specs", "-Wl,--section-start=.vectors=0")
BOARD = ("-nographic", "-monitor", "none", "-serial", "none")
SEMIHOSTING = ("-semihosting-config", "enable=on,target=native", "-kernel")
TARGETS = {
    "native": Target("gcc", ("-O2",)),
    "sanitized": Target("gcc", ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover")),
    "aarch64": Target("aarch64-linux-gnu-gcc", ("-O2", "-static"), ("qemu-aarch64-static",)),
    "cortex-m0": Target(
        "arm-none-eabi-gcc",
        ("-Os", "-mcpu=cortex-m0", *BARE),
        ("qemu-system-arm", "-M", "mps2-an385", *BOARD, *SEMIHOSTING),
        bare=True,
    ),
    "cortex-m4": Target(
        "arm-none-eabi-gcc",
        ("-O2", "-mcpu=cortex-m4", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16", *BARE),
        ("qemu-system-arm", "-M", "mps2-an386", *BOARD, *SEMIHOSTING),
        bare=True,
    ),
}
"""The Cortex-M0 program runs on a Cortex-M3 board, which executes all of its instructions."""


def run_on(target: Target, program: Program, images: np.ndarray, folder: Path) -> np.ndarray:
    """What ``program`` printed: uint32 ``[N, words of signs + classes]``."""
    need(target.compiler, *target.runner[:1])
    kept = to_c.kept_signs(program)
    main = MAIN % {
        "type": image_of(program).type,
        "pixels": ",".join(map(str, images.reshape(-1).tolist())),
        "count": len(images),
        "classes": len(program.classes),
        "words": kept[-1].start + kept[-1].count,
    }
    (folder / "model.c").write_bytes(to_c.convert(program))
    (folder / "main.c").write_text(main)
    (folder / "vectors.c").write_text(VECTORS)
    sources = ["main.c", "vectors.c"] if target.bare else ["main.c"]
    command = [target.compiler, *STRICT, "-DFROSTBIT_DEBUG", *target.options, *sources]
    subprocess.run([*command, "-o", "program", "-lm"], cwd=folder, check=True)
    done = subprocess.run(
        [*target.runner, "./program"],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )
    words = [int(line, 16) for line in done.stdout.split()]
    return np.array(words, np.uint32).reshape(len(images), -1)


def assert_same(program: Program, images: np.ndarray, printed: np.ndarray) -> None:
    """Compare every sign bit and logit with the reference."""
    values = reference.trace(program, images)
    expected = values[program.ops[-1].name][:, 0, 0]
    logits = np.ascontiguousarray(printed[:, -len(program.classes) :]).view(np.float32)
    for kept in to_c.kept_signs(program):
        want = bits.pack(values[kept.name])
        np.testing.assert_array_equal(words_of(printed, kept), want, err_msg=kept.name)
    np.testing.assert_array_equal(logits, expected)
    assert np.unique(expected).size > 1


def assert_exact(program: Program, options: tuple[str, ...] = ("-O2",), count: int = 3) -> None:
    """Every sign bit and logit of the compiled file against the reference."""
    assert exact.analyse(program).head_exact
    batch = random_images(program, count)
    values = reference.trace(program, batch)
    runtime = CRuntime(program, compiler="gcc", options=(*STRICT, *options))
    signs = runtime.signs(batch)
    expected = {name: bits.pack(v) for name, v in values.items() if v.dtype == np.int8}
    assert signs.keys() == expected.keys()
    for name, words in expected.items():
        np.testing.assert_array_equal(signs[name], words, err_msg=name)
    np.testing.assert_array_equal(runtime.logits(batch), values[program.ops[-1].name][:, 0, 0])
    runtime.close()
