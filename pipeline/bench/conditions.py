"""Where and how a benchmark ran: what a reader needs to judge its figures, and a new process.

A cold start is a fresh process from its start to the engine's first logits, its code compiled
before. It imports nothing but the engine, so its peak memory is what a device needs; that of
the benchmark's own process holds every runtime at once.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import llvmlite.binding as llvm

from frostbit.export.lce import environment as lce_environment
from frostbit.kernels.machine import cpu
from frostbit.pipeline import machine

FEATURES = ("avx2", "avx512bw", "avx512vpopcntdq", "avx512bitalg", "avx512vnni", "neon", "dotprod")
COLD_STARTS = 3
STOLEN = 0.01
"""Share of the time that other guests of the host may take before a line says so."""
COLD_START = """
import json, sys
import numpy as np
from frostbit.kernels import load
engine = load(sys.argv[1])
dtype = np.uint8 if engine.program.input_kind == "u8" else np.float32
engine.run(np.zeros((1, *engine.input_shape), dtype))
try:
    lines = open("/proc/self/status").read().splitlines()
    kib = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")][0]
except (OSError, IndexError):
    kib = None
print(json.dumps(kib))
"""


def conditions() -> dict[str, Any]:
    """Machine, system, versions and commit of this process."""
    versions = machine.versions()
    pinned = lce_environment.version()
    return {
        "cpu": machine.cpu_model(),
        "cpu_features": cpu_features(),
        "cores": os.cpu_count(),
        "affinity": machine.affinity(),
        "cpu_quota": cpu.cpu_quota(),
        "available_cores": cpu.available_cores(),
        "machine": platform.machine(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {**versions, **({"larq-compute-engine": pinned} if pinned else {})},
        "commit": machine.git_commit(),
    }


def cpu_features() -> list[str]:
    """Those of :data:`FEATURES` that this CPU has."""
    host = llvm.get_host_cpu_features()
    return [name for name in FEATURES if host.get(name)]


def cold_start(model: Path) -> dict[str, Any]:
    """Seconds of fresh processes to the engine's first result, and their peak memory in MiB."""
    seconds, peaks = [], []
    for _ in range(COLD_STARTS):
        start = time.perf_counter()
        command = [sys.executable, "-P", "-c", COLD_START, str(model)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds.append(round(time.perf_counter() - start, 3))
        peak = json.loads(done.stdout)
        peaks += [] if peak is None else [peak / 1024]
    found: dict[str, Any] = {"cold_start_s": seconds}
    return {**found, **({"engine_peak_rss_mib": round(max(peaks), 1)} if peaks else {})}


def warnings(facts: Mapping[str, Any]) -> list[str]:
    """What the machine did while a benchmark ran that its reader should know."""
    before, after = facts["sensors"]["before"], facts["sensors"]["after"]
    lines = []
    governor = after.get("governor", "performance")
    if governor != "performance":
        lines.append(f"CPU governor '{governor}': the clock may change; 'performance' is steadier")
    if after.get("throttled", 0) > before.get("throttled", 0):
        lines.append("the CPU was throttled while this ran; cool it and measure again")
    stolen = (after.get("steal", 0.0) - before.get("steal", 0.0)) / facts["measured_s"]
    if stolen > STOLEN:
        lines.append(f"other guests of the host took {100 * stolen:.0f} % of a core's time")
    return lines


def threads_text(counts: Sequence[int]) -> str:
    """Numbers of threads in words."""
    return f"{', '.join(map(str, counts))} thread{'s' * (max(counts) > 1)}"


def cores_line(facts: Mapping[str, Any]) -> str:
    """How many cores a benchmark really had, and why."""
    count, quota = facts["available_cores"], facts["cpu_quota"]
    cpus = ", ".join(map(str, facts["affinity"] or [])) or "not known"
    limit = "no quota" if quota is None else f"a quota of {quota:g}"
    return (
        f"{count} core{'s' * (count > 1)} to use of the machine's {facts['cores']}: CPUs {cpus}, "
        f"{limit} of the control group"
    )


def lines(facts: Mapping[str, Any]) -> list[str]:
    """The conditions in short, as they stand under the table of a benchmark."""
    sensors = facts["sensors"]["after"]
    told = [f"{sensors['mhz']:.0f} MHz" if "mhz" in sensors else ""]
    told += [f"{sensors['celsius']:.0f} degrees C" if "celsius" in sensors else ""]
    where = [facts["cpu"], ", ".join(facts["cpu_features"]), *told]
    memory = f"peak memory of this process {facts['peak_rss_mib']:.0f} MiB"
    found = [
        f"on {'; '.join(part for part in where if part)}",
        cores_line(facts),
        f"{threads_text(facts['thread_counts'])}, {facts['rounds']} rounds, {memory}",
    ]
    if "cold_start_s" in facts:
        peak = facts.get("engine_peak_rss_mib")
        text = f"engine alone: first logits {min(facts['cold_start_s']):.2f} s after start"
        found.append(text + (f", peak memory {peak:.0f} MiB" if peak else ""))
    return found
