"""Is a Program the network that it was lowered from? Both see the same images, every bit counts."""

from __future__ import annotations

import copy

import torch
from torch import fx

from frostbit.export.parity import Comparison, ParityReport, compare
from frostbit.export.runtimes import Images
from frostbit.export.terms import cancels_most
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.console import Progress
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime, pixels_of

COMPARED = 64
"""Images on which a packed network is compared with the trained one."""
BATCH = 8
"""Images at a time: the reference unrolls its windows, and pictures may be large."""


def require_equal(
    program: Program, module: fx.GraphModule, images: Images, progress: Progress = iter
) -> str:
    """Compare ``program``, run by the reference, with the settled ``module``, run by PyTorch.

    Args:
        program: lowered from ``module``.
        module: the settled network.
        images: uint8 ``[N, H, W, C]``, N >= 2.
        progress: wraps the iterable of batches.

    Returns:
        One line on what was compared.

    Raises:
        UserError: a sign bit differs, or a logit by more than float32 explains; names where first.
            Beginning with ``numerical`` where float32 is to blame and not the Program.
    """
    height, width, channels = program.input_shape
    runtime = TorchRuntime(module, (channels, height, width))
    report = compare(program, [runtime], images, batch=BATCH, progress=progress, must_vary=False)
    (found,) = report.comparisons
    if not report.passed:
        raise UserError(_why(program, module, images, report))
    return (
        f"equal to the trained network in {found.sign_bits_compared:,} sign bits, logits "
        f"within {found.logits_max_abs_diff:.2g}, on {len(images)} images"
    )


def _why(program: Program, module: fx.GraphModule, images: Images, report: ParityReport) -> str:
    """What differs: the network, or the rounding of float32 alone."""
    (found,) = report.comparisons
    if found.sign_bits_differing == 0 and _rounds_as_much(module, images, found):
        where = cancels_most(program, reference.trace(program, images[:BATCH]))
        return (
            "numerical: every sign bit is right, but float32 loses the digits of the logits, which "
            f"differ by up to {found.logits_max_rel_diff:.1g} of the largest: large terms cancel "
            f"at '{where}', as behind a BatchNorm of a channel that hardly varies; give BatchNorm "
            "a larger eps, such as 1e-3, or train again with another seed or a lower rate"
        )
    first = f", first at '{found.first_difference}'" if found.first_difference else ""
    return (
        f"the packed network is not the trained one: {found.sign_bits_differing:,} of "
        f"{found.sign_bits_compared:,} sign bits differ{first}, logits by up to "
        f"{found.logits_max_abs_diff:.3g}; write that part of the network in another way, and "
        "please report this"
    )


@torch.inference_mode()
def _rounds_as_much(module: fx.GraphModule, images: Images, found: Comparison) -> bool:
    """Whether the trained network alone differs so much between float32 and float64.

    A number that was lost on the way to the Program is lost in neither.
    """
    twice = copy.deepcopy(module).double()
    largest = 0.0
    for start in range(0, len(images), BATCH):
        pixels = pixels_of(images[start : start + BATCH])
        rough, fine = module(pixels).double(), twice(pixels.double())
        largest = max(largest, float((rough - fine).abs().max()))
    return largest >= found.logits_max_abs_diff / 10
