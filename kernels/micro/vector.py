"""Memory by address, 32 channels at a time: the intrinsics that all kernels are made of.

Numba has no vector type, so each intrinsic reads and writes memory and returns at most one
32-bit word of signs. The unit is a *block* of ``LANES`` = 32 channels: 32 float32 or int32
(128 bytes), or one 32-bit word of bits. Maps pad their channels to whole blocks with lanes that
are +1 or not negative, so a sign word's tail bits are 0 as :mod:`frostbit.kernels.ir.bits` asks.
LLVM splits a vector of 32 into whatever the machine has: 32 floats are four registers of AVX2 or
two of AVX-512, so an intrinsic that holds three of them at once stays within the registers of both.
"""
# mypy: disable-error-code="no-untyped-call"
# reason: llvmlite's builder helpers in Numba have no annotations

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from llvmlite import ir
from llvmlite.ir import IRBuilder, Type, Value
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from frostbit.kernels.micro.operands import Parts

if TYPE_CHECKING:
    from numba.core.base import BaseContext
    from numba.core.typing.templates import Signature

    Codegen = Callable[[BaseContext, IRBuilder, Signature, list[Value]], Value]

LANES = 32
BLOCK = 4 * LANES
"""Bytes of 32 float32 or int32."""

I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
V32F = ir.VectorType(F32, LANES)
V32I = ir.VectorType(I32, LANES)
V32B = ir.VectorType(I1, LANES)

Emit = Callable[..., Value]
"""Writes instructions with a builder; its result is a value, or None."""
Intrinsic = Callable[..., int]
"""What jitted code calls; where nothing is returned, nobody reads the int."""


def load(builder: IRBuilder, address: Value, kind: Type, align: int = 4) -> Value:
    """Emit a load of ``kind`` from the integer ``address``."""
    return builder.load(builder.inttoptr(address, kind.as_pointer()), align=align)


def store(builder: IRBuilder, value: Value, address: Value, align: int = 4) -> None:
    """Emit a store of ``value`` at the integer ``address``."""
    builder.store(value, builder.inttoptr(address, value.type.as_pointer()), align=align)


def offset(builder: IRBuilder, address: Value, distance: int) -> Value:
    """``address + distance`` for a constant distance in bytes."""
    return builder.add(address, ir.Constant(I64, distance)) if distance else address


def part(builder: IRBuilder, parts: Parts, number: int) -> Value:
    """Address of one of ``parts``."""
    return builder.add(parts.address, builder.mul(parts.step, I64(number)))


