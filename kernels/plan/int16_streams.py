"""Residual streams in 16 bits: half the memory traffic where a layer waits for memory.

A sum that binary convolutions add to and read back is a multiple of ``2**-s``; where the proof of
:mod:`frostbit.kernels.ir.exact` also bounds it by ``32767 * 2**-s``, int16 holds it exactly.
Arithmetic stays float32, which is exact there too, so no bit changes. Maps that fit the
second-level cache anyway stay float32, and so do all where the kernel is not the one of
:mod:`frostbit.kernels.micro.fused`: through memory the conversion costs more than it saves.
``python -m tests.figures.layers`` measures the gain.
"""

from __future__ import annotations

import numpy as np

from frostbit.kernels import op_table as t
from frostbit.kernels.ir import exact
from frostbit.kernels.ir.program import BinaryConv, Program, ValueType
from frostbit.kernels.micro.fused import HAS_FUSED
from frostbit.kernels.plan.columns import result_limits
from frostbit.kernels.plan.fusion import Step

LARGEST = np.iinfo(np.int16).max
SMALLEST_MAP = 512 * 1024
"""Bytes of the float32 map from which on 16 bits are used: the second-level cache of most CPUs."""


def pays(kernel: str) -> bool:
    """Whether ``kernel`` converts in registers; through memory it costs more than it saves."""
    return kernel == "xnor" and HAS_FUSED


def narrow(program: Program, steps: list[Step], types: dict[str, ValueType]) -> dict[str, int]:
    """Values to keep in 16 bits, each with its grid exponent s, which is the same for all.

    Only what a binary convolution writes and binary convolutions add to their own results
    qualifies; the network's result does not.
    """
    names = [step.out for step in steps if step.out is not None and _is_narrowing(step)]
    names = [name for name in names if _is_only_added(name, steps)]
    names = [name for name in names if 4 * np.prod(types[name].shape) >= SMALLEST_MAP]
    if not names:
        return {}
    grids = exact.grids(program)
    found = {
        name: grids[name]
        for name in names
        if name != program.ops[-1].name and name in grids and grids[name].exact
    }
    while found:
        exponent = max(grid.exponent for grid in found.values())
        too_large = [n for n, grid in found.items() if grid.bound.max() * 2.0**exponent > LARGEST]
        if not too_large:
            return dict.fromkeys(found, exponent)
        for name in too_large:
            del found[name]
    return {}


def _is_narrowing(step: Step) -> bool:
    """Whether its kernel converts to 16 bits: a binary convolution's, and none with limits."""
    return isinstance(step.op, BinaryConv) and not result_limits(step)[t.HAS_LIMITS]


def _is_only_added(name: str, steps: list[Step]) -> bool:
    """Whether every reader of ``name`` is a binary convolution that adds it."""
    readers = [step for step in steps if name in step.reads]
    return bool(readers) and all(step.source != name and _is_narrowing(step) for step in readers)
