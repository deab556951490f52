"""LCE's environment for tests: absent means skip by name, but failure where CI=true."""

from __future__ import annotations

import numpy as np

from frostbit.export.lce.environment import lce_python
from frostbit.export.lce.runtime import LceRuntime
from frostbit.export.lce.worker import KERNELS
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import Program
from tests import needs


def require_lce() -> None:
    """Skip (or fail where CI=true) unless LCE's environment is there."""
    if lce_python() is None:
        needs.skip("Larq Compute Engine", "pipeline doctor --install-lce")


def check(program: Program, images: np.ndarray, kernels: tuple[str, ...] = tuple(KERNELS)) -> None:
    """All kernels against the reference: every sign bit, every logit, both of them varied."""
    values = reference.trace(program, images)
    logits = values[program.ops[-1].name][:, 0, 0]
    assert np.unique(logits).size > 1
    for kernel in kernels:
        runtime = LceRuntime(program, kernel)
        try:
            signs = runtime.signs(images)
            assert set(signs) == {n for n, v in values.items() if v.dtype == np.int8}
            for name, words in signs.items():
                assert np.array_equal(words, bits.pack(values[name])), f"{kernel}: {name}"
            assert np.array_equal(runtime.logits(images), logits), kernel
        finally:
            runtime.close()
