"""The engine's record says what its JSON files say, and those say that every bit is right."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

RECORDS = Path(__file__).parents[2] / "pipeline" / "records"
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
        assert ratio == pytest.approx(runtimes[name]["ratio"]["value"], rel=0.02)
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
