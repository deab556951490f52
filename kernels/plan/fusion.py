"""Steps, and the two fusions that every compiled form of a network makes.

* ``Add`` with a convolution that it alone reads: the other operand becomes the residual of the
  convolution, which moves to the place of the ``Add``;
* ``Sign`` of a step's float result: the same step writes the bits, and no floats if nothing else
  reads them.

Which ops can take them up is the caller's to say. A bits value of the Program is always written,
so nothing hides one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from frostbit.kernels.ir.program import Add, Op, Sign


@dataclass(frozen=True)
class Step:
    """One call.

    Attributes:
        op: what to compute.
        source: name of the value it reads.
        residual: name of the value it adds, or None.
        out: name of the value it writes as float32 (or bits, where the plan has no ``bits`` for
            the op), or None.
        bits: name of the value that holds the signs of its float result, or None.
        more: names of what a Concat reads after ``source``.
        clip: limits of its float result, or None (the engine's schedule alone sets it).
        covers: names of the ops that were fused into it, in order.
    """

    op: Op
    source: str
    residual: str | None = None
    out: str | None = None
    bits: str | None = None
    more: tuple[str, ...] = ()
    clip: tuple[float, float] | None = None
    covers: tuple[str, ...] = ()

    @property
    def reads(self) -> tuple[str, ...]:
        added = () if self.residual is None else (self.residual,)
        return (self.source, *added, *self.more)

    @property
    def writes(self) -> tuple[str, ...]:
        return tuple(name for name in (self.out, self.bits) if name is not None)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all ops that it computes."""
        return (self.op.name, *self.covers)


def readers(steps: Sequence[Step]) -> Counter[str]:
    """How many times each value is read."""
    return Counter(name for step in steps for name in step.reads)


def fuse_adds(steps: Sequence[Step], adds: Callable[[Op], bool]) -> list[Step]:
    """Merge every Add into the step that feeds it alone, where ``adds`` holds of that one's op."""
    read = readers(steps)
    makers = {step.out: step for step in steps if step.out and adds(step.op)}
    merged: dict[str, Step] = {}  # name of the Add -> fused step
    gone: set[str | None] = set()
    for step in steps:
        if not isinstance(step.op, Add):
            continue
        for mine, other in ((step.source, step.residual), (step.residual, step.source)):
            if mine in makers and read[mine or ""] == 1:
                covers = (*makers[mine].covers, *step.names)
                fused = replace(makers[mine], residual=other, out=step.out, covers=covers)
                merged[step.op.name] = fused
                gone.add(mine)
                break
    return [merged.get(step.op.name, step) for step in steps if step.out not in gone]


def fuse_signs(steps: Sequence[Step], result: str, signs: Callable[[Op], bool]) -> list[Step]:
    """Let a step whose op is one of which ``signs`` holds write the signs of its float map too."""
    fused = list(steps)
    makers = {step.out: i for i, step in enumerate(steps) if step.out and signs(step.op)}
    gone = set()
    for i, step in enumerate(steps):
        maker = makers.get(step.source) if isinstance(step.op, Sign) else None
        if maker is not None and fused[maker].bits is None:
            covers = (*fused[maker].covers, *step.names)
            fused[maker] = replace(fused[maker], bits=step.bits, covers=covers)
            gone.add(i)
    kept = [step for i, step in enumerate(fused) if i not in gone]
    needed = {result, *readers(kept)}
    return [
        replace(step, out=None) if step.bits and step.out not in needed else step for step in kept
    ]


def spans(steps: Sequence[Step]) -> dict[str, tuple[int, int]]:
    """First and last step that needs each value."""
    found: dict[str, tuple[int, int]] = {}
    for i, step in enumerate(steps):
        for name in (*step.reads, *step.writes):
            found[name] = (found.get(name, (i, i))[0], i)
    return found
