"""``export_model`` and ``verify`` from Python do what the commands do."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import frostbit as fb
from frostbit.export.errors import ParityError
from frostbit.kernels.ir import reference
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.parity.export import FORMATS
from tests.nets import every_op, images

PROGRAM = every_op()


@pytest.mark.parametrize("name", FORMATS)
def test_the_ending_names_the_format_and_bytes_are_those_of_the_command(
    name: str, tmp_path: Path
) -> None:
    fb.save(PROGRAM, tmp_path / "model.bnn")
    words = ["export", str(tmp_path / "model.bnn"), "--format", name, "--no-check"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    file = FORMATS[name].file
    by_ending = fb.export_model(
        PROGRAM, tmp_path / f"own{file.removeprefix('model')}", checked=False
    )
    by_name = fb.export_model(PROGRAM, tmp_path / "any", format=name, checked=False)
    whole = (tmp_path / file).read_bytes()
    for written in (by_ending, by_name):
        assert written.path.read_bytes() == whole
        assert (written.bytes, written.check.partition(";")[0]) == (len(whole), "not run")


def test_names_in_c_begin_as_asked(tmp_path: Path) -> None:
    written = fb.export_model(PROGRAM, tmp_path / "net.c", prefix="gesture", checked=False)
    assert "declared in net.h" in written.check
    for path in (written.path, tmp_path / "net.h"):
        assert "gesture_run(" in path.read_text()


def test_a_file_runs_before_it_is_kept(tmp_path: Path) -> None:
    written = fb.export_model(PROGRAM, str(tmp_path / "x.onnx"))
    assert re.match(r"ran in ort: [\d,]+ sign bits, 0 differ", written.check)


@pytest.mark.parametrize(
    ("name", "choices", "text"),
    [
        ("x.bin", {}, "names no format; use one of .*onnx"),
        ("x.onnx", {"format": "onxx"}, "did you mean 'onnx'"),
        ("x.onnx", {"format": "all"}, "more than one"),
        ("x.c", {"float_input": True}, "ONNX files only"),
        ("x.tflite", {"licence": "MIT"}, "ONNX files only"),
        ("x.onnx", {"prefix": "gesture"}, "of C files only"),
        ("x.onnx", {"accuracy": 97.2}, "share of the test set"),
    ],
)
def test_what_cannot_be_written_is_refused(
    tmp_path: Path, name: str, choices: dict[str, object], text: str
) -> None:
    with pytest.raises(UserError, match=text):
        fb.export_model(PROGRAM, tmp_path / name, **choices)  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_verify_counts_every_runtime_and_right_answers() -> None:
    pictures = images(PROGRAM, 6)
    labels = reference.run(PROGRAM, pictures).argmax(axis=1)
    labels[0] = (labels[0] + 1) % 5
    found = fb.verify(PROGRAM, pictures, labels, formats=["bnn", "onnx", "torch"])
    assert found.passed
    assert not found.missing
    names = {each.name for each in found.report.comparisons}
    assert {"reference", "ort", "torch:program:batch1-threads1"} <= names
    assert {each.correct for each in found.report.comparisons} == {5}


def test_verify_runs_the_files_of_a_folder(tmp_path: Path) -> None:
    pictures = images(PROGRAM, 4)
    fb.export_model(PROGRAM, tmp_path / "model.onnx", checked=False)
    assert fb.verify(PROGRAM, pictures, formats=["onnx"], folder=tmp_path).passed
    fb.export_model(every_op(1), tmp_path / "model.onnx", checked=False)
    found = fb.verify(PROGRAM, pictures, formats=["onnx"], folder=tmp_path)
    assert not found.passed
    assert found.strangers == ("model.onnx",)


def test_images_and_labels_of_other_kinds_are_refused() -> None:
    pictures = images(PROGRAM, 4)
    for wrong in (pictures.astype(np.float32), pictures.transpose(0, 3, 1, 2), pictures[0]):
        with pytest.raises(ValueError, match="images must"):
            fb.verify(PROGRAM, wrong)
    with pytest.raises(ValueError, match=r"labels must be \[4\]"):
        fb.verify(PROGRAM, pictures, np.zeros(3, np.int64))
    with pytest.raises(ParityError, match="two images"):
        fb.verify(PROGRAM, pictures[:1], formats=["bnn"])
    with pytest.raises(UserError, match="did you mean 'onnx'"):
        fb.verify(PROGRAM, pictures, formats=["onxx"])
