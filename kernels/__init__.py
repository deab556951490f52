"""What goes to the device: the Program, its file format, the reference and the Numba engine.

>>> from frostbit.kernels import load
>>> logits = load("model.bnn").run(images)  # uint8 [N, H, W, C] -> float32 [N, classes]

``load`` is imported on first use, so that reading a Program does not start Numba.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from frostbit.kernels.ir.program import FormatError

if TYPE_CHECKING:
    from frostbit.kernels.engine import load

__all__ = ["FormatError", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":
        from frostbit.kernels.engine import load

        return load
    raise AttributeError(f"module 'frostbit.kernels' has no attribute '{name}'")
