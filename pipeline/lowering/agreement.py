"""Is a Program the network that it was lowered from? Both see the same images, every bit counts."""

from __future__ import annotations

from torch import fx

from frostbit.export.parity import compare
from frostbit.export.runtimes import Images
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.console import Progress
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime

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
    """
    height, width, channels = program.input_shape
    runtime = TorchRuntime(module, (channels, height, width))
    report = compare(program, [runtime], images, batch=BATCH, progress=progress, must_vary=False)
    (found,) = report.comparisons
    if not report.passed:
        first = f", first at '{found.first_difference}'" if found.first_difference else ""
        raise UserError(
            f"the packed network is not the trained one: {found.sign_bits_differing:,} of "
            f"{found.sign_bits_compared:,} sign bits differ{first}, logits by up to "
            f"{found.logits_max_abs_diff:.3g}; write that part of the network in another way, and "
            "please report this"
        )
    return (
        f"equal to the trained network in {found.sign_bits_compared:,} sign bits, logits "
        f"within {found.logits_max_abs_diff:.2g}, on {len(images)} images"
    )
