"""Words that several threads share: atomic reads and writes, and waiting for another's.

A word is an int64 at an address. Reads acquire and writes release, so what a thread wrote before
a word is seen by whoever reads the word. Who waits does so in three stages: ``pause`` within the
core, ``yield_core`` lets another thread have it, ``sleep_until_changed`` gives it up until
somebody wakes the sleepers (Linux's futex; elsewhere the caller sleeps in a lock of Python).
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

import platform
import sys

import llvmlite.binding as llvm
from llvmlite import ir
from llvmlite.ir import IRBuilder, Value
from numba import types
from numba.core import cgutils

from frostbit.kernels.micro.vector import I32, I64, emitted

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221}
"""Number of the system call, on little-endian machines of 64 bits where it is known."""
HAS_FUTEX = sys.platform == "linux" and platform.machine() in _FUTEX
HAS_YIELD = sys.platform in ("linux", "darwin")
_WAIT, _WAKE = 128, 129  # FUTEX_WAIT, FUTEX_WAKE, both of this process alone
_EVERYONE = 2**31 - 1
_HINTS = {"x86_64": ("llvm.x86.sse2.pause", []), "aarch64": ("llvm.aarch64.hint", [1])}
"""What tells the CPU that a loop only waits, by the architecture that is compiled for."""


def _word(builder: IRBuilder, address: Value) -> Value:
    return builder.inttoptr(address, I64.as_pointer())


@emitted(types.int64)
def read_word(builder: IRBuilder, address: Value) -> Value:
    """The word at ``address``."""
    return builder.load_atomic(_word(builder, address), "seq_cst", 8)


@emitted(types.void)
def write_word(builder: IRBuilder, address: Value, value: Value) -> None:
    """Write ``value``."""
    builder.store_atomic(value, _word(builder, address), "seq_cst", 8)


@emitted(types.int64)
def add_to_word(builder: IRBuilder, address: Value, value: Value) -> Value:
    """Add to the word; returns what it was before."""
    return builder.atomic_rmw("add", _word(builder, address), value, "seq_cst")


@emitted(types.int64)
def swap_word(builder: IRBuilder, address: Value, old: Value, new: Value) -> Value:
    """Write ``new`` if the word is ``old``; 1 if it was."""
    pair = builder.cmpxchg(_word(builder, address), old, new, "seq_cst", "seq_cst")
    return builder.zext(builder.extract_value(pair, 1), I64)


@emitted(types.void)
def pause(builder: IRBuilder) -> None:
    """Wait some cycles."""
    name, values = _HINTS.get(llvm.get_process_triple().split("-")[0], ("", []))
    if name:
        kind = ir.FunctionType(ir.VoidType(), [I32] * len(values))
        hint = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.call(hint, [I32(value) for value in values])


@emitted(types.void)
def yield_core(builder: IRBuilder) -> None:
    """Let another thread that is ready run on this core."""
    if HAS_YIELD:
        kind = ir.FunctionType(I32, [])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])


def _futex(builder: IRBuilder, address: Value, what: int, value: Value) -> None:
    if not HAS_FUTEX:
        return
    kind = ir.FunctionType(I64, [I64], var_arg=True)
    call = cgutils.get_or_insert_function(builder.module, kind, "syscall")
    number = I64(_FUTEX[platform.machine()])
    builder.call(call, [number, address, I64(what), value, I64(0), I64(0), I64(0)])


@emitted(types.void)
def sleep_until_changed(builder: IRBuilder, address: Value, seen: Value) -> None:
    """Sleep until :func:`wake_all`, but not if the word is no longer ``seen``.

    Linux compares 32 bits, which lie first in a word of a little-endian machine.
    """
    _futex(builder, address, _WAIT, builder.and_(seen, I64(2**32 - 1)))


@emitted(types.void)
def wake_all(builder: IRBuilder, address: Value) -> None:
    """Wake all that sleep for the word at ``address``."""
    _futex(builder, address, _WAKE, I64(_EVERYONE))
