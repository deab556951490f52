"""Report and comparison: what stands in them, hostile names, and the page in a real browser."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from playwright.sync_api import Browser

from frostbit.export.summary import summarise_program
from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import Dense
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.report import compare, plots
from frostbit.pipeline.report.page import interval
from frostbit.pipeline.run import folder as run_folder
from tests.export.web.nets import require_clang

SMALLEST_TEXT = """Math.min(...[...document.querySelectorAll("svg")].flatMap(svg => {
    const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
    return [...svg.querySelectorAll("text")].map(
        text => parseFloat(getComputedStyle(text).fontSize) * scale);
}))"""
DRAWN = """[...document.querySelectorAll("figure svg")].flatMap(svg =>
    [...svg.querySelectorAll("text, path, use")].filter(each => !each.closest("defs")).map(each => {
        const style = getComputedStyle(each);
        const colour = each.tagName === "text" || style.fill !== "none" ? style.fill : style.stroke;
        const faint = +style.opacity * +(style.fillOpacity) * +(style.strokeOpacity) < 1;
        return [each.tagName, colour, faint];
    }))"""
"""Element and colour of all that is drawn, and whether something shines through it."""
EVIL = "<script>alert(1)</script>|`x`$\\frac{$"
"""Breaks out of HTML, of a Markdown cell, and of matplotlib's formulas, if nothing escapes it."""


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run with model and benchmark."""
    folder = tmp_path_factory.mktemp("report") / "toy"
    settings = [word for text in ("width=8", "train_images=400") for word in ("--set", text)]
    recipe = ["train", "--recipe", "digits", "--epochs", 2, *settings, "--out", folder]
    for words in (recipe, ["pack", folder]):
        done = invoke(*words)
        assert done.exit_code == 0, done.output
    names = ["--runtime", "engine", "--runtime", "ort-fp32"]
    done = invoke("bench", folder / "model.bnn", *names, "--rounds", 2, "--profile")
    assert done.exit_code == 0, done.output
    return folder


def opened(browser: Browser, path: Path, scheme: Any, width: int) -> tuple[Any, list[str]]:
    """A page, and everything it logged or asked the network for."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
    noise: list[str] = []
    page.on("console", lambda message: noise.append(message.text))
    page.on("pageerror", lambda error: noise.append(str(error)))
    page.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "data:")) else noise.append(asked.url),
    )
    page.goto(path.as_uri())
    return page, noise


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 1100), ("light", 360)])
def test_the_page_in_a_browser(
    run: Path, browser: Browser, tmp_path: Path, scheme: str, width: int
) -> None:
    require_clang()
    out = tmp_path / "report.html"
    done = invoke("report", run, "-o", out)
    assert done.exit_code == 0, done.output
    assert out.stat().st_size < 3_000_000
    page, noise = opened(browser, out, scheme, width)
    assert noise == []
    text = page.inner_text("main")
    found = json.loads((run / "bench.json").read_text())
    facts = json.loads((run / "run.json").read_text())
    assert f"{facts['accuracy']['test_after_settling']:.2f} %" in text
    assert f"{found['runtimes'][0]['latency_ms']['median']:.4f} ms" in text
    assert "0 of" in text
    page.wait_for_function("document.getElementById('try-check').innerText.startsWith('equal: ')")
    assert "engine:" in page.inner_text("#try-engine")
    labels = [each.get_attribute("aria-label") for each in page.query_selector_all("svg")]
    assert len(labels) == 5
    assert all(len(label) > 40 for label in labels)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    smallest = page.evaluate(SMALLEST_TEXT)
    assert smallest >= (5 if width < 500 else 8)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")


def luminance(colour: str) -> float:
    """Of ``rgb(r, g, b)``, as WCAG 2 defines it."""
    parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
    return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_stand_out_from_the_page(
    run: Path, browser: Browser, tmp_path: Path, scheme: str
) -> None:
    """WCAG AA, measured: 4.5 for text, 3 for bars, points and lines."""
    assert invoke("report", run, "-o", tmp_path / "r.html").exit_code == 0
    page, _ = opened(browser, tmp_path / "r.html", scheme, 1000)
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    drawn = page.evaluate(DRAWN)
    assert len(drawn) > 200
    seen = {(tag == "text", colour) for tag, colour, faint in drawn if not faint}
    for is_text, colour in seen:
        if colour.startswith("rgb("):
            assert contrast(colour, paper) >= (4.5 if is_text else 3), (is_text, colour)
    deepest = [
        round(plots.DEEPEST * a + (1 - plots.DEEPEST) * b)
        for a, b in zip((0, 0x72, 0xB2), map(int, re.findall(r"\d+", paper)[:3]), strict=True)
    ]
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert contrast(f"rgb{tuple(deepest)}", ink) >= 4.5, "numbers in the fullest cell"


