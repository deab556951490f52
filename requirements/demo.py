"""Installs what ``make demo`` runs: the locked packages of ``train.txt``, without test tools.

``python requirements/demo.py PYTHON`` installs into the environment of that interpreter. Where
there is no NVIDIA driver, torch is the CPU build of the same version, which uv knows where to find;
its files have other hashes than PyPI's, so only its version is pinned. Where that build cannot be
had, torch is PyPI's, with hashes. triton is left out: only ``--compile`` on a GPU uses it.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

LOCKS = Path(__file__).parent
TORCH = ("torch", "torchvision")
OF_CUDA = re.compile(r"(nvidia|cuda)-")
LEFT_OUT = "triton"
DRIVER = Path("/proc/driver/nvidia/version")


def pinned(lock: Path) -> dict[str, list[str]]:
    """Every package of a lock file with its lines: a pin for each kind of machine, and hashes."""
    found: dict[str, list[str]] = {}
    name = ""
    for line in lock.read_text("utf-8").splitlines():
        if line and not line.startswith((" ", "#")):
            name = line.partition("==")[0]
        if name:
            found.setdefault(name, []).append(line)
    return found


def parts(locked: dict[str, list[str]]) -> tuple[list[str], list[str]]:
    """Names of the packages besides torch, and of torch with the libraries of its CUDA build."""
    torch = [name for name in locked if name in TORCH or OF_CUDA.match(name)]
    rest = [name for name in locked if name not in (*torch, LEFT_OUT)]
    return rest, torch


def has_driver() -> bool:
    """Whether there is an NVIDIA driver that a CUDA build could use."""
    return DRIVER.exists() or shutil.which("nvidia-smi") is not None


def install(python: str, lines: list[str], *options: str) -> None:
    """Give these lines of a lock to pip, hashes and all."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write("\n".join(lines) + "\n")
        file.flush()
        command = [python, "-m", "pip", "install", "--no-compile", "--no-deps", "--require-hashes"]
        subprocess.run([*command, *options, "-r", file.name], check=True)


def cpu_torch(python: str, torch_lines: list[str], uv_lines: list[str]) -> bool:
    """Install the CPU build of torch if there is one for this machine and index."""
    with tempfile.TemporaryDirectory() as folder:
        install(python, uv_lines, "--quiet", "--target", folder)
        pins = Path(folder) / "torch.txt"
        pins.write_text("\n".join(line.rstrip("\\") for line in torch_lines if "==" in line))
        uv = [str(Path(folder) / "bin" / "uv"), "pip", "install", "--python", python, "--no-deps"]
        return subprocess.run([*uv, "--torch-backend=cpu", "-r", str(pins)]).returncode == 0


def main(python: str) -> None:
    """Everything but torch, then torch."""
    locked, tools = pinned(LOCKS / "train.txt"), pinned(LOCKS / "dev.txt")
    locked["setuptools"] = tools["setuptools"]  # which installs the checkout itself
    rest, torch = parts(locked)
    install(python, [line for name in rest for line in locked[name]])
    if not has_driver():
        if cpu_torch(python, [line for name in TORCH for line in locked[name]], tools["uv"]):
            return
        print("torch's CPU build cannot be had here; PyPI's, with CUDA libraries, comes instead")
    install(python, [line for name in torch for line in locked[name]])


if __name__ == "__main__":
    main(sys.argv[1])
