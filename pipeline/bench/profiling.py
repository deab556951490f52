"""``bench --profile``: where the engine's time goes, step by step, and how far from its limit.

MAC per cycle needs the clock: :func:`cycles_per_second` times a chain of instructions that each
wait for the one before (frequency is not readable in many machines). The *limit* of a micro-kernel
is what its own vector instructions allow if nothing else cost anything (:data:`WORK`,
:data:`PORTS`: of some CPUs, the usual numbers for the others).
"""

from __future__ import annotations

import platform
import time
from dataclasses import dataclass

import llvmlite.binding as llvm
import numba
import numpy as np
from rich.table import Table

from frostbit.export.inputs import Images
from frostbit.kernels.engine import Engine
from frostbit.kernels.machine import cpu as features
from frostbit.kernels.profile import StepTime, profile

CHAIN = 2_000_000
CHAIN_CYCLES = 6  # three shifts and three xors, one cycle each, on x86

WORK = {
    ("lookup", "bytes", 32): (3, 256),
    ("xnor", "words", 64): (3, 512),
    ("xnor", "bytes", 32): (8, 256),
    ("xnor", "bytes", 16): (3, 128),
}
"""Micro-kernel, how it counts, vector bytes -> vector instructions for how many products."""
PORTS = {
    "znver5": {64: 4, 32: 4},
    "znver4": {64: 2, 32: 4},
    "znver3": {32: 4},
    "znver2": {32: 4},
}
"""Vector instructions that a CPU (LLVM's name) can start in a cycle, by vector bytes."""
USUAL_PORTS = {64: 2, 32: 3, 16: 2}
MULTIPLIERS = {"znver4": {64: 1}, "icelake-client": {64: 1}, "tigerlake": {64: 1}}
USUAL_MULTIPLIERS = {64: 2, 32: 2, 16: 1}
"""Multiplications of vectors of integers that a CPU can start in a cycle, by vector bytes."""


@dataclass(frozen=True)
class Line:
    """One step of a profile.

    Attributes:
        step: name, type, seconds and MACs.
        share: of the sum of all steps, 0..1.
        macs_per_cycle: binary and full-precision MACs together; None without MACs or a clock.
        limit: MACs a cycle that the step's instructions allow; None if not known.
        of_limit: ``macs_per_cycle`` over ``limit``, 0..1; None if there is none.
    """

    step: StepTime
    share: float
    macs_per_cycle: float | None
    limit: float | None
    of_limit: float | None


@dataclass(frozen=True)
class Profile:
    """Profile of one engine on one image.

    Attributes:
        kernel: its micro-kernel.
        lines: the steps in order.
        seconds: median time of a whole run beside them.
        clock: measured cycles per second; None where it cannot be told.
        limit: binary MACs a cycle that the micro-kernel allows, and why; None if not known.
    """

    kernel: str
    lines: tuple[Line, ...]
    seconds: float
    clock: float | None
    limit: tuple[float, str] | None

    @property
    def total(self) -> float:
        """Sum of all steps, in seconds."""
        return sum(line.step.seconds for line in self.lines)

    def to_json(self) -> dict[str, object]:
        steps = [
            {
                "name": line.step.name,
                "op": line.step.op,
                "microseconds": round(1e6 * line.step.seconds, 3),
                "share": round(line.share, 4),
                "binary_macs": line.step.binary_macs,
                "float_macs": line.step.float_macs,
                "macs_per_cycle": line.macs_per_cycle,
                "limit": line.limit,
                "instruction": line.step.products.instruction if line.step.products else None,
                "of_limit": line.of_limit,
            }
            for line in self.lines
        ]
        limit = None
        if self.limit is not None:
            limit = {"macs_per_cycle": self.limit[0], "why": self.limit[1]}
        return {
            "kernel": self.kernel,
            "whole_microseconds": round(1e6 * self.seconds, 3),
            "sum_microseconds": round(1e6 * self.total, 3),
            "cycles_per_second": self.clock,
            "limit": limit,
            "steps": steps,
        }


@numba.njit
def _chain(value, count):  # type: ignore[no-untyped-def]
    """A chain of ``count`` times six instructions, each of which needs the result before it."""
    for _ in range(count):
        value ^= value << np.uint64(13)
        value ^= value >> np.uint64(7)
        value ^= value << np.uint64(17)
    return value


