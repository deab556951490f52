"""Products of bytes: the loop of every form against NumPy, and its assembly for other CPUs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types

from frostbit.kernels.machine.cpu import byte_form
from frostbit.kernels.micro import integers
from frostbit.kernels.micro.operands import Taps, Tile
from frostbit.kernels.micro.vector import I8, I32, I64, LANES, emitted
from frostbit.kernels.micro.xnor import TILE

ARM = "aarch64-unknown-linux-gnu"
X86 = "x86_64-unknown-linux-gnu"


def plain_dot(is_signed: bool) -> integers.MultiplyAdd:
    """What ``vpdpbusd`` and ``sdot`` (signed) do, in instructions that every CPU has."""

    def dot(builder: IRBuilder, total: Value, weight: Value, activation: Value) -> Value:
        lanes = total.type.count
        narrow, wide = (ir.VectorType(kind, 4 * lanes) for kind in (I8, I32))
        sides = [builder.bitcast(value, narrow) for value in (activation, weight)]
        first = (builder.sext if is_signed else builder.zext)(sides[0], wide)
        products = builder.mul(first, builder.sext(sides[1], wide))
        for which in range(4):
            order = ir.Constant(ir.VectorType(I32, lanes), list(range(which, 4 * lanes, 4)))
            total = builder.add(total, builder.shuffle_vector(products, products, order))
        return total

    return dot


def compiled(width: int, is_signed: bool) -> Callable[..., None]:
    """The loop over taps as a Python function of addresses."""

    @emitted(types.void)
    def kernel(builder: IRBuilder, tile: Tile, taps: Taps, counts: Value) -> None:
        integers.emit_words(builder, tile, taps, counts, width, plain_dot(is_signed))

    @numba.njit
    def run(source, pixels, offsets, words, weights, counts):  # type: ignore[no-untyped-def]
        kernel(Tile(source, pixels), Taps(offsets, words, weights), counts)

    return run


@numba.njit
def this_cpu(source, pixels, offsets, words, weights, counts):  # type: ignore[no-untyped-def]
    integers.int8_tile(Tile(source, pixels), Taps(offsets, words, weights), counts)


FORMS: dict[str, tuple[Callable[..., None], int, int]] = {
    "vpdpbusd, 64 bytes": (compiled(64, False), 0, 255),
    "vpdpbusd, 32 bytes": (compiled(32, False), 0, 255),
    "sdot": (compiled(16, True), -128, 127),
}
if integers.INT8_KINDS:
    FORMS["this CPU's"] = (this_cpu, *((-1, 1) if integers.byte_offset("bits") == 0 else (0, 2)))


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=25)
@given(words=st.sampled_from([1, 2, 63, 64, 65, 130]), seed=st.integers(0, 2**16))
def test_counts(form: str, words: int, seed: int) -> None:
    run, low, high = FORMS[form]
    rng = np.random.default_rng(seed)
    ends = rng.random(2000) < 0.3
    source = np.where(ends, high, rng.integers(low, high + 1, 2000)).astype(np.int16)
    weights = rng.integers(-127, 128, (words, LANES, 4)).astype(np.int8)
    weights[:, ::3] = rng.choice([-127, 127], (1, 1, 1))
    starts, offsets = rng.integers(0, 40, TILE), rng.integers(0, 1900, words)
    taken = source[starts[:, None, None] + offsets[:, None] + np.arange(4)].astype(np.int64)
    want = np.einsum("ptk,tlk->pl", taken, weights.astype(np.int64))
    pixels = np.zeros((TILE, 4), np.int32)
    pixels[:, 0] = starts
    narrow, steps = source.astype(np.uint8), offsets.astype(np.int32)
    counts = np.full((TILE, LANES), -1, np.int32)
    arrays: list[Any] = [narrow, pixels, steps, weights, counts]
    at = [array.ctypes.data for array in arrays]
    run(at[0], at[1], at[2], words, at[3], at[4])
    np.testing.assert_array_equal(counts, want)


def assembly(width: int, one: integers.MultiplyAdd, triple: str, cpu: str) -> str:
    """The loop, compiled for another CPU without Numba, which knows only this one's intrinsics."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * 6), "count")
    builder = IRBuilder(function.append_basic_block())
    source, pixels, offsets, words, weights, counts = function.args
    tile, taps = Tile(source, pixels), Taps(offsets, words, weights)
    integers.emit_words(builder, tile, taps, counts, width, one)
    builder.ret_void()
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, opt=3)
    parsed = llvm.parse_assembly(str(module))
    parsed.triple, parsed.data_layout = triple, str(machine.target_data)
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(parsed, passes)
    return str(machine.emit_assembly(parsed))


def hot_loop(text: str, instruction: str) -> str:
    """The block, up to its first jump, that has most of ``instruction``."""
    blocks = re.split(r"\n(?=\.LBB)", text)
    blocks = [re.split(r"(?m)^\s+(?:j[a-z]+|b\.[a-z]+|cbn?z)\s", block)[0] for block in blocks]
    return max(blocks, key=lambda block: len(re.findall(instruction, block)))


@pytest.mark.parametrize(
    ("cpu", "width", "register"),
    [("icelake-server", 64, "zmm"), ("znver4", 64, "zmm"), ("alderlake", 32, "ymm")],
)
def test_vnni(cpu: str, width: int, register: str) -> None:
    """One instruction for 64 or 32 products, totals in registers, and activations unsigned.

    The unsigned operand is the middle one here.
    """
    text = assembly(width, integers.dot_unsigned, X86, cpu)
    instruction = rf"vpdpbusd\s.*%{register}"
    loop = hot_loop(text, instruction)
    assert len(re.findall(instruction, loop)) in (8, 16)  # two taps a turn on some
    assert "(%rsp" not in loop
    broadcast = set(re.findall(r"vpbroadcastd\s.*(%[yz]mm\d+)", loop))
    middle = set(re.findall(r"vpdpbusd\s%[yz]mm\d+, (%[yz]mm\d+),", loop))
    assert middle == broadcast


@pytest.mark.parametrize("cpu", ["cortex-a76", "neoverse-n1"])
def test_dot_product_on_arm(cpu: str) -> None:
    loop = hot_loop(assembly(16, integers.dot_signed, ARM, cpu), r"\bsdot\b")
    assert len(re.findall(r"\bsdot\s+v\d+\.4s", loop)) == 16
    assert "[sp" not in loop


def test_widening_products_on_arm() -> None:
    """Without the dot product: two long products, their pairs, and those added in pairs."""
    loop = hot_loop(assembly(16, integers.widening_dot, ARM, "cortex-a72"), r"\bsadalp\b")
    for instruction, count in (("smull2?", 32), ("addp", 16), ("sadalp", 16)):
        assert len(re.findall(rf"\b{instruction}\s+v\d+\.", loop)) == count, instruction
    assert "[sp" not in loop


def test_the_best_form_is_taken() -> None:
    assert byte_form({"avx2": True}).instruction == "vpmaddubsw"
    assert byte_form({"avx2": True, "avxvnni": True}).width == 32
    assert byte_form({"avx2": True, "avx512vnni": True, "avx512bw": True}).width == 64
    assert byte_form({"neon": True}).instruction == "smull"
    assert byte_form({"neon": True, "dotprod": True}).instruction == "sdot"
    assert byte_form({}).instruction == "none"
