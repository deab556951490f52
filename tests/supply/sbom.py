"""``python -m tests.supply.sbom``: a CycloneDX bill of materials of every extra, from its lock.

Made of the locks alone, so it is the same on every machine: no path, no time, no serial number.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from frostbit.export.version import VERSION
from frostbit.pipeline.run.folder import write_bytes
from tests.supply import EXTRAS, LOCKS, ROOT


def build(extra: str) -> bytes:
    """The document for one extra, as JSON."""
    tool = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements"]
    project = ["--pyproject", str(ROOT / "pyproject.toml"), "--output-reproducible"]
    done = subprocess.run(
        [*tool, str(LOCKS[extra]), *project, "--of", "JSON", "-o", "-"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    document = json.loads(done.stdout)
    document["metadata"]["component"]["version"] = VERSION  # not in pyproject.toml
    return (json.dumps(document, indent=2) + "\n").encode()


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=ROOT / "dist")
def main(out: Path) -> None:
    """Write sbom-EXTRA.json for the base, export, train and dev installs.

    Example: python -m tests.supply.sbom --out dist
    """
    out.mkdir(parents=True, exist_ok=True)
    for extra in EXTRAS:
        data = build(extra)
        write_bytes(out / f"sbom-{extra}.json", data)
        count = len(json.loads(data)["components"])
        click.echo(f"wrote {out / f'sbom-{extra}.json'} ({count} components)")


if __name__ == "__main__":
    main()
