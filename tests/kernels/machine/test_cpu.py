"""How many cores there are: affinity, and the quotas of control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from frostbit.kernels.machine.cpu import available_cores, cpu_quota

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def written(root: Path, files: dict[str, str]) -> Path:
    """A file system at ``root`` with ``files``."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_a_system_that_says_nothing(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
    assert available_cores(tmp_path) == CORES


def test_version_2_and_the_least_of_all_groups_around(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a b/c\n",
        "sys/fs/cgroup/cpu.max": "max 100000\n",
        "sys/fs/cgroup/a b/cpu.max": "50000 100000\n",
        "sys/fs/cgroup/a b/c/cpu.max": "400000 100000\n",
    }
    assert cpu_quota(written(tmp_path, files)) == 0.5
    assert available_cores(tmp_path) == 1


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("250000", 2.5), ("junk", None)])
def test_version_1(tmp_path: Path, quota: str, expected: float | None) -> None:
    group = "sys/fs/cgroup/cpu/job"
    files = {
        "proc/self/cgroup": "5:cpuset:/\n4:cpu,cpuacct:/job\n0::/\n",
        f"{group}/cpu.cfs_quota_us": f"{quota}\n",
        f"{group}/cpu.cfs_period_us": "100000\n",
    }
    assert cpu_quota(written(tmp_path, files)) == expected
    assert available_cores(tmp_path) == min(CORES, int(expected or CORES))
