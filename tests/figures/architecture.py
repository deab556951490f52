"""Picture of the rooms and of the imports between them: ``python -m tests.figures.architecture``.

Read from the code (:mod:`tests.rooms`). An import that follows from two drawn ones is not drawn.
"""

from __future__ import annotations

import textwrap
from functools import cache
from pathlib import Path

import click
import matplotlib
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from frostbit.pipeline.cli.options import FILE
from tests import ROOT
from tests.rooms import PACKAGES, arrows, modules, purpose, room_of

PICTURE = ROOT / "docs" / "architecture.png"
FILL = {"pipeline": "#e8f0fb", "export": "#fdf1e0", "kernels": "#e7f5ea"}
EDGE = {"pipeline": "#2f5f9e", "export": "#b36b00", "kernels": "#2c7a43"}
BOX = (3.5, 1.16)
STEP = (3.8, 1.75)
Place = tuple[float, float]


def reduced(found: dict[str, set[str]]) -> dict[str, set[str]]:
    """Without each arrow whose end is reached by a longer way too (no circles are given)."""

    @cache
    def reached(room: str) -> frozenset[str]:
        return frozenset(found[room]).union(*(reached(below) for below in found[room]))

    return {
        room: {b for b in below if not any(b in reached(other) for other in below - {b})}
        for room, below in found.items()
    }


def floors(rooms: list[str], found: dict[str, set[str]]) -> list[list[str]]:
    """The rooms of one package, topmost floor first: each above all from which it imports."""

    @cache
    def height(room: str) -> int:
        return 1 + max((height(b) for b in found[room] if b in rooms), default=-1)

    heights = {room: height(room) for room in rooms}
    return [
        sorted(room for room in rooms if heights[room] == level)
        for level in range(max(heights.values()), -1, -1)
    ]


def places(found: dict[str, set[str]]) -> dict[str, Place]:
    """Middle of each room's box; the packages stand above one another."""
    result: dict[str, Place] = {}
    row = 0.0
    for package in reversed(PACKAGES):
        rooms = [room for room in found if room.startswith(f"{package}.")]
        for floor in floors(rooms, found):
            left = -(len(floor) - 1) / 2
            result |= {room: ((left + i) * STEP[0], -row) for i, room in enumerate(floor)}
            row += STEP[1]
        row += 0.5
    return result


def _box(axes: Axes, room: str, place: Place, text: str, count: int) -> None:
    package = room.partition(".")[0]
    corner = (place[0] - BOX[0] / 2, place[1] - BOX[1] / 2)
    axes.add_patch(
        FancyBboxPatch(
            corner, *BOX, boxstyle="round,pad=0.02,rounding_size=0.08", zorder=3,
            facecolor=FILL[package], edgecolor=EDGE[package],
        )
    )  # fmt: skip
    name = room.replace(".", "/") + (".py" if count == 0 else f"   ({count})")
    axes.text(place[0], place[1] + 0.36, name, ha="center", va="center", weight="bold",
              fontsize=8.6, zorder=4)  # fmt: skip
    lines = "\n".join(textwrap.wrap(text.replace("`", ""), 42)[:4])
    axes.text(place[0], place[1] - 0.14, lines, ha="center", va="center", fontsize=6.6, zorder=4)


def draw(path: Path) -> None:
    """Write the picture to ``path`` (PNG or SVG)."""
    matplotlib.use("Agg")
    known = modules()
    found = {room: below - set(PACKAGES) for room, below in arrows().items() if "." in room}
    where = places(found)
    width = max(x for x, _ in where.values()) - min(x for x, _ in where.values()) + STEP[0]
    height = STEP[1] - min(y for _, y in where.values())
    figure, axes = plt.subplots(figsize=(width * 0.78, height * 0.78))
    for room, below in reduced(found).items():
        for other in below:
            start = (where[room][0], where[room][1] - BOX[1] / 2)
            end = (where[other][0], where[other][1] + BOX[1] / 2)
            axes.add_patch(
                FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=9, zorder=2,
                                linewidth=0.9, color=EDGE[room.partition(".")[0]], alpha=0.65)
            )  # fmt: skip
    for room, place in where.items():
        inside = [m for m in known if room_of(m, known) == room and m != room]
        _box(axes, room, place, purpose(room, known), len(inside))
    axes.set_xlim(-width / 2, width / 2)
    axes.set_ylim(-height + 0.7, BOX[1])
    axes.axis("off")
    figure.savefig(path, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


@click.command()
@click.option("-o", "--out", type=FILE, default=PICTURE, help="Picture to write.")
def main(out: Path) -> None:
    """Draw the rooms and their imports.

    Example: python -m tests.figures.architecture -o architecture.png
    """
    draw(out)
    click.echo(f"wrote {out}")


if __name__ == "__main__":
    main()
