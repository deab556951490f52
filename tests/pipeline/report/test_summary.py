"""``summary`` of every kind of file and of run folders, and what it says to bad ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from frostbit.export.errors import ExportError
from frostbit.export.lce import convert as to_lce
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.summary import Layer, Summary
from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import FormatError
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.report.summary import MOST_ROWS, layer_table, summarise, summary_of
from tests.export.summary_nets import mixed_net

WRITERS: dict[str, Callable[[], bytes]] = {
    "onnx": lambda: to_onnx.convert(mixed_net()),
    "tflite": lambda: to_lce.convert(mixed_net()),
}


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with one network as ``model.bnn``, ``model.onnx`` and ``model.tflite``."""
    save_program(mixed_net(), tmp_path / "model.bnn")
    for suffix, write in WRITERS.items():
        (tmp_path / f"model.{suffix}").write_bytes(write())
    return tmp_path


def printed(path: Path) -> str:
    table, lines = summary_of(path)
    console = Console(width=160)
    with console.capture() as capture:
        console.print(table)
        console.print(*lines, sep="\n", highlight=False)
    return capture.get()


@pytest.mark.parametrize("suffix", ["bnn", *WRITERS])
def test_the_table_of_each_format(models: Path, suffix: str) -> None:
    path = models / f"model.{suffix}"
    text = printed(path)
    row = next(line for line in text.splitlines() if "112,266" in line)
    assert [cell.strip() for cell in row.split("│")[4:8]][1] == "2,673"
    for words in ("8,991 1-bit", f"file {path.stat().st_size:,} bytes", "8-bit equivalent"):
        assert words in text
    assert "288,288 MACs for one image, 97.6 % of them binarized" in text


def test_a_long_table_is_cut_and_its_totals_are_not() -> None:
    layers = tuple(Layer(f"l{i}", "Conv", 32, (1,), {32: 2}, 8, {32: 3}) for i in range(60_000))
    table = layer_table(Summary("ONNX", 1, layers), "long")
    names, *_, macs = ([*column.cells] for column in table.columns)
    assert len(names) == MOST_ROWS + 2
    assert names[-2:] == ["and 59,600 more layers", "total"]
    assert macs[-1] == "180,000"


@pytest.mark.parametrize("suffix", ["bnn", *WRITERS])
def test_the_contents_tell_the_format(models: Path, suffix: str) -> None:
    named = summarise(models / f"model.{suffix}")
    unnamed = models / "file"
    shutil.copy(models / f"model.{suffix}", unnamed)
    assert summarise(unnamed) == named


def test_a_run_folder_is_its_packed_model(trained: Path, packed: Path) -> None:
    run = summarise(trained)
    assert run == summarise(packed)
    assert run.binary_share is not None
    assert run.binary_share > 0.5


def test_a_run_folder_ignores_a_stale_model(trained: Path, packed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    save_program(mixed_net(), run / "model.bnn")
    assert summarise(run) == summarise(packed)


HIDDEN = """
import sys
from pathlib import Path
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.report.summary import summary_of
sys.path.insert(0, sys.argv[2])
try:
    print(*summary_of(Path(sys.argv[1]))[1], sep="; ")
except UserError as error:
    print("refused:", error)
"""


def without(packages: str, path: Path) -> str:
    """Output of a summary where ``packages`` cannot be imported, in processes of it neither."""
    with tempfile.TemporaryDirectory() as folder:
        for name in packages.split():
            Path(folder, f"{name}.py").write_text(f"raise ModuleNotFoundError(name={name!r})")
        command = [sys.executable, "-c", HIDDEN, str(path), folder]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_packed_run_needs_the_base_install_only(
    trained: Path, packed: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    shutil.copy(packed, run / "model.bnn")
    text = without("torch onnx flatbuffers", run)
    assert f"file {packed.stat().st_size:,} bytes" in text


@pytest.mark.parametrize(("suffix", "package"), [("onnx", "onnx"), ("tflite", "flatbuffers")])
def test_a_missing_package_is_named(models: Path, suffix: str, package: str) -> None:
    text = without(package, models / f"model.{suffix}")
    assert f"refused: this summary needs {package}" in text
    assert "frostbit[export]" in text


def test_an_unpacked_run_names_torch(trained: Path) -> None:
    text = without("torch", trained)
    assert "needs torch" in text
    assert "frostbit[train]" in text


def test_importing_it_is_cheap() -> None:
    code = "import sys, frostbit.pipeline.report.summary; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"numpy", "numba", "torch", "onnx", "flatbuffers"} & set(done.stdout.split())


def test_files_that_are_no_models(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello, this is no model")
    (tmp_path / "empty").touch()
    for name in ("notes.txt", "empty"):
        with pytest.raises(UserError, match=r"no model.*\.bnn, \.onnx and \.tflite"):
            summarise(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        summarise(tmp_path / "absent.onnx")
    with pytest.raises(UserError, match="no finished run"):
        summarise(tmp_path)


@pytest.mark.parametrize(
    ("suffix", "error"), [("bnn", FormatError), ("onnx", ExportError), ("tflite", ExportError)]
)
def test_damaged_files_are_refused_in_one_line(
    models: Path, suffix: str, error: type[Exception]
) -> None:
    path = models / f"model.{suffix}"
    good = path.read_bytes()
    for bad in (good[: len(good) // 2], good[:5], b"", b"nonsense" * 9):
        path.write_bytes(bad)
        with pytest.raises(error) as caught:
            summarise(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_a_run_that_was_changed_is_refused(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    facts = json.loads((run / "run.json").read_text())
    assert "settled.safetensors" in facts["sha256"]
    (run / "settled.safetensors").write_bytes(b"other")
    with pytest.raises(UserError, match="changed after training"):
        summarise(run)


def test_the_packed_table_is_the_same_table(packed: Path) -> None:
    from frostbit.pipeline.report.summary import pack_table

    program = load_program(packed)
    table, lines = pack_table(program, packed.stat().st_size)
    again, _ = summary_of(packed)
    assert [list(column.cells) for column in table.columns] == [
        list(column.cells) for column in again.columns
    ]
    assert "times smaller" in lines[1]
