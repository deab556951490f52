"""Frostbit: train binary neural networks, pack them, export them, run them, and prove the bits.

>>> import frostbit as fb
>>> logits = fb.load("model.bnn").run(images)  # uint8 [N, H, W, C] -> float32 [N, classes]

The names of ``__all__`` are the public API (``docs/api.md``); the rooms below it may change.
Each is imported on first use. ``load``, ``read``, ``save``, ``Program``, ``Engine`` and
``FormatError`` work in the base install, without torch.

Layouts: NumPy arrays are uint8 ``[N, H, W, C]``, torch tensors float ``[N, C, H, W]``; both hold
pixels 0..255, and networks normalise by themselves.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frostbit.export.model_file import read, save
    from frostbit.kernels.engine import Engine, load
    from frostbit.kernels.ir.program import FormatError, Program
    from frostbit.pipeline.lowering.own_network import pack
    from frostbit.pipeline.method.own_loop import StoMPP
    from frostbit.pipeline.network.binarize import binarize
    from frostbit.pipeline.parity.from_python import export_model, verify

    __version__: str

__all__ = [
    "Engine",
    "FormatError",
    "Program",
    "StoMPP",
    "__version__",
    "binarize",
    "export_model",
    "load",
    "pack",
    "read",
    "save",
    "verify",
]

_HOMES = {
    "Engine": "frostbit.kernels.engine",
    "FormatError": "frostbit.kernels.ir.program",
    "Program": "frostbit.kernels.ir.program",
    "StoMPP": "frostbit.pipeline.method.own_loop",
    "binarize": "frostbit.pipeline.network.binarize",
    "export_model": "frostbit.pipeline.parity.from_python",
    "load": "frostbit.kernels.engine",
    "pack": "frostbit.pipeline.lowering.own_network",
    "read": "frostbit.export.model_file",
    "save": "frostbit.export.model_file",
    "verify": "frostbit.pipeline.parity.from_python",
}
"""Where each public name is defined, under the same name."""


def _found(name: str) -> object:
    if name == "__version__":
        return import_module("frostbit.export.version").VERSION
    if name not in _HOMES:
        raise AttributeError(f"module 'frostbit' has no attribute '{name}'")
    try:
        return getattr(import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise ImportError(
            f"frostbit.{name} needs torch: pip install 'frostbit[train]'", name="torch"
        ) from error


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


if not TYPE_CHECKING:  # a type checker knows the names, and finds misspelt ones

    def __getattr__(name: str) -> object:
        found = globals()[name] = _found(name)
        return found
