"""Settling: the trained network becomes the exact network whose accuracy we report.

Steps, in order (``exactness.md``):

1. BatchNorm statistics are estimated again with every mask frozen.
2. The module is traced with torch.fx and each ``convolution -> BatchNorm [-> sign]`` is folded into
   one module of :mod:`frostbit.pipeline.lowering.settled_layers`: integer thresholds where a sign
   follows directly, a multiplier and an addend per channel elsewhere, pixel normalisation into the
   stem.
3. Multipliers, addends and full-precision weights are rounded to a grid ``2**-s``, with the largest
   s for which :mod:`frostbit.kernels.ir.exact` proves that float32 rounds nothing before any sign.
   The head gets its own s if its sums can be exact too, else no grid. A binary-weight network has
   no signs to protect: nothing of it is put on a grid.
4. With 8 or 16 bits (:data:`BITS`) each full-precision weight is so many bits on that grid, times
   a scale per output channel (:mod:`frostbit.pipeline.lowering.few_bits`). ``auto`` takes 8 where
   that costs at most :data:`MOST_LOST` points of accuracy against 16.

Everything runs on the CPU in float32 (no TF32, no Winograd there).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from frostbit.kernels.ir.exact import Exactness, analyse
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering import settled_layers as st
from frostbit.pipeline.lowering.fold_batchnorm import structure
from frostbit.pipeline.lowering.folded_layers import BATCH_NORMS
from frostbit.pipeline.lowering.to_program import lower_with_targets, with_numbers

SETTLE_IMAGES = 5000
"""Images on which BatchNorm is estimated again, at most: more change its statistics no longer."""
FINEST = 20
"""Finest grid, steps of 2**-20: sums of normalised values reach 16, and float32 has 24 bits."""
COARSEST = 4
"""Coarsest grid of the body, steps of 1/16: normalised values are about 1, and coarser steps would
round them to another network, which is refused."""
HEAD_FINEST = 20
"""As of the body: the logits of normalised values reach 16 too."""
HEAD_COARSEST = 6
"""Coarsest grid of the head, steps of 1/64: weights on 512 inputs are about 0.04, and coarser steps
would erase most of them. It then stays off the grid, and logits agree within a tolerance."""
AUTO = "auto"
BITS = (AUTO, "8", "16", "32")
"""What a full-precision weight may have; 32: what the grid leaves of float32."""
MOST_LOST = 0.1
"""Points of accuracy that 8 bits may cost before ``auto`` takes 16."""


@dataclass(frozen=True)
class Settled:
    """Result of :func:`settle`.

    Attributes:
        module: fx module on the CPU, float pixels ``[N, C, H, W]`` -> logits ``[N, classes]``.
        hash: SHA-256 (hex) of its state (names, dtypes, shapes, bytes).
        report: figures for run.json: exactness, grid exponents, bound, bits left.
    """

    module: fx.GraphModule
    hash: str
    report: dict[str, Any]


def state_hash(module: nn.Module) -> str:
    """SHA-256 (hex) over the sorted state of ``module``: name, dtype, shape and bytes."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{name}:{array.dtype.str}:{array.shape};".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


