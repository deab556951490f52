"""The benchmark of single convolutions, on one small shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.figures import layer_peers, layers
from tests.figures.layer_peers import EngineLayer, Shape

TINY = Shape(5, 40, 70, 3, 2)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layer_peers, "SHAPES", (TINY,))
    monkeypatch.setattr(layer_peers, "STREAMS", ((6, 40),))


def test_a_shape() -> None:
    assert str(TINY) == "3x3 /2, 40 to 70, 5x5"
    assert (TINY.pixels, TINY.taps, TINY.macs) == (9, 360, 9 * 360 * 70)


def test_record_and_table(tmp_path: Path) -> None:
    files = ["--json", str(tmp_path / "l.json"), "--markdown", str(tmp_path / "l.md")]
    done = CliRunner().invoke(layers.main, ["--rounds", "2", *files])
    assert done.exit_code == 0, done.output
    document = json.loads((tmp_path / "l.json").read_text())
    (layer,), (stream,) = document["layers"], document["streams"]
    assert stream["bits_differing"] == 0
    assert stream["milliseconds_16_bits"] > 0
    assert layer["bits_differing"]
    assert not any(layer["bits_differing"].values())
    assert {"ort-fp32", "ort-int8:nchw", "ort-int8:nhwc"} < set(layer["latency_ms"])
    assert all(ms["n"] > 0 for ms in layer["latency_ms"].values())
    fastest = min(layer["latency_ms"][f"ort-int8:{each}"]["min"] for each in ("nchw", "nhwc"))
    engine = next(iter(layer["latency_ms"].values()))["min"]
    assert layer["over_engine"]["ort-int8"]["minima"] == pytest.approx(fastest / engine, rel=0.01)
    assert "| 3x3 /2, 40 to 70, 5x5 |" in (tmp_path / "l.md").read_text()


def test_a_wrong_layer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EngineLayer, "check", lambda self, images: 3)
    done = CliRunner().invoke(layers.main, ["--rounds", "1"])
    assert done.exit_code == 1
    assert "bits differ from the reference" in done.output
