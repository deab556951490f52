"""``python -m tests.figures`` (``make records``): the programs that make records and pictures."""

from __future__ import annotations

import ast
from pathlib import Path

import click

HERE = Path(__file__).parent
ZOO = HERE.parent / "zoo" / "__main__.py"


def programs() -> dict[str, str]:
    """Each program by its command, with the first line of its docstring."""
    found = {}
    for path in (*sorted(HERE.glob("*.py")), ZOO):
        text = path.read_text("utf-8")
        if path != Path(__file__) and 'if __name__ == "__main__":' in text:
            line = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
            name = f"figures.{path.stem}" if path.parent == HERE else path.parent.name
            found[f"python -m tests.{name}"] = line.partition(": ``python")[0]
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
