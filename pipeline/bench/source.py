"""``bench --source``: the file that a model was imported from, in its own runtime beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from frostbit.export.errors import LceError
from frostbit.export.lce.runtime import LceRuntime
from frostbit.export.runtimes import Images, Milliseconds, Timed
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.errors import UserError

KERNELS = ("default", "indirect")
"""Of LCE: the one that its package ships as default, and its fastest on x86."""
COMPARED = 4
"""Images whose answers are compared before anything is timed."""
ANOTHER = 0.3
"""Median difference of answers, as a share of their spread, from which on the file is another
network: in deep ones a rounded sign moves answers by a tenth, and importing compares by layers."""


class _Source:
    """A foreign file in LCE's interpreter, under a name of its own; timed, not compared by bits."""

    def __init__(self, runtime: LceRuntime) -> None:
        self._runtime = runtime
        self.name = f"source:{runtime.name}"
        self.size_bytes = runtime.size_bytes

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        return self._runtime.latency(image, repeats)

    def close(self) -> None:
        self._runtime.close()


def source_runtimes(
    path: Path, program: Program, images: Images, threads: int = 1
) -> tuple[list[Timed], str]:
    """The file at ``path`` in every fast kernel of LCE.

    Args:
        path: a .tflite file.
        program: what was read from it.
        images: as the model takes them.
        threads: of LCE.

    Returns:
        The runtimes, and a line on how their answers compare with the model's.

    Raises:
        UserError: no .tflite file, or one of another network.
        RuntimeMissing: LCE's environment is not here.
    """
    if path.suffix.lower() != ".tflite":
        raise UserError(f"'{path}': --source runs .tflite files, in Larq Compute Engine")
    data, few = path.read_bytes(), images[:COMPARED]
    ours = Engine(program).run(few)
    found: list[Timed] = []
    worst = 0.0
    try:
        for kernel in KERNELS:
            runtime = LceRuntime(program, kernel, data, threads=threads)
            found.append(_Source(runtime))
            worst = max(worst, _difference(ours, runtime, few, path))
    except BaseException:
        for each in found:
            each.close()
        raise
    return found, f"source: answers within {worst:.1e} of their spread on {len(few)} images"


def _difference(ours: np.ndarray, runtime: LceRuntime, images: Images, path: Path) -> float:
    """Median over images of the largest difference of answers, as a share of their spread."""
    another = UserError(f"'{path}' is not the file that the model was imported from")
    try:
        theirs = runtime.logits(images)
    except LceError as error:
        raise UserError(f"'{path}': {error}") from error
    if theirs.shape != ours.shape:
        raise another
    spread = np.maximum(np.ptp(ours, axis=1), np.finfo(np.float32).tiny)
    share = float(np.median(np.abs(ours - theirs).max(axis=1) / spread))
    if not share <= ANOTHER:
        raise another
    return share
