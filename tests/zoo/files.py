"""The files of the list, made by their makers' own tools where they are not there yet."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import click

from tests import ROOT
from tests.zoo.made import is_made
from tests.zoo.networks import Network

AT_ONCE = 2
"""Jobs beside each other; each takes one core."""
ONE_THREAD = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONWARNINGS": "ignore",
}


@dataclass(frozen=True)
class Job:
    """What one process makes: the makers it serves, and its program."""

    makers: tuple[str, ...]
    module: str


JOBS = (
    Job(("larq_zoo",), "tests.zoo.make_larq"),
    Job(("keras", "int8"), "tests.zoo.make_larq"),
    Job(("brevitas",), "tests.zoo.make_brevitas"),
)


def made_files(networks: Sequence[Network], folder: Path) -> Path:
    """The folder of the networks' files, all of them made; the environments too.

    Raises:
        click.ClickException: an environment or a network could not be made; the text names the log.
    """
    files = folder / "files"
    files.mkdir(parents=True, exist_ok=True)
    missing = [network for network in networks if not is_made(files, network)]
    if missing:
        environments = [str(Path(__file__).with_name("environments.sh")), str(folder)]
        if subprocess.run([*environments, sys.executable], cwd=ROOT, check=False).returncode:
            raise click.ClickException("an environment could not be installed; pip says why above")
        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(lambda job: _run(job, missing, folder, files), JOBS))
    return files


def _run(job: Job, missing: Sequence[Network], folder: Path, files: Path) -> None:
    """Make what is missing of one job, with a line for each network."""
    names = [network.name for network in missing if network.maker in job.makers]
    if not names:
        return
    python, environment = str(folder.absolute() / "larq" / "bin" / "python"), {**os.environ}
    environment.pop("PYTHONPATH", None)
    if job.makers == ("brevitas",):
        python = sys.executable
        environment["PYTHONPATH"] = str(folder.absolute() / "brevitas")
    log = folder / f"make-{job.makers[0]}.log"
    with log.open("w") as said:
        command = [python, "-m", job.module, str(files.absolute()), *names]
        with subprocess.Popen(
            command, cwd=ROOT, env={**environment, **ONE_THREAD}, text=True,
            stdout=subprocess.PIPE, stderr=said,
        ) as process:  # fmt: skip
            for line in process.stdout or ():
                if line.strip() in names:  # TensorFlow and torch print on this stream too
                    click.echo(f"made {line.strip()}")
    if process.returncode:
        raise click.ClickException(f"a network could not be made; see the end of {log}")
