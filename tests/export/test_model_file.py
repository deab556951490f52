"""``read`` and ``save``: one format, others refused by name."""

from pathlib import Path

import pytest

import frostbit as fb
from frostbit.export.model_file import FOREIGN
from frostbit.kernels.ir.file import dumps
from frostbit.pipeline.parity.export import FORMATS
from tests.nets import every_op


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    program = every_op()
    fb.save(program, tmp_path / "model.bnn")
    assert (tmp_path / "model.bnn").read_bytes() == dumps(program)
    assert dumps(fb.read(str(tmp_path / "model.bnn"))) == dumps(program)


@pytest.mark.parametrize("ending", [*FOREIGN, ".TFLITE"])
def test_other_formats_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(dumps(every_op()))
    with pytest.raises(fb.FormatError, match=f"'{ending.lower()}' cannot be read"):
        fb.read(path)


def test_every_format_that_is_written_is_among_them() -> None:
    assert {Path(form.file).suffix for form in FORMATS.values()} <= set(FOREIGN)


def test_content_decides_over_a_name_that_promises_nothing(tmp_path: Path) -> None:
    whole = dumps(every_op())
    (tmp_path / "firmware").write_bytes(whole)
    assert dumps(fb.read(tmp_path / "firmware")) == whole
    (tmp_path / "x.bnn").write_bytes(whole[:-1])
    with pytest.raises(fb.FormatError, match=r"x\.bnn"):
        fb.read(tmp_path / "x.bnn")
    with pytest.raises(OSError, match="absent"):
        fb.read(tmp_path / "absent.bnn")


@pytest.mark.parametrize("name", ["model.onnx", "model", "model.bnn.txt"])
def test_a_packed_model_gets_no_other_ending(tmp_path: Path, name: str) -> None:
    with pytest.raises(fb.FormatError, match=r"ends in '\.bnn'"):
        fb.save(every_op(), tmp_path / name)
    assert not list(tmp_path.iterdir())