def splat(builder: IRBuilder, scalar: Value, kind: Type) -> Value:
    """A vector of type ``kind`` with ``scalar`` in every lane."""
    undefined = ir.Constant(kind, ir.Undefined)
    lane0 = builder.insert_element(undefined, scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(lane0, undefined, zeros)


def constant(kind: Type, value: float) -> Value:
    """The vector constant of type ``kind`` with ``value`` in every lane."""
    return ir.Constant(kind, [value] * kind.count)


def call(builder: IRBuilder, name: str, *args: Value) -> Value:
    """Emit a call of the LLVM intrinsic ``name`` whose type is that of its first argument."""
    return call_typed(builder, name, args[0].type, *args)


def call_typed(builder: IRBuilder, name: str, kind: Type, *args: Value) -> Value:
    """Emit a call of the LLVM intrinsic ``name`` that returns a ``kind``."""
    function = builder.module.globals.get(name)
    if function is None:
        signature = ir.FunctionType(kind, [value.type for value in args])
        function = ir.Function(builder.module, signature, name)
    return builder.call(function, args)


def sign_word(builder: IRBuilder, values: Value) -> Value:
    """32-bit word with a 1 for each of 32 floats below 0 (so -0.0 is +1)."""
    negative = builder.fcmp_ordered("<", values, constant(V32F, 0.0))
    return builder.zext(builder.bitcast(negative, I32), I64)


def sign_bits(builder: IRBuilder, masks: list[Value]) -> Value:
    """Vectors of i1 one after the other, as one integer; their number is a power of two."""
    while len(masks) > 1:
        lanes = 2 * masks[0].type.count
        order = ir.Constant(ir.VectorType(I32, lanes), list(range(lanes)))
        halves = zip(masks[::2], masks[1::2], strict=True)
        masks = [builder.shuffle_vector(one, two, order) for one, two in halves]
    return builder.bitcast(masks[0], ir.IntType(masks[0].type.count))


def _operand(builder: IRBuilder, value: Value, kind: types.Type) -> Value:
    """``value``, or the named tuple of what it holds."""
    if not isinstance(kind, types.NamedUniTuple):
        return value
    return kind.instance_class(*cgutils.unpack_tuple(builder, value))


def emitted(returns: types.Type) -> Callable[[Emit], Intrinsic]:
    """Make ``emit(builder, operand, ...)`` callable from jitted code.

    An operand is an int64, or a named tuple of them (:mod:`frostbit.kernels.micro.operands`).
    """

    def decorate(emit: Emit) -> Intrinsic:
        @functools.wraps(emit)  # numba reads the parameter list through __wrapped__
        def definition(_typing: object, *given: types.Type) -> tuple[Signature, Codegen]:
            groups = types.NamedUniTuple
            kinds = [kind if isinstance(kind, groups) else types.int64 for kind in given]

            def codegen(
                context: BaseContext, builder: IRBuilder, _signature: Signature, values: list[Value]
            ) -> Value:
                pairs = zip(values, kinds, strict=True)
                result = emit(builder, *(_operand(builder, *pair) for pair in pairs))
                return context.get_dummy_value() if result is None else result

            return returns(*kinds), codegen

        return intrinsic(definition)

    return decorate


@emitted(types.int64)
def field(builder: IRBuilder, row: Value, column: Value) -> Value:
    """The int64 in ``column`` of the op table's row at address ``row``."""
    return load(builder, builder.add(row, builder.mul(column, I64(8))), I64, 8)


@emitted(types.int64)
def load_i32(builder: IRBuilder, address: Value) -> Value:
    """The int32 at ``address``, sign extended."""
    return builder.sext(load(builder, address, I32), I64)


@emitted(types.int64)
def load_u32(builder: IRBuilder, address: Value) -> Value:
    """The uint32 at ``address``."""
    return builder.zext(load(builder, address, I32), I64)


@emitted(types.void)
def store_u32(builder: IRBuilder, address: Value, value: Value) -> None:
    """Store the low 32 bits of ``value``."""
    store(builder, builder.trunc(value, I32), address)


@emitted(types.int64)
def load_u64(builder: IRBuilder, address: Value) -> Value:
    """The 64 bits at ``address``."""
    return load(builder, address, I64)


@emitted(types.void)
def store_u64(builder: IRBuilder, address: Value, value: Value) -> None:
    """Store 64 bits."""
    store(builder, value, address)


@emitted(types.int64)
def popcount(builder: IRBuilder, word: Value) -> Value:
    """Number of 1 bits."""
    return call(builder, "llvm.ctpop.i64", word)


@emitted(types.void)
def clear(builder: IRBuilder, address: Value, size: Value) -> None:
    """Set ``size`` bytes to 0."""
    cgutils.memset(builder, builder.inttoptr(address, I8.as_pointer()), size, 0)


@emitted(types.void)
def copy(builder: IRBuilder, target: Value, source: Value, size: Value) -> None:
    """Copy ``size`` bytes between ranges that do not overlap."""
    pointer = I8.as_pointer()
    cgutils.raw_memcpy(
        builder, builder.inttoptr(target, pointer), builder.inttoptr(source, pointer), size, 1
    )


@emitted(types.void)
def convert32(builder: IRBuilder, source: Value, out: Value) -> None:
    """32 uint8 at ``source`` to float32 at ``out``."""
    store(builder, builder.uitofp(load(builder, source, ir.VectorType(I8, LANES), 1), V32F), out)


@emitted(types.void)
def widen_u8(builder: IRBuilder, source: Value, out: Value) -> None:
    """One uint8 at ``source`` to float32 at ``out``."""
    store(builder, builder.uitofp(load(builder, source, I8, 1), F32), out)


@emitted(types.void)
def convert16(builder: IRBuilder, source: Value, out: Value) -> None:
    """32 uint8 at ``source`` to int16 at ``out``."""
    kind = ir.VectorType(I16, LANES)
    store(builder, builder.zext(load(builder, source, ir.VectorType(I8, LANES), 1), kind), out, 2)


@emitted(types.void)
def widen_u8_16(builder: IRBuilder, source: Value, out: Value) -> None:
    """One uint8 at ``source`` to int16 at ``out``."""
    store(builder, builder.zext(load(builder, source, I8, 1), I16), out, 2)


@emitted(types.void)
def unpack16(builder: IRBuilder, word: Value, out: Value) -> None:
    """One word of bits at ``word`` to 32 int16 +1 or -1 at ``out``."""
    kind = ir.VectorType(I16, LANES)
    negative = builder.bitcast(load(builder, word, I32), V32B)
    store(builder, builder.select(negative, constant(kind, -1), constant(kind, 1)), out, 2)


@emitted(types.void)
def unpack32(builder: IRBuilder, word: Value, out: Value) -> None:
    """One word of bits at ``word`` to 32 floats +1.0 or -1.0 at ``out``."""
    negative = builder.bitcast(load(builder, word, I32), V32B)
    store(builder, builder.select(negative, constant(V32F, -1.0), constant(V32F, 1.0)), out)


def clamped(builder: IRBuilder, value: Value, low: Value, high: Value) -> Value:
    """A vector of floats or int32 cut off at those of its type; NaN stays."""
    compare = builder.icmp_signed if value.type.element == I32 else builder.fcmp_ordered
    value = builder.select(compare("<", value, low), low, value)
    return builder.select(compare(">", value, high), high, value)


def power_of_two(builder: IRBuilder, exponent: Value) -> Value:
    """float32 ``2**exponent`` of an int64."""
    biased = builder.add(builder.trunc(exponent, I32), I32(127))
    return builder.bitcast(builder.shl(biased, I32(23)), F32)


def load_steps(builder: IRBuilder, address: Value, kind: Type, step: Value) -> Value:
    """Float vector of type ``kind`` from int16 multiples of ``step``, a vector too."""
    halves = ir.VectorType(I16, kind.count)
    return builder.fmul(builder.sitofp(load(builder, address, halves, 2), kind), step)


def store_steps(builder: IRBuilder, value: Value, address: Value, per_one: Value) -> None:
    """Store floats as int16, ``per_one`` steps to 1: exact where ``plan.int16_streams`` says so."""
    words = ir.VectorType(I32, value.type.count)
    halves = ir.VectorType(I16, value.type.count)
    whole = builder.fptosi(builder.fmul(value, per_one), words)
    store(builder, builder.trunc(whole, halves), address, 2)


@emitted(types.void)
def from_steps32(builder: IRBuilder, source: Value, exponent: Value, out: Value) -> None:
    """32 int16 multiples of ``2**-exponent`` to floats."""
    step = splat(builder, power_of_two(builder, builder.neg(exponent)), V32F)
    store(builder, load_steps(builder, source, V32F, step), out)


@emitted(types.void)
def to_steps32(builder: IRBuilder, source: Value, exponent: Value, out: Value) -> None:
    """32 floats to int16 multiples of ``2**-exponent``."""
    per_one = splat(builder, power_of_two(builder, exponent), V32F)
    store_steps(builder, load(builder, source, V32F), out, per_one)


@emitted(types.void)
def scale32(builder: IRBuilder, exponent: Value, out: Value) -> None:
    """``out *= 2**exponent`` over 32 floats."""
    factor = splat(builder, power_of_two(builder, exponent), V32F)
    store(builder, builder.fmul(load(builder, out, V32F), factor), out)


@emitted(types.void)
def divide32(builder: IRBuilder, divisor: Value, out: Value) -> None:
    """``out /= divisor`` over 32 floats, ``divisor`` an integer."""
    divisors = splat(builder, builder.sitofp(divisor, F32), V32F)
    store(builder, builder.fdiv(load(builder, out, V32F), divisors), out)
