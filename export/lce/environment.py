"""Larq Compute Engine's own small Python environment: where it is, and how it is made.

LCE cannot live beside numpy 2, so it gets a virtual environment of its own with the pinned,
hash-checked packages of ``requirements.txt`` (288 MB). It stands in ``$FROSTBIT_LCE`` or,
by default, in the user's cache folder under a name derived from the pins. It is built in a
temporary folder beside the final one and renamed when complete, so that a folder under the
final name always works; ``python`` finds its packages relative to itself and survives that.

>>> python -m frostbit.export.lce.environment            # where it is
>>> python -m frostbit.export.lce.environment --install  # make it (once)
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from frostbit.export.errors import RuntimeMissing
from frostbit.kernels.ir.output import write_file

VARIABLE = "FROSTBIT_LCE"
REQUIREMENTS = Path(__file__).with_name("requirements.txt")
MARKER = "frostbit-lce.sha256"
PYTHONS = ((3, 12), (3, 11), (3, 10))
REMEDY = "run: pipeline doctor --install-lce"
NO_WHEEL = (
    "Larq Compute Engine has no Python wheel for {platform} that Frostbit pins (Linux x86_64, "
    "Python 3.10 to 3.12); run our .tflite there with LCE's own lce_benchmark_model binary"
)


def requirements_hash() -> str:
    """SHA-256 (hex) of the pinned packages."""
    return hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()


def folder() -> Path:
    """Where the environment belongs: ``$FROSTBIT_LCE``, else the user's cache folder."""
    chosen = os.environ.get(VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "frostbit" / f"lce-{requirements_hash()[:12]}"


def lce_python() -> Path | None:
    """Python of a complete environment with today's pins, or None."""
    root = folder()
    python = root / "bin" / "python"
    try:
        complete = (root / MARKER).read_text().strip() == requirements_hash()
    except OSError:
        return None
    return python if complete and python.exists() else None


def version() -> str | None:
    """Version of LCE that is pinned, if its environment is here."""
    pin = next(line for line in REQUIREMENTS.read_text().splitlines() if "larq-compute" in line)
    return pin.split("==")[1].split()[0] if lce_python() is not None else None


def require_python() -> Path:
    """Like :func:`lce_python`, but raises RuntimeMissing with the remedy."""
    python = lce_python()
    if python is None:
        check_platform()
        raise RuntimeMissing(f"Larq Compute Engine's environment is not in {folder()}; {REMEDY}")
    return python


def check_platform() -> None:
    """Raise RuntimeMissing where LCE has no wheel that we pin."""
    machine = (sys.platform, platform.machine())
    if machine != ("linux", "x86_64"):
        raise RuntimeMissing(NO_WHEEL.format(platform=" ".join(machine)))


def _base_python() -> str:
    """This Python if LCE has a wheel for it, else another one on the PATH."""
    if sys.version_info[:2] in PYTHONS:
        return sys.executable
    for major, minor in PYTHONS:
        found = shutil.which(f"python{major}.{minor}")
        if found:
            return found
    raise RuntimeMissing(NO_WHEEL.format(platform=f"Python {platform.python_version()}"))


def _run(command: list[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        errors = [line for line in lines if "ERROR" in line.upper()]
        reason = (*errors, *lines, "no message")[0]
        raise RuntimeMissing(f"could not {what} ({reason.strip()}); mend that and {REMEDY}")


def _build(root: Path, base: str) -> None:
    """Make the environment in the new folder ``root``."""
    _run([base, "-m", "venv", str(root)], "make LCE's virtual environment")
    pip = [str(root / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input"]
    pinned = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "-r", str(REQUIREMENTS)]
    _run([*pip, "--disable-pip-version-check", *pinned], "install LCE's packages")


def install(echo: Callable[[str], None] = print) -> Path:
    """Make the environment unless it is there already; returns its Python.

    Args:
        echo: called with one line per step.

    Raises:
        RuntimeMissing: on a platform without a wheel, when a step fails, or when the folder
            cannot be written or holds something else; nothing is left behind.
    """
    present = lce_python()
    if present is not None:
        echo(f"Larq Compute Engine is ready in {folder()}")
        return present
    check_platform()
    base, root = _base_python(), folder()
    if root.exists() and not (root / MARKER).exists() and (root.is_file() or any(root.iterdir())):
        raise RuntimeMissing(f"{root} holds something else; empty it or set {VARIABLE}")
    echo(f"installing Larq Compute Engine (about 75 MB to fetch) into {root}")
    try:
        _build_and_move(root, base)
    except OSError as error:
        raise RuntimeMissing(
            f"cannot write {root} ({error}); mend that or set {VARIABLE}"
        ) from error
    return require_python()


def _build_and_move(root: Path, base: str) -> None:
    root.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=root.parent))
    try:
        built = draft / "env"  # inside, so that it gets the usual permissions
        _build(built, base)
        write_file(built / MARKER, f"{requirements_hash()}\n".encode())
        if (root / MARKER).exists():  # ours, of older pins
            shutil.rmtree(root)
        built.rename(root)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def main(arguments: list[str] | None = None) -> int:
    """Command line: print where the environment is, or make it; 1 if absent, 2 on failure."""
    parser = argparse.ArgumentParser(
        prog="python -m frostbit.export.lce.environment", description=main.__doc__
    )
    parser.add_argument("--install", action="store_true", help="make it if it is absent")
    try:
        options = parser.parse_args(arguments)
        print(install() if options.install else require_python())
    except RuntimeMissing as missing:
        print(missing, file=sys.stderr)
        return 2 if options.install else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
