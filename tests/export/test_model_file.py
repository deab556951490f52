"""``read`` and ``save``: what can be read, compared with its source; others refused by name."""

from pathlib import Path

import numpy as np
import pytest

import frostbit as fb
from frostbit.export.errors import SourceDiffers
from frostbit.export.foreign import FORMATS as READABLE
from frostbit.export.model_file import FOREIGN
from frostbit.export.reading.tflite import call
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.file import dumps
from frostbit.pipeline.parity.export import FORMATS
from tests.export.lce.lce_fixture import require_lce
from tests.export.reading.foreign import answers, far, tflite
from tests.nets import every_op


def test_what_is_saved_is_read(tmp_path: Path) -> None:
    program = every_op()
    fb.save(program, tmp_path / "model.bnn")
    assert (tmp_path / "model.bnn").read_bytes() == dumps(program)
    assert dumps(fb.read(str(tmp_path / "model.bnn"))) == dumps(program)


@pytest.mark.parametrize("ending", [*sorted(set(FOREIGN) - set(READABLE)), ".PTH"])
def test_other_formats_are_refused_by_name(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    path.write_bytes(dumps(every_op()))
    with pytest.raises(fb.FormatError, match=f"'{ending.lower()}' cannot be read"):
        fb.read(path)


def test_a_network_of_another_tool_chain_is_compared_and_read(tmp_path: Path) -> None:
    require_lce()
    known = answers("larq_mnist")
    path = tmp_path / "model.TFLITE"
    path.write_bytes(tflite("larq_mnist"))
    got = reference.run(fb.read(path), known.images)
    assert far(got, known.output) < 1e-5
    logits = reference.run(fb.read(path, logits=True, compare=False), known.images)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    assert np.allclose(got, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)
    fb.save(fb.read(path, compare=False), tmp_path / "model.bnn")
    assert np.array_equal(reference.run(fb.read(tmp_path / "model.bnn"), known.images), got)


def test_without_the_sources_runtime_a_warning_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTBIT_LCE", str(tmp_path / "absent"))
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite("bits_one"))
    with pytest.warns(UserWarning, match=r"not compared with its source: .*--install-lce"):
        fb.read(path)


def test_what_computes_something_else_is_not_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_lce()
    path = tmp_path / "model.tflite"
    path.write_bytes(tflite("bits_one"))
    monkeypatch.setattr(call, "_same", lambda size, kernel, stride, dilation: (0, 2))
    with pytest.raises(SourceDiffers, match="differ from the source's"):
        fb.read(path)


def test_logits_of_a_packed_model_are_refused(tmp_path: Path) -> None:
    fb.save(every_op(), tmp_path / "model.bnn")
    with pytest.raises(ValueError, match="other tool chains"):
        fb.read(tmp_path / "model.bnn", logits=True)


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
