"""What is installed here, with a remedy for each missing thing."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib import metadata

from export import lce_env
from export.errors import RuntimeMissing
from kernels import features
from pipeline import data
from pipeline.errors import UserError

EXTRAS = {"torch": "train", "torchvision": "train", "onnx": "export", "onnxruntime": "export"}


def install(echo: Callable[[str], None]) -> None:
    """Make LCE's environment; where LCE has no wheel say so and go on.

    Raises:
        UserError: the installation failed; the text says how.
    """
    try:
        lce_env.check_platform()
    except RuntimeMissing as error:
        echo(f"lce: {error}")
        return
    try:
        lce_env.install(echo)
    except RuntimeMissing as error:
        raise UserError(str(error)) from error


def _package(name: str) -> str:
    try:
        return f"{name}: {metadata.version(name)}"
    except metadata.PackageNotFoundError:
        return f"{name}: not installed; pip install 'frostbit[{EXTRAS[name]}]'"


def _lce() -> str:
    try:
        return f"lce: {lce_env.require_python()}"
    except RuntimeMissing as error:
        return f"lce: {error}"


def _dataset(name: str) -> str:
    try:
        found = data.load(name)
    except UserError as error:
        return f"data {name}: {error}"
    return f"data {name}: {len(found.train):,} training and {len(found.test):,} test images"


def findings() -> list[str]:
    """One line per thing that Frostbit can use here."""
    form = features.host_form()
    return [
        f"python: {platform.python_version()} on {platform.machine()}",
        f"engine: micro-kernel {features.chosen_kernel()} of {', '.join(features.available())} "
        f"({features.VARIABLE} chooses); xnor counts {form.count} in vectors of {form.width} bytes",
        *(_package(name) for name in EXTRAS),
        _lce(),
        *(_dataset(name) for name in data.NAMES if name != "folder"),
    ]
