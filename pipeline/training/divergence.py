"""Training that diverges: which step, which layer, and what most likely caused it.

``--detect-anomaly`` looks at every value of every layer, forward and backward, which is slow.
Without it the loss is looked at, and when it is bad the layer is found by one more pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from frostbit.pipeline.errors import Diverged, UserError

DIVERGED = 1e4
"""A cross-entropy that no training in progress reaches."""


def _check(name: str) -> Callable[[nn.Module, object, object], None]:
    def hook(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            bad = output[~torch.isfinite(output)]
            raise UserError(
                f"anomaly: layer '{name}' ({type(module).__name__}) gives {bad[0].item()} in "
                f"{bad.numel():,} of {output.numel():,} values; use smaller learning rates"
            )

    return hook


def divergence(loss: float, step: int, words: str, where: str, early: bool) -> Diverged:
    """The error that ends training.

    Args:
        loss: NaN, infinite or too large.
        step: at which it was.
        words: what was freezing then.
        where: from :func:`worst_layer`, empty if it is not known.
        early: whether this was in the first epoch.
    """
    cause = "in the first epoch most likely a learning rate is too high; " if early else ""
    place = f"; {where}" if where else ""
    return Diverged(
        f"training diverged: the loss is {loss} at step {step} ({words}){place}; {cause}use "
        "smaller learning rates"
    )


@torch.no_grad()
def worst_layer(model: nn.Module, pixels: Tensor) -> str:
    """Where a pass of ``pixels`` ``[N, C, H, W]`` goes wrong, in words.

    The first layer with a NaN or Inf in its weights or output, else the one with the largest.
    """
    leaves = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    for name, module in leaves:
        bad = [p for p in module.parameters() if not bool(torch.isfinite(p).all())]
        if bad:
            return f"layer '{name}' ({type(module).__name__}) has weights that are not finite"
    found: list[tuple[float, str]] = []

    def note(name: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if isinstance(output, Tensor):
                found.append(
                    (float(output.abs().max()), f"layer '{name}' ({type(module).__name__})")
                )

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        model.forward(pixels)  # not what torch.compile made of it, which calls no hooks
    finally:
        for each in hooks:
            each.remove()
    for largest, name in found:
        if not largest < float("inf"):
            return f"{name} is the first to give {largest}"
    largest, name = max(found)
    return f"{name} gives the largest value, {largest:.3g}"


@contextmanager
def watched(model: nn.Module, asked: bool) -> Iterator[None]:
    """Check every layer's output, and every backward step, while the block runs; slow.

    Raises:
        UserError: at the first value that is not finite, naming where.
    """
    if not asked:
        yield
        return
    leaves = [(name, m) for name, m in model.named_modules() if not any(m.children())]
    hooks = [module.register_forward_hook(_check(name)) for name, module in leaves]
    try:
        with torch.autograd.set_detect_anomaly(True):
            yield
    except RuntimeError as error:
        text = str(error).splitlines()[0]
        if "returned nan values" not in text:
            raise
        raise UserError(f"anomaly in the backward pass: {text}") from error
    finally:
        for hook in hooks:
            hook.remove()
