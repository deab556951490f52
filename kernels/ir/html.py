"""Small HTML tables: what a notebook shows of an object."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

SHOWN = 8
"""Names shown of a list."""


def table(title: str, rows: Sequence[Sequence[object]], head: Sequence[str] = ()) -> str:
    """A table with a caption; every text is escaped.

    Args:
        title: the caption.
        rows: cells; without ``head`` the first of a row says what the others are.
        head: names of the columns.
    """
    lines = [f"<table><caption><b>{escape(title)}</b></caption>"]
    if head:
        lines.append(f"<tr>{_cells('th', head)}</tr>")
    for row in rows:
        first = _cells("td" if head else "th", row[:1])
        lines.append(f"<tr>{first}{_cells('td', row[1:])}</tr>")
    return "\n".join([*lines, "</table>"])


def _cells(tag: str, cells: Sequence[object]) -> str:
    return "".join(f"<{tag}>{escape(str(each))}</{tag}>" for each in cells)


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more:,} more" if more > 0 else "")
