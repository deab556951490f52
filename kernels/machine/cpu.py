"""What the host's CPU can do, the micro-kernel that makes us choose, and how many cores there are.

The ``xnor`` micro-kernel comes in two forms. ``words`` counts bits per 32-bit lane and needs
an instruction for it (AVX-512 VPOPCNTDQ). ``bytes`` counts per byte (AVX2: two table look-ups
of nibbles; NEON: ``cnt``), adds up in bytes and widens before they overflow.
``lookup`` is for AVX2 without that instruction: :mod:`frostbit.kernels.micro.lookup`.
``portable`` is scalar code for any CPU, and the cross-check of the others.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import llvmlite.binding as llvm

from frostbit.kernels.machine.jit import config
from frostbit.kernels.machine.settings import SettingError

KERNELS = ("xnor", "lookup", "portable")
VARIABLE = "FROSTBIT_KERNEL"


DOT_PRODUCT = (
    "apple-m", "cortex-a510", "cortex-a520", "cortex-a55", "cortex-a7", "cortex-x", "neoverse-",
)  # fmt: skip
"""Beginnings of LLVM's names of ARM CPUs with ``sdot``, a feature that it does not list of a host.

Of those that begin with ``cortex-a7``, :data:`NO_DOT_PRODUCT` do not.
"""
NO_DOT_PRODUCT = ("cortex-a7", "cortex-a72", "cortex-a73")


@dataclass(frozen=True)
class Form:
    """How the ``xnor`` micro-kernel counts: per word or per byte, in vectors of ``width`` bytes."""

    count: Literal["words", "bytes"]
    width: int


def form_for(features: Mapping[str, bool]) -> Form:
    """The best form for LLVM's CPU ``features`` (a missing name counts as absent)."""
    if features.get("avx512vpopcntdq") and features.get("avx512bw"):
        return Form("words", 64)
    if features.get("avx2"):
        return Form("bytes", 32)
    return Form("bytes", 16)


@dataclass(frozen=True)
class ByteForm:
    """How a CPU multiplies bytes, by the name of its instruction, in vectors of ``width`` bytes."""

    instruction: Literal["vpdpbusd", "vpmaddubsw", "sdot", "smull", "none"]
    width: int


def byte_form(features: Mapping[str, bool]) -> ByteForm:
    """The best form for LLVM's CPU ``features``; ``none`` where bytes are no faster than floats."""
    if features.get("avx512vnni") and features.get("avx512bw"):
        return ByteForm("vpdpbusd", 64)
    if features.get("avxvnni"):
        return ByteForm("vpdpbusd", 32)
    if features.get("avx2"):
        return ByteForm("vpmaddubsw", 32)
    if features.get("neon"):
        return ByteForm("sdot" if features.get("dotprod") else "smull", 16)
    return ByteForm("none", 16)


def target_features() -> dict[str, bool]:
    """Features of the CPU that Numba compiles for: this host's, unless its settings differ.

    ``NUMBA_CPU_FEATURES`` ("+avx2,-avx512f") wins; with ``NUMBA_CPU_NAME`` alone Numba compiles
    for the host's features too, except for the name ``generic``, which has none.
    """
    given = config.CPU_FEATURES
    if given is None:
        found = dict(llvm.get_host_cpu_features())
        name = config.CPU_NAME or llvm.get_host_cpu_name()
        has_dot = name.startswith(DOT_PRODUCT) and name not in NO_DOT_PRODUCT
        return found | {"dotprod": bool(found.get("neon")) and has_dot}
    return {name[1:]: name[0] == "+" for name in given.split(",") if name}


def host_form() -> Form:
    """The form for the CPU that Numba compiles for."""
    return form_for(target_features())


def available() -> tuple[str, ...]:
    """The micro-kernels that run on the CPU that Numba compiles for, the best one first."""
    found = target_features()
    if not found.get("avx2"):
        return ("xnor", "portable")
    if host_form().count == "words":
        return ("xnor", "lookup", "portable")
    return ("lookup", "xnor", "portable")


def chosen_kernel(name: str = "") -> str:
    """Micro-kernel to use: ``name``, else ``FROSTBIT_KERNEL``, else the best one.

    Raises:
        SettingError: (a ValueError) if that is not a known name, or not for this CPU.
    """
    best = available()
    chosen = name or os.environ.get(VARIABLE, "") or best[0]
    if chosen not in best:
        what = f"micro-kernel {name!r}" if name else f"{VARIABLE}={chosen!r}"
        reason = "needs AVX2" if chosen in KERNELS else "is unknown"
        raise SettingError(f"{what} {reason}: use one of {', '.join(best)}")
    return chosen


def available_cores(root: Path = Path("/")) -> int:
    """Cores that this process can keep busy: those it may use, within :func:`cpu_quota`; 1 or more.

    Args:
        root: of the file system that says so.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = cpu_quota(root)
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Cores' worth of time that the control groups of this process allow; None without a limit.

    The least of the group and all around it, by version 2 (``cpu.max``) or 1
    (``cpu.cfs_quota_us``). Source: Linux, Documentation/admin-guide/cgroup-v2.rst and
    Documentation/scheduler/sched-bwc.rst.
    """
    found = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if not controllers:
            mount = root / "sys/fs/cgroup"
        elif "cpu" in controllers.split(","):
            mount = root / "sys/fs/cgroup/cpu"
        else:
            continue
        group = PurePosixPath(path.lstrip("/"))
        for each in (group, *group.parents):
            found += _quota(mount / each)
    return min(found, default=None)


def _quota(group: Path) -> list[float]:
    """The limit that one control group states, if it does."""
    words = _read(group / "cpu.max").split()
    if not words:
        words = [_read(group / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
    try:
        quota, period = map(int, words)
    except ValueError:  # "max", or no such files
        return []
    return [quota / period] if quota > 0 and period > 0 else []


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""
