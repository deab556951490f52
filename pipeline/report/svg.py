"""Figures as SVG inside a page: text in the page's own colour, so that light and dark both work."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from frostbit.pipeline.console import shown

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#123457"
"""Stands for the page's text colour while a figure is drawn; used for nothing else."""
_STYLE: dict[Any, Any] = {
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK
    ),
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "legend.framealpha": 0.0,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
}


def svg(draw: Callable[[], Figure], name: str, description: str) -> str:
    """An ``<svg>`` element of what ``draw`` makes.

    Args:
        draw: makes the figure; called with the page's style.
        name: of the figure; keeps ids in one page apart.
        description: what a person who cannot see it should know.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = draw()
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="(?!glyph)([\w-]+_\d+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    label = html.escape(description, quote=True)
    return shown(text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1), keep="\n")