@torch.no_grad()
def reestimate_batchnorm(model: nn.Module, images: Tensor, batch: int = 500) -> None:
    """Set running statistics to the plain average over ``images`` (pixels ``[N, C, H, W]``)."""
    norms = [m for m in model.modules() if isinstance(m, BATCH_NORMS)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for start in range(0, len(images) - len(images) % batch or len(images), batch):
        model(images[start : start + batch].float())
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()


class _Lowered:
    """The network lowered once; rounding its modules changes the numbers of their ops alone.

    Attributes:
        head: the dense layer that gives the logits, or None.
    """

    def __init__(self, gm: fx.GraphModule, image_shape: tuple[int, int, int]) -> None:
        self.program, targets = lower_with_targets(gm, image_shape)
        modules = {op: gm.get_submodule(target) for op, target in targets.items()}
        self.modules = {op: m for op, m in modules.items() if isinstance(m, st.ROUNDED)}
        self.head = head_of(gm)

    def round_body(self, exponent: int) -> Exactness:
        """Round all but the head to ``2**-exponent``; returns what is proved then."""
        return self._round({n: m for n, m in self.modules.items() if m is not self.head}, exponent)

    def round_head(self, exponent: int) -> Exactness:
        """Round the head alone."""
        return self._round({n: m for n, m in self.modules.items() if m is self.head}, exponent)

    def round_freely(self, layers: Collection[st.FullPrecision]) -> None:
        """Round full-precision ``layers`` to their bits, and to no grid."""
        for module in layers:
            module.round_to(None)
        self._renumber({n: m for n, m in self.modules.items() if m in layers})

    def _round(self, modules: Mapping[str, st.Rounded], exponent: int) -> Exactness:
        for name, module in modules.items():
            try:
                module.round_to(exponent)
            except st.GridError as error:
                raise UserError(
                    f"numerical: '{name}': {error}, which sums elsewhere need; train with larger "
                    "BatchNorm scales (less weight decay) or fewer layers"
                ) from error
        self._renumber(modules)
        return analyse(self.program)

    def _renumber(self, modules: Mapping[str, st.Rounded]) -> None:
        ops = (
            with_numbers(op, modules[op.name]) if op.name in modules else op
            for op in self.program.ops
        )
        self.program = replace(self.program, ops=tuple(ops))


def _round_body(lowered: _Lowered) -> tuple[int, Exactness]:
    """Round all but the head to the finest provably exact grid; returns s and the proof."""
    exponent = FINEST
    while True:
        verdict = lowered.round_body(exponent)
        if verdict.body_exact:
            return exponent, verdict
        exponent = min(exponent - 1, exponent + math.floor(verdict.bits_left))
        if exponent < COARSEST:
            raise UserError(
                f"numerical: the sums at '{verdict.tightest}' are too large for exact float32 "
                "arithmetic: use fewer residual blocks, smaller BatchNorm scales or a larger eps "
                "in BatchNorm, such as 1e-3"
            )


def head_of(gm: fx.GraphModule) -> st.SettledDense | None:
    """The dense layer that gives the logits, or None if the last module is another."""
    output = next(node for node in reversed(gm.graph.nodes) if node.op == "output")
    last = output.all_input_nodes[0]
    module = gm.get_submodule(str(last.target)) if last.op == "call_module" else None
    return module if isinstance(module, st.SettledDense) else None


def _round_head(lowered: _Lowered) -> int | None:
    """Round the head if its sums can be exact at a useful precision; returns its s or None."""
    if lowered.head is None:
        return None
    for exponent in range(HEAD_FINEST, HEAD_COARSEST - 1, -1):
        if lowered.round_head(exponent).head_exact:
            return exponent
    lowered.round_freely([lowered.head])
    return None


def settle(
    model: nn.Module,
    images: Tensor,
    bits: str = AUTO,
    score: Callable[[nn.Module], float] | None = None,
) -> Settled:
    """Turn a trained, fully frozen ``model`` into the exact network.

    Args:
        model: binarized module; moved to the CPU, its BatchNorm statistics are replaced.
        images: pixels ``[N, C, H, W]`` 0..255 (training images, not augmented).
        bits: of a full-precision weight, one of :data:`BITS`.
        score: percent that a settled module gets right, by which ``auto`` decides; without it
            ``auto`` is 8.

    Raises:
        UserError: if a module cannot be settled or the sums cannot be made exact.
    """
    if bits not in BITS:
        raise UserError(f"full-precision weights have {', '.join(BITS)} bits, not {bits!a}")
    model = model.cpu()
    reestimate_batchnorm(model, images)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    if bits != AUTO:
        return _settled(model, shape, int(bits))
    small = _settled(model, shape, 8)
    if score is None:
        return small
    large = _settled(model, shape, 16)
    scores = {8: score(small.module), 16: score(large.module)}
    chosen = small if scores[8] >= scores[16] - MOST_LOST else large
    by_bits = {str(bits): round(percent, 4) for bits, percent in scores.items()}
    return replace(chosen, report={**chosen.report, "accuracy_by_bits": by_bits})


def bits_line(report: Mapping[str, Any]) -> str:
    """What ``auto`` chose and why, one line; "" where nothing was chosen."""
    scores = report.get("accuracy_by_bits")
    if scores is None:
        return ""
    return (
        f"full-precision weights: {report['full_precision_bits']} bits; with 8 bits "
        f"{scores['8']:.2f} % right, with 16 bits {scores['16']:.2f} % (8 where they cost at most "
        f"{MOST_LOST} points; --set full_precision_bits=16 keeps 16)"
    )


def _settled(model: nn.Module, shape: tuple[int, int, int], bits: int) -> Settled:
    """The exact network with full-precision weights of ``bits`` bits."""
    gm = structure(model, shape)
    lowered = _Lowered(gm, shape)
    full = [m for m in lowered.modules.values() if isinstance(m, st.FullPrecision)]
    for module in full:
        module.bits = bits
    verdict = analyse(lowered.program)
    if not verdict.has_signs:
        lowered.round_freely(full)
        return Settled(gm, state_hash(gm), _report(verdict, bits, None, None))
    exponent, verdict = _round_body(lowered)
    report = _report(verdict, bits, exponent, _round_head(lowered))
    return Settled(gm, state_hash(gm), report)


def _report(
    verdict: Exactness, bits: int, exponent: int | None, head_exponent: int | None
) -> dict[str, Any]:
    """Figures for run.json; without exponents nothing is on a grid (binary weights only)."""
    return {
        "full_precision_bits": bits,
        "body_exact": verdict.body_exact and verdict.has_signs,
        "head_exact": head_exponent is not None,
        "grid_exponent": exponent,
        "head_exponent": head_exponent,
        "bound": verdict.bound,
        "bits_left": round(verdict.bits_left, 3),
        "tightest": verdict.tightest,
    }
