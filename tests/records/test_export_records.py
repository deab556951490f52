"""The records of the exports hold what is asked of them, and the documents say what they say."""

import json
import statistics
from typing import Any

import pytest

from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.ir.file import dumps
from frostbit.pipeline.parity.export import FORMATS
from tests import ROOT
from tests.figures import exports, parity
from tests.figures.exports import NETWORKS, TIMED, sizes

RECORDS = ROOT / "pipeline" / "records"
EXPORTS = (ROOT / "docs" / "exports.md").read_text()
FIGURES: dict[str, Any] = json.loads((RECORDS / "2026-11-24-export-figures.json").read_text())
SIZES = {(row["network"], row["file"]): row for row in FIGURES["sizes"]}
PARITY: dict[str, Any] = json.loads((RECORDS / "2026-11-24-parity.json").read_text())
COMPACT = ("model.bnn", "model.onnx", "model.int8.onnx", "model.tflite")


def test_sizes_are_what_the_exporters_write_now() -> None:
    """A change of bytes belongs into the record as well as into the changelog."""
    for each in sizes(TIMED):
        row = SIZES[each.network, each.file]
        assert (row["bytes"], row["bits_per_binary_weight"]) == (
            each.bytes, each.bits_per_binary_weight,
        )  # fmt: skip
    assert len(dumps(synthetic(TIMED))) == sum(FIGURES["parts"][TIMED].values())
    assert {network for network, _ in SIZES} == set(NETWORKS)


@pytest.mark.parametrize("network", [name for name in NETWORKS if "mobilenet" not in name])
def test_a_binary_weight_takes_one_bit(network: str) -> None:
    for file in (*COMPACT, "model.c"):
        assert 1.0 <= SIZES[network, file]["bits_per_binary_weight"] <= 1.02


def test_resnet18_is_a_tenth_of_its_float32_twin() -> None:
    twin = SIZES[TIMED, "float32 twin.onnx"]["bytes"]
    for file in COMPACT:
        assert SIZES[TIMED, file]["bytes"] * 10 <= twin


def test_writing_takes_no_time() -> None:
    rows = {row["file"]: row["seconds"] for row in FIGURES["writing"]}
    assert rows.keys() == {"model.bnn", *(form.file for form in FORMATS.values())}
    for file, seconds in rows.items():
        assert len(seconds) >= 5
        assert max(seconds) < (10 if file == "model.c" else 3)
        assert f"{file} {statistics.median(seconds):.2f}" in EXPORTS


def test_the_int8_form_is_twice_as_fast() -> None:
    assert len(FIGURES["int8"]) == len(exports.CHAINS) + 1
    for row in FIGURES["int8"]:
        assert row["low"] >= 2
        ratio = f"{row['ratio']:.2f} ({row['low']:.2f} to {row['high']:.2f})"
        cells = [row["network"], f"{row['float32_ms']:.2f}", f"{row['int8_ms']:.2f}", ratio]
        assert "| " + " | ".join(cells) + " |" in EXPORTS


def test_the_documents_show_the_sizes() -> None:
    shown = [name for name in NETWORKS if name != "resnet34@32"]
    for file in (*COMPACT, "model.float.onnx", "model.qonnx", "float32 twin.onnx"):
        cells = [f"{SIZES[network, file]['bytes']:,}" for network in shown]
        assert f"| {file} | " + " | ".join(cells) in EXPORTS
    for kind in FIGURES["parts"][TIMED]:
        cells = [f"{FIGURES['parts'][network][kind]:,}" for network in shown]
        assert f"| {kind} | " + " | ".join(cells) in EXPORTS


def test_every_network_was_compared_on_every_runtime() -> None:
    rows = PARITY["networks"]
    sized = {f"{name}@{parity.SIZE}" for name in parity.names()}
    measured = {row["network"] for row in rows}
    assert measured | set(PARITY["not_measured"]) == {*sized, parity.RANDOM}
    assert measured >= {"resnet18@32", "resnet34@32", "mobilenet_v2@32", parity.RANDOM}
    for row in rows:
        assert row["missing"] == []
        assert row["passed"]
        assert row["exact"]
        assert row["sign_bits_differing"] == 0
        assert row["sign_bits_compared_each"] > 0
        assert row["logits_max_abs_diff"] == 0 or not row["head_exact"]
        assert row["logits_max_rel_diff"] <= 1e-5
        kinds = {name.split(":")[0] for name in row["runtimes"]}
        assert kinds == {"reference", "engine", "ort", "lce", "c", "torch"}
        settled = [name for name in row["runtimes"] if name.startswith("torch:batch")]
        assert len(settled) == (4 if row["weights"] == "trained" else 0)
        assert {"lce:default", "lce:indirect", "lce:reference"} < set(row["runtimes"])
