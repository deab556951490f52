"""``python -m tests.figures`` (``make records``): the programs that make records and pictures."""

from __future__ import annotations

import ast
from pathlib import Path

import click


def programs() -> dict[str, str]:
    """Each program of this folder by its command, with the first line of its docstring."""
    found = {}
    for path in sorted(Path(__file__).parent.glob("*.py")):
        text = path.read_text("utf-8")
        if path.stem != "__main__" and 'if __name__ == "__main__":' in text:
            line = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
            found[f"python -m tests.figures.{path.stem}"] = line.partition(": ``python")[0]
    return found


def main() -> None:
    """Print the list; each program's ``--help`` has its options and an example."""
    commands = programs()
    width = max(map(len, commands))
    for command, purpose in commands.items():
        click.echo(f"{command:{width}}  {purpose}")
    click.echo("Records go to pipeline/records, pictures to docs. Time nothing beside other work.")


if __name__ == "__main__":
    main()
