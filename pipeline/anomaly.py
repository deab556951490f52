"""``--detect-anomaly``: name the layer, or backward step, where a NaN or Inf first appears."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError


def _check(name: str) -> Callable[[nn.Module, Any, Any], None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
            bad = output[~torch.isfinite(output)]
            raise UserError(
                f"anomaly: layer '{name}' ({type(module).__name__}) gives {bad[0].item()} in "
                f"{bad.numel():,} of {output.numel():,} values; use smaller learning rates"
            )

    return hook


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
