"""The engine's record says what its JSON files say, and those say that every bit is right."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from tests import RECORDS, ROOT

NAMES = {
    "ResNet-18, 32x32": "resnet18@32",
    "ResNet-18, 224x224": "resnet18@224",
    "ResNet-34, 224x224": "resnet34@224",
    "ResNet-50, 224x224": "resnet50@224",
    "MobileNetV2, 224x224": "mobilenet_v2@224",
}
PEERS = ("ort-fp32", "ort-int8", "torch-fp32", "lce:indirect")


def bench(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((RECORDS / f"2026-11-25-bench-{name}.json").read_text())
    return document


@pytest.mark.parametrize("title", NAMES)
def test_networks(title: str) -> None:
    document = bench(NAMES[title])
    runtimes = {row["name"]: row for row in document["runtimes"]}
    text = (RECORDS / "2026-11-25-engine.md").read_text()
    (line,) = re.findall(rf"^\| {re.escape(title)} \|(.*)\|$", text, re.MULTILINE)
    own, lookup, *peers = [float(cell.strip().removesuffix(" x")) for cell in line.split("|")]
    assert own == pytest.approx(runtimes["engine:xnor"]["latency_ms"]["median"], abs=0.001)
    assert lookup == pytest.approx(runtimes["engine:lookup"]["latency_ms"]["median"], abs=0.001)
    for name, ratio in zip(PEERS, peers, strict=True):
        assert ratio == pytest.approx(runtimes[name]["ratio"]["value"], abs=0.051)
    assert document["conditions"]["rounds"] >= 21
    parity = document["parity"]
    assert parity["passed"]
    for each in parity["runtimes"]:
        assert each["sign_bits_compared"] > 10**6
        assert each["sign_bits_differing"] == 0


def test_goals_of_the_design() -> None:
    """Ratios over ORT float32 and LCE, and the prototype's over ORT int8."""
    small, large = (
        {row["name"]: row["ratio"]["value"] for row in bench(f"resnet18@{size}")["runtimes"]}
        for size in (32, 224)
    )
    assert small["ort-fp32"] >= 13
    assert large["ort-fp32"] >= 9
    assert small["ort-int8"] >= 4.8
    assert large["ort-int8"] >= 3.7
    assert large["lce:indirect"] >= 6.5


def test_first_table_of_the_readme() -> None:
    """Sizes, medians and accuracies of the shipped model's benchmark."""
    document = bench("fashion-best")
    rows = {row["name"]: row for row in document["runtimes"]}
    readme = (ROOT / "README.md").read_text()
    titles = {
        "**Frostbit engine**": "engine:xnor",
        "ONNX Runtime, int8 twin of the architecture": "ort-int8",
        "ONNX Runtime, float32 twin": "ort-fp32",
        "our C99 file, gcc, no libraries": "c",
        "Larq Compute Engine (`lce:indirect`, its best x86 kernel)": "lce:indirect",
        "ONNX Runtime, our packed file": "ort",
        "PyTorch, float32 twin": "torch-fp32",
    }
    for title, name in titles.items():
        (line,) = re.findall(rf"^\| {re.escape(title)} \|(.*)\|$", readme, re.MULTILINE)
        size, latency, accuracy, differing = [cell.strip(" *") for cell in line.split("|")]
        row = rows[name]
        assert float(size.split()[0].replace(",", "")) == round(row["size_bytes"] / 1000)
        assert float(latency.split()[0]) == round(row["latency_ms"]["median"], 3)
        assert bool(accuracy) == bool(differing) == (row["accuracy"] is not None)
        if accuracy:
            assert float(accuracy.split()[0]) == pytest.approx(row["accuracy"], abs=0.005)
    compared = {each["sign_bits_compared"] for each in document["parity"]["runtimes"]}
    assert compared == {799_680_000}
    assert document["parity"]["passed"]


def test_the_boards_row_of_this_record() -> None:
    rows = {row["name"]: row for row in bench("fashion-best")["runtimes"]}
    boards = (ROOT / "docs" / "boards.md").read_text()
    assert f"| {rows['engine:xnor']['latency_ms']['median']:.3f} ms |" in boards
    (emulated,) = (line for line in boards.splitlines() if "emulated by qemu" in line)
    assert "**not timed**" in emulated
    assert not re.search(r"\d ms", emulated)
    assert re.search(r"^\| \*yours\* \|[ |]+$", boards, re.MULTILINE)


def test_start_and_layers() -> None:
    """Limits of the design on start-up, and that every layer's bits are right."""
    startup = json.loads((RECORDS / "2026-11-25-startup.json").read_text())
    assert startup["ratio"] <= 2.2
    assert startup["empty_cache_s"] < 20
    layers = json.loads((RECORDS / "2026-11-25-layers.json").read_text())
    for layer in layers["layers"]:
        assert set(layer["bits_differing"].values()) == {0}
    assert {stream["bits_differing"] for stream in layers["streams"]} == {0}
    wide = [layer for layer in layers["layers"] if layer["shape"].startswith("3x3,")]
    assert min(layer["over_engine"]["ort-fp32"]["minima"] for layer in wide) >= 18
