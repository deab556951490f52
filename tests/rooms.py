"""The rooms of the three packages and the imports between them, read from the code.

A room is a folder with modules; a module beside the rooms of its package is a room of its own.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

PACKAGES = ("kernels", "export", "pipeline")


def modules(root: Path = ROOT) -> dict[str, Path]:
    """Every module by its name without ``frostbit.``, packages by the name of their folder."""
    found = {}
    for package in PACKAGES:
        for path in (root / package).rglob("*.py"):
            parts = path.relative_to(root).with_suffix("").parts
            found[".".join(parts[:-1] if path.stem == "__init__" else parts)] = path
    return found


def room_of(module: str, known: dict[str, Path]) -> str:
    """The room in which ``module`` is."""
    is_room = known[module].stem == "__init__" or module.count(".") == 1
    return module if is_room else module.rpartition(".")[0]


def imports(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports, function bodies included; "." if relative."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                yield "."
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(root: Path = ROOT) -> dict[str, set[str]]:
    """For each room, the rooms from which it imports."""
    known, found = modules(root), defaultdict[str, set[str]](set)
    for module, path in known.items():
        room = room_of(module, known)
        found[room] |= set()
        for name in imports(path):
            target = name.removeprefix("frostbit.")
            if target not in known:  # the last part is a name in a module, or all is another's
                target = target.rpartition(".")[0]
            if name.startswith("frostbit.") and target in known:
                found[room] |= {room_of(target, known)} - {room}
    return dict(found)


def purpose(room: str, known: dict[str, Path]) -> str:
    """First sentence of the room's docstring."""
    text = ast.get_docstring(ast.parse(known[room].read_text("utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ")