def test_what_the_page_says_of_peers_and_random_images(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    found = json.loads((run / "bench.json").read_text())
    assert invoke("report", copy, "--force").exit_code == 0
    text = (copy / "report.html").read_text()
    assert "hollow: same architecture, random weights" in text
    assert "which have no accuracy: ort-fp32." in text
    assert "360 test images, 0 of" in text
    assert "random images" not in text
    rows = [{**row, "accuracy": None} for row in found["runtimes"] if row["name"] != "ort-fp32"]
    (copy / "bench.json").write_text(json.dumps({**found, "dataset": "", "runtimes": rows}))
    assert invoke("report", copy, "--force").exit_code == 0
    text = (copy / "report.html").read_text()
    assert "hollow" not in text
    assert "360 random images (pixels drawn by chance" in text
    assert "Accuracy was not measured: the images are random." in text
    assert "which have no accuracy" not in text


def test_the_table_of_layers_leaves_no_precision_out(run: Path, tmp_path: Path) -> None:
    """Weights of 8 bits, too: what the columns hold adds up to all there is."""
    program = load_program(run / "model.bnn")
    head = program.ops[-1]
    assert isinstance(head, Dense)
    small = replace(head, weights=np.rint(40 * head.weights).clip(-127, 127))
    shutil.copytree(run, tmp_path / "run")
    save_program(replace(program, ops=(*program.ops[:-1], small)), tmp_path / "run" / "model.bnn")
    assert invoke("report", tmp_path / "run", "-o", tmp_path / "r.html").exit_code == 0
    text = (tmp_path / "r.html").read_text()
    table = text[text.index('aria-label="layers of the model"') :]
    table = table[: table.index("</table>")]
    heads = [re.sub("<.*?>", "", each) for each in re.findall(r"<th.*?</th>", table)]
    rows = [
        [re.sub("<.*?>", "", cell) for cell in re.findall(r"<td.*?</td>", row)]
        for row in re.findall(r"<tr><td>.*?</tr>", table, re.DOTALL)
    ]
    found = summarise_program(load_program(tmp_path / "run" / "model.bnn"), 1)
    assert 8 in found.parameters
    for what, counts in (("params", found.parameters), ("MACs", found.macs)):
        for bits, count in counts.items():
            at = heads.index(f"{bits}-bit {what}")
            assert sum(int(row[at].replace(",", "") or 0) for row in rows) == count


@given(st.integers(1, 20000), st.floats(0, 1))
def test_intervals_are_wilsons(images: int, share: float) -> None:
    """Both ends solve (p - share)^2 = z^2 p (1 - p) / n."""
    right = round(share * images)
    low, high = (
        float(x) / 100 for x in re.findall(r"[\d.]+", interval(100 * right / images, images))
    )
    for end in (low, high):
        gap = abs(end - right / images)
        assert abs(gap - 1.959964 * math.sqrt(max(0.0, end * (1 - end)) / images)) < 2e-2
    assert low <= right / images + 6e-4
    assert high >= right / images - 6e-4


def test_steps_are_named_in_words() -> None:
    names = ("(call)", "stem:wide", "body.1:groups", "a:b", "head")
    assert [plots.step_name(name) for name in names] == [
        "call from Python", "stem, input widened", "body.1, groups set apart", "a:b", "head"
    ]  # fmt: skip


def test_latencies_are_logarithmic_with_a_value_a_bar(run: Path) -> None:
    rows = json.loads((run / "bench.json").read_text())["runtimes"]
    (axes,) = plots.latencies(rows).axes
    assert axes.get_xscale() == "log"
    shown = {each.get_text() for each in axes.texts}
    assert shown == {f"{row['latency_ms']['median']:.4g}" for row in rows}


def test_without_a_benchmark_the_page_says_how_to_get_one(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "bench.json").unlink()
    done = invoke("report", copy)
    assert done.exit_code == 0, done.output
    text = (copy / "report.html").read_text()
    assert f"pipeline bench {copy}/model.bnn --profile" in text
    whole = json.loads((run / "bench.json").read_text())
    for row in ({}, {**whole["runtimes"][0], "latency_ms": {"median": "0"}}):
        (copy / "bench.json").write_text(json.dumps({**whole, "runtimes": [row]}))
        for words in (("report", copy, "--force"), ("compare", copy)):
            done = invoke(*words)
            assert done.exit_code == 0, done.output
            said = " ".join(done.output.split())
            assert f"'{copy}/bench.json' is damaged" in said
            assert "measure it again: pipeline bench" in said
    assert "is damaged" not in invoke("compare", run).output


def test_what_more_threads_bring_has_a_table(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    found = json.loads((copy / "bench.json").read_text())
    first = found["runtimes"][0]
    exact, faster = {"value": 1, "low": 1, "high": 1}, {"value": 1.8, "low": 1.7, "high": 1.9}
    found["runtimes"].append({**first, "threads": 2})
    found["scaling"] = [
        {
            "name": first["name"], "model": first["model"], "threads": threads, "median_ms": ms,
            "over": 1, "faster": over, "ratio": exact,
        }
        for threads, ms, over in ((1, 0.9, exact), (2, 0.5, faster))
    ]  # fmt: skip
    (copy / "bench.json").write_text(json.dumps(found))
    assert invoke("report", copy).exit_code == 0
    text = (copy / "report.html").read_text()
    assert "<h2>Threads</h2>" in text
    assert "<td>2</td><td>0.5000</td><td>1.80</td><td>1.70 to 1.90</td>" in text
    assert f"{found['conditions']['available_cores']} cores to use" in text
    page = invoke("report", copy, "-o", tmp_path / "report.md")
    assert page.exit_code == 0, page.output
    assert "| 2 | 0.5000 | 1.80 |" in (tmp_path / "report.md").read_text()


def test_names_from_files_are_escaped(run: Path, browser: Browser, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    program = load_program(copy / "model.bnn")
    classes = (EVIL, *program.classes[1:])
    old = program.ops[0].name
    first = replace(program.ops[0], name=EVIL)
    ops = [
        replace(op, inputs=tuple(EVIL if name == old else name for name in op.inputs))
        for op in program.ops[1:]
    ]
    save_program(replace(program, classes=classes, ops=(first, *ops)), copy / "model.bnn")
    facts = json.loads((copy / "run.json").read_text())
    text = (copy / "recipe.toml").read_text().replace('"digits"', json.dumps(EVIL), 1)
    (copy / "recipe.toml").write_text(text)
    facts["sha256"]["recipe.toml"] = sha256(text.encode()).hexdigest()
    (copy / "run.json").write_text(json.dumps({**facts, "cpu": EVIL}))
    for ending in ("html", "md"):
        done = invoke("report", copy, "-o", tmp_path / f"r.{ending}")
        assert done.exit_code == 0, done.output
    assert "<script>alert" not in (tmp_path / "r.html").read_text()
    assert "&lt;script&gt;" in (tmp_path / "r.html").read_text()
    markdown = (tmp_path / "r.md").read_text()
    assert "<script" not in markdown
    escaped = r"&lt;script&gt;alert(1)&lt;/script&gt;\|\`x\`$\\frac\{$"
    assert markdown.startswith("## Run copy: ")
    assert escaped in markdown
    assert "script" not in markdown.replace(escaped, "")
    _, noise = opened(browser, tmp_path / "r.html", "light", 800)
    assert noise == []


def test_markdown(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "report.md"
    done = invoke("report", run, "-o", out)
    assert done.exit_code == 0, done.output
    rows = [line for line in out.read_text().splitlines() if line.startswith("| ")]
    assert len({line.count(" |") for line in rows if "engine:" in line and "ms" not in line}) == 1
    assert any(line.startswith("| ort-fp32 |") for line in rows)


def test_what_cannot_be_reported(run: Path, tmp_path: Path) -> None:
    assert "ends in .html or .md" in invoke("report", run, "-o", tmp_path / "r.pdf").output
    assert "no finished run" in invoke("report", tmp_path).output
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "model.bnn").unlink()
    assert "pipeline pack" in invoke("report", copy).output


def entry(name: str, ms: float | None, accuracy: float) -> compare.Entry:
    return compare.Entry(name, "m", "stompp", 0, accuracy, 1, ms, None, "")


def test_the_front_is_what_nothing_beats() -> None:
    entries = [
        entry("fast", 1.0, 80.0),
        entry("beaten", 2.0, 79.0),
        entry("good", 3.0, 90.0),
        entry("twin", 3.0, 90.0),
        entry("not measured", None, 99.0),
    ]
    front = [e.name for e in (compare._placed(each, entries) for each in entries) if e.front]
    assert front == ["fast", "good", "twin"]


def test_compare(run: Path, browser: Browser, tmp_path: Path) -> None:
    other = tmp_path / "other & <b>"
    shutil.copytree(run, other)
    out = tmp_path / "compare.html"
    done = invoke("compare", run, other, "-o", out)
    assert done.exit_code == 0, done.output
    assert "other & <b>" in done.output
    page, noise = opened(browser, out, "dark", 900)
    assert noise == []
    assert "other & <b>" in page.inner_text("table")
    assert Axe().run(page).violations_count == 0
    facts = run_folder.read_run(run).facts["accuracy"]
    assert f"{facts['test_after_settling']:.2f} %" in page.inner_text("table")
