"""What machine this is, for the conditions of every record."""

from __future__ import annotations

import platform
from pathlib import Path


def cpu_model() -> str:
    """Name of the processor, as Linux has it."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
