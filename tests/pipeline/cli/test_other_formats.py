"""Commands that take a .bnn or a run, given an intact file of another format, say what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner

from frostbit.export.c.convert import convert as to_c
from frostbit.export.lce.convert import convert as to_tflite
from frostbit.export.onnx import packed, qonnx
from frostbit.export.onnx.float_twin import onnx_twin
from frostbit.kernels.ir.file import dumps, loads
from frostbit.kernels.ir.foreign import foreign
from frostbit.kernels.ir.program import FormatError, Program
from frostbit.pipeline.cli.main import main
from tests import ROOT
from tests.nets import every_op

TFLITE, ONNX = "a TensorFlow Lite file", "an ONNX file"
WRITERS: dict[str, tuple[Callable[[Program], bytes], str]] = {
    "tflite": (to_tflite, TFLITE),
    "onnx": (packed.convert, ONNX),
    "qonnx": (qonnx.convert, ONNX),
}
FOREIGN = [
    path
    for path in sorted((ROOT / "tests" / "data" / "foreign").iterdir())
    if path.suffix in (".onnx", ".tflite")
]
TAKE_MODELS = {
    "verify": (),
    "bench": ("--runtime", "engine"),
    "export": ("--format", "c"),
    "bundle": (),
    "predict": ("picture.png",),
}
TAKE_RUNS = ("pack", "report", "compare")


def refusal(*arguments: object) -> str:
    """The one line with which a command refuses; nothing but it is said."""
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    return result.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("kind", WRITERS)
@pytest.mark.parametrize("command", TAKE_MODELS)
def test_an_intact_export_in_place_of_the_model(
    command: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.png").write_bytes(b"")
    write, what = WRITERS[kind]
    path = tmp_path / "model"
    path.write_bytes(write(every_op()))
    before = {each.name for each in tmp_path.iterdir()}
    line = refusal(command, path, *TAKE_MODELS[command])
    for words in (str(path), what, ".bnn", "exported from", "pipeline summary"):
        assert words in line
    assert {each.name for each in tmp_path.iterdir()} == before


@pytest.mark.parametrize("command", TAKE_RUNS)
def test_a_file_in_place_of_a_run(command: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(packed.convert(every_op()))
    line = refusal(command, path)
    assert "is a file, and the folder of a run is needed" in line
    assert "pipeline train" in line


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.name)
def test_files_of_other_tools_are_known(path: Path) -> None:
    with pytest.raises(FormatError, match=r"packed model \(.bnn\) is needed"):
        loads(path.read_bytes())


def test_what_is_told_apart() -> None:
    program = every_op()
    assert foreign(to_tflite(program)) == TFLITE
    for data in (packed.convert(program), qonnx.convert(program), onnx_twin(program)):
        assert foreign(data) == ONNX
    reordered = onnx.load_from_string(packed.convert(program))
    reordered.ClearField("producer_name")
    assert foreign(reordered.SerializeToString()) == ONNX
    for data in (dumps(program), to_c(program), b"", b"\x08", b"\x08\x07", bytes(99)):
        assert foreign(data) is None
