"""Engines that cut every step of one image, however small, for more threads than cores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from frostbit.kernels import engine as engine_module
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.program import Program
from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.threads import MOST
from frostbit.kernels.plan import shares
from frostbit.kernels.plan.shares import Row

FREE = -1e9
"""Cost of a meeting that makes any cut worth it."""


@contextmanager
def everything_cut(units: int = 1) -> Iterator[None]:
    """Inside the block new engines share every image; ``units``: of each thread, at most."""

    def cut(rows: Sequence[Row], most: int) -> shares.Shares:
        return shares.share(rows, most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shares, "MEETING", FREE)
        patch.setattr(shares, "SMALLEST_UNIT", 1.0)
        patch.setattr(shares, "MOST_UNITS", units)
        patch.setattr(engine_module, "best_shares", cut)
        patch.setattr(cpu, "available_cores", lambda: MOST)
        yield


def split(program: Program, threads: int, kernel: str = "", units: int = 1) -> Engine:
    """An engine whose ``threads`` threads share every image."""
    with everything_cut(units):
        return Engine(program, threads=threads, kernel=kernel)
