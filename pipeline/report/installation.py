"""What is installed here, with a remedy for each missing thing."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata

from frostbit.export.errors import RuntimeMissing
from frostbit.export.lce import environment as lce_environment
from frostbit.kernels.machine import cpu
from frostbit.kernels.machine.jit import cache_folder
from frostbit.pipeline import machine
from frostbit.pipeline.bench import conditions, static_estimate
from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import UserError

ON_DISK = "name their folder with --data-dir or $FROSTBIT_DATA"
EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "scikit-learn", "matplotlib", "jinja2"), "train"),
    **dict.fromkeys(("onnx", "onnxruntime", "flatbuffers"), "export"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that Frostbit can use.

    Attributes:
        name: what.
        text: version, choice or place.
        remedy: what to do if it is missing; "" if it is there.
    """

    name: str
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {'; '.join(part for part in (self.text, self.remedy) if part)}"


def install(echo: Callable[[str], None]) -> None:
    """Make LCE's environment; where LCE has no wheel say so and go on.

    Raises:
        UserError: the installation failed; the text says how.
    """
    try:
        lce_environment.check_platform()
    except RuntimeMissing as error:
        echo(f"lce: {error}")
        return
    try:
        lce_environment.install(echo)
    except RuntimeMissing as error:
        raise UserError(str(error)) from error


def _package(name: str) -> Finding:
    try:
        return Finding(name, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "not installed", f"pip install 'frostbit[{EXTRAS[name]}]'")


def _cpu() -> Finding:
    found = conditions.cpu_features()
    return Finding("cpu", f"{machine.cpu_model()}; {', '.join(found) or 'no known feature'}")


def _mca() -> Finding:
    tool = static_estimate.tool()
    if tool is None:
        return Finding("llvm-mca", "not here", static_estimate.REMEDY)
    return Finding("llvm-mca", tool)


def _cuda() -> Finding:
    try:
        import torch
    except ImportError:
        return Finding("cuda", "not known without torch", "pip install 'frostbit[train]'")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Finding("cuda", ", ".join(names))
    if torch.backends.mps.is_available():
        return Finding("cuda", "none, but Apple's MPS: --device mps")
    return Finding("cuda", "none", "training runs on the CPU; a GPU needs NVIDIA's driver")


def _lce() -> Finding:
    try:
        return Finding("lce", str(lce_environment.require_python()))
    except RuntimeMissing as error:
        return Finding("lce", "not here", str(error))


def _dataset(name: str) -> Finding:
    try:
        found = datasets.load(name)
    except UserError as error:
        return Finding(f"data {name}", "not here", str(error))
    except ImportError as error:
        remedy = "pip install 'frostbit[train]'"
        return Finding(f"data {name}", f"not known without {error.name}", remedy)
    return Finding(
        f"data {name}", f"{len(found.train):,} training and {len(found.test):,} test images"
    )


def _engine() -> Finding:
    form = cpu.host_form()
    return Finding(
        "engine",
        f"micro-kernel {cpu.chosen_kernel()} of {', '.join(cpu.available())} "
        f"({cpu.VARIABLE} chooses); xnor counts {form.count} in vectors of {form.width} bytes",
    )


def _cache() -> Finding:
    folder = cache_folder()
    if folder is not None:
        return Finding("cache", str(folder))
    return Finding("cache", "no private folder", "name one with FROSTBIT_CACHE; it saves compiling")


def findings() -> list[Finding]:
    """Everything that Frostbit can use here."""
    usable = len(machine.affinity() or []) or os.cpu_count()
    return [
        Finding("python", f"{platform.python_version()} on {platform.machine()}"),
        _cpu(),
        Finding("threads", f"{usable} usable; one is used unless --threads asks for more"),
        _engine(),
        _cache(),
        *(_package(name) for name in EXTRAS),
        _cuda(),
        _lce(),
        _mca(),
        *(_dataset(name) for name in datasets.NAMES if name not in datasets.ON_DISK),
        *(Finding(f"data {name}", "pictures on disk", ON_DISK) for name in datasets.ON_DISK),
    ]


def to_json(found: Iterable[Finding]) -> str:
    """A list of name, text, remedy."""
    return json.dumps([asdict(each) for each in found], indent=2) + "\n"
