"""The shipped page in Chromium against reference, native C and engine; and what is refused."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import frostbit as fb
from frostbit.export.c.runtime import CRuntime
from frostbit.export.errors import ExportError, RuntimeMissing
from frostbit.export.parity import compare
from frostbit.export.runtimes import EngineRuntime
from frostbit.export.web import compiler
from frostbit.export.web.page import Setting, page
from frostbit.export.web.runtime import WebRuntime, require_browser
from frostbit.kernels.engine import load
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import save_program
from frostbit.pipeline.cli.main import main
from tests.export.web.nets import NETS, grey, require_clang
from tests.kernels.programs import random_images
from tests.nets import every_op

IMAGES = 256


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    require_clang()


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n == "grey" else pytest.mark.slow) for n in NETS],
)
def test_256_images_in_the_browser(name: str) -> None:
    program = NETS[name]()
    images = random_images(program, IMAGES)
    web = WebRuntime(program)
    native = CRuntime(program, options=("-std=c99", "-O2", "-ffp-contract=off"))
    try:
        report = compare(program, [web], images)
        assert report.passed, report.verdict
        (found,) = report.comparisons
        verdict = analyse(program)
        assert verdict.has_signs == (name != "real")
        if verdict.has_signs and verdict.body_exact:
            assert found.sign_bits_compared > 100 * IMAGES
            assert found.sign_bits_differing == 0
        logits = web.logits(images)
        if verdict.head_exact:
            assert np.array_equal(logits, EngineRuntime(program).logits(images))
        if name != "imported":  # exponentials are the browser's, not the C library's
            assert np.array_equal(logits, native.logits(images))
    finally:
        web.close()
        native.close()


@pytest.mark.slow
def test_the_packed_network_over_its_test_images(packed: Path, tmp_path: Path) -> None:
    """As a person does it: export, verify on the data, and both latencies side by side."""
    shutil.copy(packed, tmp_path / "model.bnn")
    model = tmp_path / "model.bnn"
    done = invoke("export", model, "--format", "web")
    assert done.exit_code == 0, done.output
    assert "ran in web: " in done.output
    assert " 0 differ, logits differ by at most 0" in " ".join(done.output.split())
    size = (tmp_path / "model.html").stat().st_size
    assert f"({size:,} bytes)" in done.output
    done = invoke("verify", model, "--formats", "web", "--images", IMAGES)
    assert done.exit_code == 0, done.output
    assert f"parity over {IMAGES} digits images" in done.output
    names = ["--runtime", "engine,web", "--rounds", 2]
    done = invoke("bench", model, *names, "--json", tmp_path / "bench.json")
    assert done.exit_code == 0, done.output
    assert invoke("export", model, "--format", "web", "--force", "--no-check").exit_code == 0
    text = (tmp_path / "model.html").read_text()
    assert f"engine:{load(model).kernel}, one thread, on " in text


def test_a_page_of_another_network_is_refused() -> None:
    with pytest.raises(ExportError, match="other sizes: another model"):
        WebRuntime(grey(), page(NETS["colour"](), Setting()))


def test_bytes_are_deterministic_and_name_the_program() -> None:
    program = grey()
    first = page(program, Setting())
    assert first == page(program, Setting())
    built = compiler.modules(program)
    assert built.simd != built.plain
    assert len(built.tail) > 100, "the weights are stored once"


def path_of(folder: Path, **scripts: str) -> str:
    """A PATH that has these programs alone."""
    folder.mkdir()
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "model.bnn"
    save_program(grey(), model)
    data = page(grey(), Setting())
    for place, text in (
        (path_of(tmp_path / "none"), "needs clang and lld"),
        (path_of(tmp_path / "alone", clang="echo wasm-ld"), "needs lld, which clang uses"),
        (path_of(tmp_path / "old", clang="echo error: no wasm32 >&2; exit 1"), "needs lld"),
    ):
        monkeypatch.setenv("PATH", place)
        done = invoke("export", model, "--format", "web")
        assert done.exit_code == 2, done.output
        assert "Error: " in done.output
        assert text in " ".join(done.output.split())
        assert "apt-get install clang lld" in " ".join(done.output.split())
        assert not (tmp_path / "model.html").exists()
    refusing = 'case "$1" in --print*) echo /bin/sh;; *) echo "error: no wasm32" >&2; exit 1;; esac'
    monkeypatch.setenv("PATH", path_of(tmp_path / "other", clang=refusing))
    done = invoke("export", model, "--format", "web")
    assert "clang makes no WebAssembly of it: error: no wasm32" in " ".join(done.output.split())
    with pytest.raises(RuntimeMissing, match=r"no Chromium .* open the page: it checks itself"):
        WebRuntime(grey(), data)


def test_a_file_that_cannot_be_run_here_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frostbit.export.web.runtime.BROWSERS", ())
    written = fb.export_model(grey(), tmp_path / "x.html")
    assert written.check.startswith("not run: there is no Chromium")
    assert written.path.is_file()


def test_inside_an_event_loop_no_browser_is_driven() -> None:
    import asyncio

    async def inside() -> None:
        require_browser()

    with pytest.raises(RuntimeMissing, match="inside an event loop"):
        asyncio.run(inside())


@pytest.mark.parametrize("name", ["channels", "floats"])
def test_a_network_that_takes_no_pictures_is_refused_by_name(name: str, tmp_path: Path) -> None:
    program = every_op() if name == "channels" else replace(NETS["imported"](), preprocessing=None)
    text = "the model wants 2" if name == "channels" else "does not say what pixels become"
    save_program(program, tmp_path / "model.bnn")
    done = invoke("export", tmp_path / "model.bnn", "--format", "web")
    assert done.exit_code == 2, done.output
    assert text in " ".join(done.output.split())
    assert "Traceback" not in done.output


def test_all_leaves_the_page_out(tmp_path: Path) -> None:
    save_program(grey(), tmp_path / "model.bnn")
    done = invoke("export", tmp_path / "model.bnn", "--format", "c,web", "--no-check")
    assert done.exit_code == 0, done.output
    assert {"model.c", "model.html"} < set(os.listdir(tmp_path))
    done = invoke("export", tmp_path / "model.bnn", "--format", "weib")
    assert "did you mean 'web'" in " ".join(done.output.split())
