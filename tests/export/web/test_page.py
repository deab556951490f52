"""The page as a person meets it: its check, pictures, drawing, and what it says of bad input."""

from __future__ import annotations

import base64
import io
import json
import platform
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, Page

from frostbit.export.web.page import Setting, page
from frostbit.kernels import load
from frostbit.kernels.ir.file import save_program
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.data import pictures
from frostbit.pipeline.device import predict
from tests.export.web.nets import NETS, grey, require_clang

ENGINE = "0.1234 ms, engine:test, one thread, on a CPU"
EVIL = "</script><script>alert(1)</script>"
PREPROCESSED = """async ([texts, shape, margin]) => {
    const data = { shape, margin }, found = [];
    for (const text of texts) {
        const image = await decoded(new File([bytesOf(text)], "x"));
        found.push(Array.from(preprocessed(image, data)));
    }
    return found;
}"""
DRAG = """(name) => {
    const place = document.getElementById("try"), sent = new DataTransfer();
    if (name) sent.items.add(new File(["no picture"], name));
    place.dispatchEvent(new DragEvent("drop", { dataTransfer: sent, bubbles: true }));
}"""


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each network, with an engine's latency."""
    require_clang()
    folder = tmp_path_factory.mktemp("pages")
    named = {**NETS, "evil": lambda: replace(grey(), classes=(EVIL, *grey().classes[1:]))}
    found = {}
    for name in ("grey", "colour", "imported", "evil"):
        found[name] = folder / f"{name}.html"
        found[name].write_bytes(page(named[name](), Setting(engine=ENGINE)))
    return found


def opened(browser: Browser, path: Path, **context: Any) -> tuple[Page, list[str]]:
    """A page whose check has ended, and everything it logged or asked the network for."""
    there, noise = browser.new_context(**context).new_page(), list[str]()
    there.on("console", lambda message: noise.append(message.text))
    there.on("pageerror", lambda error: noise.append(str(error)))
    there.on(
        "request",
        lambda asked: None if asked.url.startswith(("file:", "data:")) else noise.append(asked.url),
    )
    there.goto(path.as_uri())
    there.wait_for_function(
        "!document.getElementById('try-check').innerText.startsWith('checking')"
    )
    return there, noise


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 360)])
@pytest.mark.parametrize("name", ["grey", "imported", "evil"])
def test_it_checks_itself_and_shows_both_latencies(
    browser: Browser, pages: dict[str, Path], name: str, scheme: Any, width: int
) -> None:
    size: Any = {"width": width, "height": 800}
    there, noise = opened(browser, pages[name], color_scheme=scheme, viewport=size)
    said = there.inner_text("#try-check")
    if name == "imported":
        assert said.startswith(("equal: answers; logits differ", "not an exact network")), said
    else:
        assert "logits, bit for bit, on 16 pictures, WebAssembly with SIMD" in said
        assert int(said.split()[1].replace(",", "")) > 10_000
    there.wait_for_function("document.getElementById('try-browser').innerText.includes(' ms, ')")
    assert "SIMD, one thread, median of " in there.inner_text("#try-browser")
    assert there.inner_text("#try-engine") == ENGINE
    assert there.evaluate("document.documentElement.scrollWidth") <= width
    assert len(there.query_selector_all("#try-answers tr")) == 5
    assert noise == []
    if name != "evil":
        results = Axe().run(there)
        assert results.violations_count == 0, results.generate_report()


