"""Other people's networks made, read, compared and timed: ``python -m tests.zoo``.

Each network's row is kept under ``results`` of the folder as soon as it is there, so that a run
which ended early goes on with ``--resume``; the record holds the rows of all networks.
"""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.table import Table

from frostbit.pipeline.bench import conditions
from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.machine import git_commit
from frostbit.pipeline.run.folder import write_bytes
from tests.zoo.files import made_files
from tests.zoo.made import recipe_hash
from tests.zoo.networks import NETWORKS, Network, chosen
from tests.zoo.results import Row, row

PROBLEMS = ("refused", "differs", "engine_refuses")
"""Of a row: why there is no more of it."""
NAMES = click.Choice([network.name for network in NETWORKS])


def as_expected(network: Network, found: Row) -> bool:
    """Whether it was read and agrees, or is refused as the list says."""
    if network.refused:
        return network.refused in str(found.get("refused", ""))
    return not any(problem in found for problem in PROBLEMS) and bool(found["engine"]["passed"])


class Kept:
    """Rows of earlier runs, one file each, with what they are of."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "results"
        self._folder.mkdir(parents=True, exist_ok=True)

    def write(self, network: Network, found: Row) -> None:
        """Keep a row."""
        document = {"recipe": recipe_hash(network), "commit": git_commit(), **found}
        text = json.dumps(document, indent=1) + "\n"
        write_bytes(self._folder / f"{network.name}.json", text.encode())

    def read(self, network: Network) -> Row | None:
        """The row of today's recipe, None without one."""
        path = self._folder / f"{network.name}.json"
        document: Row = json.loads(path.read_text()) if path.exists() else {}
        return document if document.get("recipe") == recipe_hash(network) else None

    def is_done(self, network: Network, timed: bool) -> bool:
        """Whether there is a row of this commit, with times if they are wanted."""
        found = self.read(network)
        if found is None or found["commit"] != git_commit():
            return False
        return not timed or any(key in found for key in ("milliseconds", *PROBLEMS))


def table(rows: list[Row]) -> Table:
    """The rows as a person reads them."""
    shown = Table(title="other people's networks", title_justify="left")
    for title in ("network", "read", "answers within", "engine ms", "times LCE's best"):
        shown.add_column(title, justify="left" if title in ("network", "read") else "right")
    for each in rows:
        problems = [str(each[problem]) for problem in PROBLEMS if problem in each]
        if problems:
            shown.add_row(str(each["network"]), *problems, "", "", "")
            continue
        times, ratio = each.get("milliseconds", {}), each.get("engine_over_best")
        medians = [f"{each['median']:.2f}" for name, each in times.items() if "engine" in name]
        speed = f"{ratio['value']:.1f} ({ratio['low']:.1f} to {ratio['high']:.1f})" if ratio else ""
        compared = each["compared"]
        read = f"{each['seconds_to_read']:.2f} s, {compared['flips']} flips"
        cells = (read, f"{compared['answers']:.1e}", "".join(medians), speed)
        shown.add_row(str(each["network"]), *cells)
    return shown


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=".cache/zoo", show_default=True)
@click.option("--only", multiple=True, type=NAMES, metavar="NAME", help="Of the list.  [all]")
@click.option("--rounds", type=click.IntRange(6), default=20, show_default=True, help="Of timing.")
@click.option("--no-bench", is_flag=True, help="Time nothing.")
@click.option("--resume", is_flag=True, help="Leave out what this commit did already.")
@click.option("--json", "json_file", type=FILE, help="Also write the rows of all networks here.")
def main(
    folder: Path, only: tuple[str, ...], rounds: int, no_bench: bool, resume: bool,
    json_file: Path | None,
) -> None:  # fmt: skip
    """Make, read, compare and time other people's networks.

    Example: python -m tests.zoo --only QuickNet --no-bench
    """
    networks, kept, bars = chosen(only), Kept(folder), progress()
    files = made_files(networks, folder)
    for network in networks:
        if not (resume and kept.is_done(network, not no_bench)):
            kept.write(network, row(network, files, 0 if no_bench else rounds, bars))
    rows = {network: kept.read(network) for network in NETWORKS}
    found = {network: each for network, each in rows.items() if each is not None}
    terminal().print(table([found[network] for network in networks]))
    if json_file is not None:
        command = f"python -m tests.zoo --rounds {rounds}" + " --no-bench" * no_bench
        document = {
            "command": command,
            "conditions": conditions.conditions(),
            "networks": list(found.values()),
        }
        write_bytes(json_file, (json.dumps(document, indent=1) + "\n").encode())
    wrong = [network.name for network in networks if not as_expected(network, found[network])]
    if wrong:
        raise click.ClickException(f"not as the list says: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
