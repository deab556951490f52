"""What comes from a file acts on no terminal and on no page."""

import io
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from frostbit.pipeline import console
from frostbit.pipeline.bench.table import markdown_cell
from frostbit.pipeline.console import shown
from frostbit.pipeline.report.page import render
from frostbit.pipeline.report.svg import svg

ACTING = [
    *map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)),  # C0, DEL, C1
    "\u061c", "\u200e", "\u200f", *"\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069",
    "\u2028", "\u2029", "\u200b", "\u2060", "\ufeff", "\u00ad", "\ud800", "\U000e0041",
]  # fmt: skip
FORGED = "cat\x1b[2K\rdog\u202egnp\u2028owl\u200f\x9b1m"


@pytest.mark.parametrize("each", ACTING, ids=ascii)
def test_every_acting_character_is_escaped(each: str) -> None:
    assert shown(f"a{each}b") == "a" + each.encode("unicode_escape").decode() + "b"


@pytest.mark.parametrize(
    "text", ["Größe", "\u06af\u0644\u200c\u0647\u0627", "👨\u200d👩", "שלום", "a b\u00a0c", "狗"]
)
def test_spelling_stays(text: str) -> None:
    assert shown(text) == text


@given(st.text())
def test_nothing_acting_is_left_and_what_is_printed_stays(text: str) -> None:
    found = shown(text)
    left = {unicodedata.category(each) for each in found if each not in "\u200c\u200d"}
    assert not left & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert shown(found) == found
    assert [e for e in text if e.isprintable()] == [
        e for e in text if e.isprintable() and e in found
    ]


def test_the_terminal_shows_names_escaped_wherever_they_stand(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = Table(title=FORGED)
    table.add_column(FORGED)
    table.add_row(FORGED)
    console.terminal().print(table, FORGED, f"line\n{FORGED}", sep="\n")
    text = capsys.readouterr().out
    assert not set(text) & set(ACTING) - {"\n"}
    assert text.count("cat\\x1b[2K\\rdog\\u202egnp\\u2028owl\\u200f\\x9b1m") == 5
    assert "line\\ncat" in text


def test_markdown_and_html_show_names_escaped() -> None:
    cell = markdown_cell(f"{FORGED}|<b>")
    assert cell.isprintable()
    assert cell.startswith("cat\\\\x1b\\[2K\\\\rdog\\\\u202egnp")
    assert cell.endswith("\\|&lt;b&gt;")
    page = render("compare.html", head=[FORGED], rows=[[FORGED]], figure="")
    assert not set(page) & set(ACTING) - {"\n"}
    assert page.count("cat\\x1b[2K\\rdog\\u202egnp") == 2


def test_figures_show_names_escaped() -> None:
    from matplotlib.figure import Figure

    def draw() -> Figure:
        figure = Figure()
        figure.text(0.5, 0.5, "cat\u202egnp\u200f")
        return figure

    text = svg(draw, "names", FORGED)
    assert not set(text) & set(ACTING) - {"\n"}
    assert "cat\\u202egnp\\u200f" in text
    assert 'aria-label="cat\\x1b[2K\\rdog' in text


def test_log_lines_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    handler = console._Echo()
    handler.emit(logging.makeLogRecord({"msg": FORGED}))
    assert capsys.readouterr().err == shown(FORGED) + "\n"


def test_standard_output_of_any_kind_has_a_console(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    console.terminal().print("frostbit[train]")
    assert stream.getvalue() == "frostbit[train]\n"
