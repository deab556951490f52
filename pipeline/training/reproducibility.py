"""Device, determinism and the conditions of a run."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.machine import cpu_model, git_commit, versions

DEVICES = ("auto", "cpu", "cuda", "mps")
MOST_THREADS = 8
THREADS_VARIABLE = "FROSTBIT_THREADS"
_PACKAGES = ("torch", "torchvision", "numpy", "numba", "safetensors", "scikit-learn")


def choose_device(name: str) -> torch.device:
    """Device by name; ``auto`` is CUDA, else Apple's MPS, else the CPU. UserError if absent."""
    if name not in DEVICES:
        raise UserError(f"unknown device '{name}'; choose one of {', '.join(DEVICES)}")
    available = {
        "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True,
    }  # fmt: skip
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there))
    if not available[name]:
        raise UserError(
            f"this machine has no {name.upper()} device that torch can use; use --device cpu"
        )
    return torch.device(name)


def require_compiler(device: torch.device) -> None:
    """UserError if torch.compile would find no C++ compiler, which it needs on the CPU."""
    names = (os.environ.get("CXX", "g++"), "clang++")
    if device.type == "cpu" and not any(shutil.which(name) for name in names):
        raise UserError("--compile on the CPU needs a C++ compiler; install g++ or leave it out")


def thread_count() -> int:
    """Threads of torch: ``$FROSTBIT_THREADS``, else the cores this process may use, at most 8.

    Raises:
        UserError: if the variable is not a number from 1 on.
    """
    asked = os.environ.get(THREADS_VARIABLE)
    if asked is not None:
        if not asked.isdecimal() or int(asked) < 1:
            raise UserError(f"{THREADS_VARIABLE} must be a number of threads, not '{asked}'")
        return int(asked)
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(usable or 1, MOST_THREADS)


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Seed torch and make it deterministic inside the block; its settings come back after it.

    TF32 and cuDNN's choice by timing are off, denormal numbers count as 0 and torch uses
    :func:`thread_count` threads (sums depend on it, so it is recorded).
    """
    # cuBLAS reads this when it starts; it has no effect on the CPU.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    debug: Any = torch.utils.deterministic  # its one attribute has no type
    fill = debug.fill_uninitialized_memory
    cudnn = (torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32)
    tf32 = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.set_num_threads(thread_count())
        torch.use_deterministic_algorithms(True)
        # Filling fresh memory with NaN is a debugging aid that costs a pass over every tensor.
        debug.fill_uninitialized_memory = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.set_flush_denormal(True)
        torch.manual_seed(seed)
        yield
    finally:
        torch.set_flush_denormal(False)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = cudnn
        debug.fill_uninitialized_memory = fill
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def conditions(device: torch.device) -> dict[str, Any]:
    """What a reader needs to repeat a run: machine, versions, threads and commit."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "machine": platform.machine(),
        "cpu": cpu_model(),
        "threads": thread_count(),
        "flush_denormal": True,
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), **versions(_PACKAGES)},
    }
