"""``python -m tests.supply.audit``: known vulnerabilities of everything in the locks.

pip-audit asks PyPI's JSON service, or OSV's. A package it could not ask about counts as not
audited, never as good.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tests.supply import LOCKS

NOT_AUDITED = 3


@dataclass(frozen=True)
class Audit:
    """Packages audited, those that could not be, and ``name version: advisory`` lines."""

    audited: int
    skipped: tuple[str, ...]
    known: tuple[str, ...]


def read(document: dict[str, Any]) -> Audit:
    """What pip-audit's JSON says."""
    rows = document["dependencies"]
    skipped = tuple(row["name"] for row in rows if "skip_reason" in row)
    known = tuple(
        f"{row['name']} {row['version']}: {vuln['id']} "
        f"(fixed in {', '.join(vuln['fix_versions']) or 'no version yet'})"
        for row in rows
        for vuln in row.get("vulns", ())
    )
    return Audit(len(rows) - len(skipped), skipped, known)


def audit(lock: Path, osv_url: str | None = None) -> Audit:
    """Ask about every package of ``lock``; ClickException if the service cannot be reached."""
    service = ["-s", "osv", "--osv-url", osv_url] if osv_url else ["-s", "pypi"]
    words = ["-r", str(lock), "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    command = [sys.executable, "-m", "pip_audit", *words, "-f", "json", *service]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        return read(json.loads(done.stdout))
    except ValueError as error:
        lines = done.stderr.strip().splitlines()
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise click.ClickException(f"pip-audit did not answer: {reason}") from error


@click.command()
@click.option("--lock", "chosen", multiple=True, type=click.Choice(list(LOCKS)), help="[all]")
@click.option("--osv-url", help="Ask this OSV service and not PyPI's.")
def main(chosen: tuple[str, ...], osv_url: str | None) -> None:
    """Exit 1: something is known; 3: the service knows nothing of some packages.

    Example: python -m tests.supply.audit --lock base
    """
    status = 0
    for name in chosen or LOCKS:
        found = audit(LOCKS[name], osv_url)
        click.echo(f"{name}: {found.audited} packages audited, {len(found.known)} known problems")
        for line in found.known:
            click.echo(f"  {line}")
        if found.skipped:
            some = ", ".join(found.skipped[:4])
            click.echo(
                f"  {len(found.skipped)} NOT audited ({some}, ...): the advisory service does not "
                "answer for them here; run it where PyPI's JSON service is reachable"
            )
        status = 1 if found.known else status or (NOT_AUDITED if found.skipped else 0)
    sys.exit(status)


if __name__ == "__main__":
    main()