def cycles_per_second(rounds: int = 7) -> float | None:
    """Clock of an x86 core under load, measured; None on other machines."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return None
    _chain(np.uint64(1), 10)
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        _chain(np.uint64(88172645463325252), CHAIN)
        best = min(best, time.perf_counter() - start)
    return CHAIN * CHAIN_CYCLES / best


def limit_of(kernel: str) -> tuple[float, str] | None:
    """What ``kernel`` could do at most on this CPU, in binary MACs a cycle."""
    form = features.host_form()
    key = ("lookup", "bytes", 32) if kernel == "lookup" else (kernel, form.count, form.width)
    if key not in WORK:
        return None
    (instructions, products), width = WORK[key], key[2]
    cpu = llvm.get_host_cpu_name()
    ports = PORTS.get(cpu, USUAL_PORTS)[width]
    why = f"{instructions} instructions of {width} bytes for {products} products, {ports} a cycle"
    return products * ports / instructions, f"{why} on {cpu}"


def limit_of_products(step: StepTime) -> float | None:
    """Full-precision MACs a cycle if nothing but the step's integer multiplications took time."""
    if step.products is None or not step.products.count:
        return None
    starts = USUAL_MULTIPLIERS | MULTIPLIERS.get(llvm.get_host_cpu_name(), {})
    return step.float_macs * starts[step.products.width] / step.products.count


def _line(step: StepTime, total: float, clock: float | None, limit: float | None) -> Line:
    count = step.binary_macs + step.float_macs
    limit = limit if step.binary_macs else limit_of_products(step)
    rate = None
    if clock and count and step.seconds > 0:
        rate = round(count / (step.seconds * clock), 2)
    reached = round(rate / limit, 4) if rate and limit else None
    return Line(step, step.seconds / total, rate, limit, reached)


def measure(engine: Engine, image: Images, rounds: int) -> Profile:
    """Profile ``engine`` on ``image`` ``[H, W, C]``."""
    steps, seconds = profile(engine, image, rounds)
    clock, limit = cycles_per_second(), limit_of(engine.kernel)
    total = sum(step.seconds for step in steps)
    most = limit[0] if limit else None
    lines = tuple(_line(step, total, clock, most) for step in steps)
    return Profile(engine.kernel, lines, seconds, clock, limit)


def _bits(step: StepTime) -> str:
    """Bits of what a step multiplies."""
    if step.products is not None:
        return str(step.products.bits)
    return "1" if step.binary_macs else "32"


def table(found: Profile) -> tuple[Table, list[str]]:
    """Table for the terminal, and lines below it."""
    shown = Table(title=f"where the time goes: engine:{found.kernel}, one image")
    texts, numbers = ("step", "op"), ("us", "share", "MACs", "bits", "MAC/cycle", "of limit")
    for column in (*texts, *numbers):
        shown.add_column(column, justify="left" if column in texts else "right")
    for line in found.lines:
        step = line.step
        macs = step.binary_macs + step.float_macs
        shown.add_row(
            step.name,
            step.op,
            f"{1e6 * step.seconds:.1f}",
            f"{100 * line.share:.1f} %",
            f"{step.binary_macs or step.float_macs:,}" if macs else "",
            _bits(step) if macs else "",
            "" if line.macs_per_cycle is None else f"{line.macs_per_cycle:.1f}",
            "" if line.of_limit is None else f"{100 * line.of_limit:.0f} %",
        )
    share = found.total / found.seconds
    lines = [
        f"steps sum to {1e3 * found.total:.4f} ms, {100 * share:.1f} % of a whole run's "
        f"{1e3 * found.seconds:.4f} ms"
    ]
    if found.clock:
        lines.append(f"clock {found.clock / 1e9:.2f} GHz, from a chain of dependent instructions")
    if found.limit:
        lines.append(f"limit of {found.kernel}: {found.limit[0]:.0f} MAC/cycle ({found.limit[1]})")
    names = sorted({line.step.products.instruction for line in found.lines if line.step.products})
    if names:
        lines.append(f"limit of integer layers: what {', '.join(names)} could multiply")
    return shown, lines
