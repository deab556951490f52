"""``pipeline bench --remote user@host``: a bundle over ssh, its result brought back.

The system's ``ssh`` and ``scp`` do the work, so keys, ports and jump hosts come from ssh's own
configuration. On the other machine everything happens in one temporary folder, which is removed.
Where its Python lacks a package of the base install, a virtual environment is made there with pip.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from frostbit.kernels.ir.output import write_file
from frostbit.pipeline import json_file
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import JsonError

_TARGET = re.compile(r"([A-Za-z0-9_][A-Za-z0-9._-]*@)?[A-Za-z0-9_][A-Za-z0-9._-]*")
_FOLDER = re.compile(r"/[A-Za-z0-9._/-]+")
_NEEDED = "import click, msgspec, numba, numpy, rich, safetensors"
SECONDS = 3600


@dataclass(frozen=True)
class Remote:
    """Another machine.

    Attributes:
        target: ``host`` or ``user@host``, as ssh knows it.
        python: interpreter there.
        config: ssh configuration file, None for the user's own.
    """

    target: str
    python: str = "python3"
    config: Path | None = None

    def __post_init__(self) -> None:
        if not _TARGET.fullmatch(self.target):
            raise UserError(f"'{self.target}' is no host; give host or user@host, as for ssh")

    def _options(self) -> list[str]:
        config = ["-F", str(self.config)] if self.config is not None else []
        return ["-o", "BatchMode=yes", *config]

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command there; every word is quoted.

        Raises:
            UserError: ssh is missing, cannot connect, or (with ``check``) the command fails.
        """
        return self._call(["ssh", *self._options(), "--", self.target, shlex.join(words)], check)

    def copy(self, source: str, target: str) -> None:
        """Copy a file; a name there is ``self.at(path)``."""
        self._call(["scp", "-q", *self._options(), "--", source, target], True)

    def at(self, path: str) -> str:
        """``path`` on the other machine, for scp."""
        return f"{self.target}:{path}"

    def _call(self, command: list[str], check: bool) -> subprocess.CompletedProcess[str]:
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except FileNotFoundError as error:
            raise UserError(f"{command[0]} is not installed; install OpenSSH's client") from error
        except subprocess.TimeoutExpired as error:
            raise UserError(f"no answer from {self.target} within {SECONDS} s") from error
        if done.returncode == 255 or (check and done.returncode):
            lines = (done.stderr or done.stdout).strip().splitlines()
            reason = lines[-1] if lines else f"exit status {done.returncode}"
            raise UserError(f"{self.target}: {reason}")
        return done


def bench(remote: Remote, bundle: bytes, arguments: list[str]) -> tuple[dict[str, Any], str]:
    """Run a bundle on another machine.

    Args:
        remote: where.
        bundle: from :func:`frostbit.pipeline.device.bundle.build`.
        arguments: of ``check.py``.

    Returns:
        The JSON that ``check.py`` wrote, and what it printed.

    Raises:
        UserError: no connection, or something failed there; the last line says what.
    """
    folder = remote.run("mktemp", "-d").stdout.strip()
    if not _FOLDER.fullmatch(folder):
        raise UserError(f"{remote.target} has no usable temporary folder: '{folder}'")
    try:
        return _bench(remote, folder, bundle, arguments)
    finally:
        remote.run("rm", "-rf", folder, check=False)


def _bench(
    remote: Remote, folder: str, bundle: bytes, arguments: list[str]
) -> tuple[dict[str, Any], str]:
    with tempfile.TemporaryDirectory() as here:
        archive, result = Path(here) / "bundle.zip", Path(here) / "result.json"
        write_file(archive, bundle)
        remote.copy(str(archive), remote.at(f"{folder}/bundle.zip"))
        remote.run(remote.python, "-m", "zipfile", "-e", f"{folder}/bundle.zip", folder)
        python, path = _environment(remote, folder)
        check = ["env", f"PYTHONPATH={path}", python, f"{folder}/check.py", "--folder", folder]
        out = f"{folder}/result.json"
        done = remote.run(*check, "--json", out, *arguments, check=False)
        if done.returncode not in (0, 1) or "Error" in done.stderr:
            raise UserError(f"{remote.target}: {(done.stderr or done.stdout).strip()[-300:]}")
        remote.copy(remote.at(out), str(result))
        return _result(result, remote.target), done.stdout


class _Result(Struct):
    passed: bool


def _result(path: Path, target: str) -> dict[str, Any]:
    try:
        return json_file.document(json_file.read_bytes(path), _Result)
    except JsonError as error:
        raise UserError(f"{target} sent back no result ({error}); measure it again") from error


def _environment(remote: Remote, folder: str) -> tuple[str, str]:
    """Interpreter and PYTHONPATH with which the bundle runs there."""
    wheel = remote.run("sh", "-c", f"ls {shlex.quote(folder)}/*.whl").stdout.strip()
    library = f"{folder}/lib"
    if remote.run(remote.python, "-c", _NEEDED, check=False).returncode == 0:
        remote.run(remote.python, "-m", "zipfile", "-e", wheel, library)
        return remote.python, library
    remote.run(remote.python, "-m", "venv", f"{folder}/venv")
    remote.run(f"{folder}/venv/bin/python", "-m", "pip", "install", "-q", wheel)
    return f"{folder}/venv/bin/python", ""
