"""What machine this is, for the conditions of every record. What cannot be read is left out."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

ROOT = Path("/")
PACKAGES = ("frostbit", "numpy", "numba", "llvmlite", "onnxruntime", "torch", "onnx")
_THERMAL = "sys/class/thermal"
_CPU0 = "sys/devices/system/cpu/cpu0"


def cpu_model(root: Path = ROOT) -> str:
    """Name of the processor, as Linux has it; on ARM boards the board's name."""
    board = _read(root / "proc/device-tree/model").strip("\0\n ")
    return _cpuinfo(root, "model name") or board or platform.processor() or platform.machine()


def _cpuinfo(root: Path, key: str) -> str:
    """First value of ``key`` in /proc/cpuinfo, "" if there is none."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        if line.startswith(key):
            return line.partition(":")[2].strip()
    return ""


def sensors(root: Path = ROOT) -> dict[str, object]:
    """Clock, temperature and throttling right now, as far as this machine tells.

    Keys: ``governor``, ``mhz``, ``celsius`` (hottest zone), ``throttled`` (events counted since
    boot, x86, or whether a cooling device is at work), ``steal`` (seconds that other guests of
    the host took).
    """
    found: dict[str, object] = {}
    governor = _read(root / _CPU0 / "cpufreq/scaling_governor").strip()
    if governor:
        found["governor"] = governor
    frequency = _number(root / _CPU0 / "cpufreq/scaling_cur_freq")
    told = _cpuinfo(root, "cpu MHz")
    if frequency is not None:
        found["mhz"] = frequency / 1000
    elif told:
        found["mhz"] = float(told)
    zones = [_number(path) for path in sorted((root / _THERMAL).glob("thermal_zone*/temp"))]
    known = [zone for zone in zones if zone is not None]
    if known:
        found["celsius"] = max(known) / 1000
    throttled = _throttled(root)
    if throttled is not None:
        found["throttled"] = throttled
    for line in _read(root / "proc/stat").splitlines()[:1]:
        found["steal"] = int(line.split()[8]) / os.sysconf("SC_CLK_TCK")
    return found


def _throttled(root: Path) -> int | None:
    counts = [
        _number(path)
        for path in (
            root / _CPU0 / "thermal_throttle/core_throttle_count",
            *sorted((root / _THERMAL).glob("cooling_device*/cur_state")),
        )
    ]
    known = [int(count) for count in counts if count is not None]
    return sum(known) if known else None


def affinity() -> list[int] | None:
    """The CPUs this process may use; None where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def versions(packages: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of those of ``packages`` that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """Commit of the source tree this package runs from; None outside a git checkout.

    ``COMMIT+changes`` where tracked files differ from it.
    """
    commit = _git("rev-parse", "--verify", "HEAD")
    if not commit:
        return None
    return f"{commit}+changes" if _git("status", "--porcelain", "--untracked-files=no") else commit


def _git(*words: str) -> str:
    command = ["git", "-C", str(Path(__file__).resolve().parent), *words]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return result.stdout.strip()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _number(path: Path) -> float | None:
    try:
        return float(_read(path))
    except ValueError:
        return None