def test_a_page_that_computes_something_else_says_so(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """One bit of the weights, one of the stored logits, one of a checksum."""
    text = pages["grey"].read_text()
    start = text.index('id="try-data">') + len('id="try-data">')
    data = json.loads(text[start : text.index("</script>", start)])
    tail = bytearray(base64.b64decode(data["tail"]))
    first = next(i for i, byte in enumerate(tail) if i > 200 and byte)
    tail[first] ^= 1
    wrong = {
        "weights": {"tail": base64.b64encode(tail).decode()},
        "logits": {"logits": base64.b64encode(b"\0" * 4 * 16 * 5).decode()},
        "signs": {"signs": [each ^ 1 for each in data["signs"]]},
    }
    for name, change in wrong.items():
        path = tmp_path / f"{name}.html"
        path.write_text(
            text[:start] + json.dumps({**data, **change}) + text[text.index("</script>", start) :]
        )
        there, _ = opened(browser, path)
        assert there.inner_text("#try-check").startswith("DIFFERENT: "), name
        assert there.get_attribute("#try-check", "class") == "bad"


def test_without_simd_it_falls_back_and_says_so(pages: dict[str, Path], browser: Browser) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("Chromium's SIMD is switched off by taking SSE4 from it")
    place = shutil.which("chromium") or shutil.which("google-chrome")
    flags = ["--js-flags=--no-enable-sse4-1"]
    other = browser.browser_type.launch(executable_path=place, args=flags)
    there, noise = opened(other, pages["colour"])
    said = there.inner_text("#try-check")
    assert "bit for bit, on 16 pictures, WebAssembly without SIMD, which this browser" in said
    assert noise == []
    other.close()


def test_without_webassembly_one_line_says_so(browser: Browser, pages: dict[str, Path]) -> None:
    there = browser.new_page()
    there.add_init_script("delete globalThis.WebAssembly")
    there.goto(pages["grey"].as_uri())
    there.wait_for_function("document.getElementById('try-check').className === 'bad'")
    assert there.inner_text("#try-check").startswith("this browser has no WebAssembly: ")


def encoded(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    mode = {2: "L", 3: "RGB"}[pixels.ndim]
    Image.fromarray(pixels, mode if mode == "RGB" else None).save(buffer, form, **options)
    return buffer.getvalue()


def drawn(rng: np.random.Generator, count: int) -> Iterator[np.ndarray]:
    """Grey and colour pictures of any size, thin ones too."""
    for index in range(count):
        size = tuple(int(2 ** rng.uniform(0, 7)) for _ in range(2))
        yield rng.integers(0, 256, (*size, 3) if index % 2 else size, dtype=np.uint8)


@pytest.mark.parametrize("shape", [(28, 28, 1), (11, 17, 3)])
@pytest.mark.parametrize("photographs", [False, True])
def test_pictures_become_the_pixels_of_predict(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, shape: Any, photographs: bool
) -> None:
    """PNG of any size, both ways of training: every pixel equal."""
    found = [encoded(each) for each in drawn(np.random.default_rng(shape[2]), 40)]
    same = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    found.append(encoded(same if shape[2] == 3 else same[:, :, 0]))
    there, _ = opened(browser, pages["grey"])
    margin = pictures.margin_for(shape[:2]) if photographs else None
    sent = [base64.b64encode(each).decode() for each in found]
    got = there.evaluate(PREPROCESSED, [sent, shape, margin])
    for index, (data, pixels) in enumerate(zip(found, got, strict=True)):
        path = tmp_path / f"{index}.png"
        path.write_bytes(data)
        wanted = (pictures.evaluated if photographs else pictures.fitted)(path, shape)
        assert np.array_equal(np.reshape(pixels, shape), wanted), index
    if not photographs:
        assert np.array_equal(np.reshape(got[-1], shape), same)


def test_orientation_and_other_formats_differ_by_a_unit_at_most(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    """Upright by EXIF, on white where transparent; decoders round differently."""
    rng = np.random.default_rng(5)
    smooth = np.kron(rng.integers(0, 256, (4, 6, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    turned = Image.Exif()
    turned[pictures.ORIENTATION] = 6
    clear = Image.fromarray(np.dstack([smooth, rng.integers(0, 256, (32, 48), dtype=np.uint8)]))
    buffer = io.BytesIO()
    clear.save(buffer, "PNG")
    found = {
        "jpg": encoded(smooth, "JPEG", exif=turned, subsampling=0, quality=95),
        "png": buffer.getvalue(),
        "gif": encoded(smooth, "GIF"),
        "bmp": encoded(smooth, "BMP"),
    }
    there, _ = opened(browser, pages["grey"])
    sent = [base64.b64encode(each).decode() for each in found.values()]
    got = there.evaluate(PREPROCESSED, [sent, (24, 24, 3), None])
    for (ending, data), pixels in zip(found.items(), got, strict=True):
        (tmp_path / f"x.{ending}").write_bytes(data)
        wanted = pictures.fitted(tmp_path / f"x.{ending}", (24, 24, 3)).astype(int)
        apart = np.abs(np.reshape(pixels, (24, 24, 3)) - wanted).max()
        assert apart <= (0 if ending in ("gif", "bmp") else 2), (ending, apart)


@pytest.mark.parametrize("name", ["grey", "colour", "imported"])
def test_a_dropped_picture_gets_the_answers_of_predict(
    browser: Browser, pages: dict[str, Path], tmp_path: Path, name: str
) -> None:
    program: Program = NETS[name]()
    save_program(program, tmp_path / "model.bnn")
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    (tmp_path / "x.png").write_bytes(encoded(pixels))
    engine = load(tmp_path / "model.bnn")
    mapping = predict.mapping_of(program, None)
    (found,) = predict.predict(engine, [tmp_path / "x.png"], mapping=mapping)
    there, noise = opened(browser, pages[name])
    there.wait_for_timeout(100)  # the empty canvas is answered first
    there.set_input_files("#try-file", tmp_path / "x.png")
    there.wait_for_function(
        "name => document.querySelector('#try-answers th').innerText === name",
        arg=found.guesses[0].name,
    )
    rows = [row.inner_text().split("\t") for row in there.query_selector_all("#try-answers tr")]
    assert [row[0] for row in rows] == [guess.name for guess in found.guesses]
    assert [row[1] for row in rows] == [f"{100 * guess.score:.1f} %" for guess in found.guesses]
    assert there.inner_text("#try-best").startswith(found.guesses[0].name)
    assert noise == []


@pytest.mark.parametrize("touch", [False, True])
def test_drawing_is_answered(browser: Browser, pages: dict[str, Path], touch: bool) -> None:
    size: Any = {"width": 360, "height": 900}
    there, noise = opened(browser, pages["colour"], has_touch=touch, viewport=size)
    assert (
        there.evaluate("getComputedStyle(document.getElementById('try-draw')).touchAction")
        == "none"
    )
    read = "frostbit.then(tool => Array.from(tool.network.image))"
    there.wait_for_function("document.querySelectorAll('#try-answers tr').length === 5")
    assert set(there.evaluate(read)) == {0}
    there.locator("#try-draw").scroll_into_view_if_needed()
    box = there.locator("#try-draw").bounding_box()
    assert box is not None
    places = [
        (box["x"] + share * box["width"], box["y"] + share * box["height"]) for share in (0.2, 0.8)
    ]
    if touch:
        tools = there.context.new_cdp_session(there)
        for kind, at in zip(("touchStart", "touchMove", "touchEnd"), (*places, None), strict=True):
            points = [] if at is None else [{"x": at[0], "y": at[1]}]
            tools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    else:
        there.mouse.move(*places[0])
        there.mouse.down()
        there.mouse.move(*places[1])
        there.mouse.up()
    there.wait_for_function("frostbit.then(tool => tool.network.image.some(value => value > 200))")
    pixels = np.reshape(there.evaluate(read), (11, 17, 3))
    assert pixels[5, 8].min() > 100, "the middle is on the line"
    assert pixels[0, 16].max() == pixels[10, 0].max() == 0
    there.click("#try-clear")
    there.wait_for_function("frostbit.then(tool => tool.network.image.every(value => value === 0))")
    assert there.evaluate("document.documentElement.scrollTop") >= 0
    assert noise == []


def test_what_is_no_picture_is_named_in_one_line(
    browser: Browser, pages: dict[str, Path], tmp_path: Path
) -> None:
    there, noise = opened(browser, pages["grey"])
    whole = encoded(np.zeros((9, 9, 3), np.uint8), "JPEG")
    for name, data in (
        ("a.txt", b"text"),
        ("b.png", b""),
        ("c.jpg", whole[:40]),
        ("d.svg", b"<svg/>"),
    ):
        (tmp_path / name).write_bytes(data)
        there.set_input_files("#try-file", tmp_path / name)
        there.wait_for_function(
            "name => document.getElementById('try-error').innerText.includes(name)", arg=name
        )
        assert "is no picture that this browser reads" in there.inner_text("#try-error")
    (tmp_path / "thin.png").write_bytes(encoded(np.zeros((1, 30000), np.uint8)))
    there.set_input_files("#try-file", tmp_path / "thin.png")
    there.evaluate(DRAG, "dropped.txt")
    there.wait_for_function(
        "document.getElementById('try-error').innerText.includes('dropped.txt')"
    )
    there.evaluate(DRAG, "")
    there.wait_for_function(
        "document.getElementById('try-error').innerText.startsWith('that was no')"
    )
    there.click("#try-clear")
    there.wait_for_function("document.getElementById('try-error').innerText === ''")
    assert noise == []


def test_a_thin_picture_is_not_blown_up(browser: Browser, pages: dict[str, Path]) -> None:
    there, _ = opened(browser, pages["grey"])
    sent = [base64.b64encode(encoded(np.zeros((1, 16000), np.uint8))).decode()]
    with pytest.raises(Exception, match="too thin: crop it"):
        there.evaluate(PREPROCESSED, [sent, (300, 300, 1), None])
