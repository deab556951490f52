"""QONNX's quantizers on weights and on maps: what the ``qonnx`` package computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qonnx.custom_op.general.bipolar_quant import binary_quant
from qonnx.custom_op.general.quant import quant

from frostbit.export.foreign import compare_file, read_file
from frostbit.export.onnx.quantizers import DOMAINS
from frostbit.export.reading.onnx.constants import ROUNDINGS, bipolar, levels, quantized
from frostbit.kernels.ir.program import BinaryConv, MaxPool, Quantize, Sign
from tests.export.reading.networks import model, node

RNG = np.random.default_rng(3)
SIGNED = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"}


@settings(deadline=None, max_examples=80)
@given(
    st.integers(1, 9), st.booleans(), st.booleans(), st.sampled_from(sorted(ROUNDINGS)),
    st.sampled_from([0.0, 1.0, -3.0]), st.integers(0, 1000),
)  # fmt: skip
def test_quant_of_constants(
    bits: int, signed: bool, narrow: bool, mode: str, zero: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    x = np.append(rng.normal(size=40) * 9, np.arange(-9, 9) / 2).astype(np.float32)
    scale, width = np.float32(rng.choice([0.5, 0.37, 1.0])), np.array(bits, np.float32)
    call = node("Quant", "x s z b", "y", signed=signed, narrow=narrow, rounding_mode=mode)
    if bits == 1 and narrow and not signed:
        return  # one value is left
    got = quantized(x, scale, np.float32(zero), levels(call, width, "Quant 'y'"))
    wanted = quant(x, scale, np.float32(zero), width, signed, narrow, mode)
    assert got.dtype == np.float32
    assert np.array_equal(got, wanted)
    assert np.array_equal(bipolar(x, scale), binary_quant(x, scale))


def network(kind: str) -> onnx.ModelProto:
    """Two binary layers; their weights and maps pass quantizers of one kind."""
    arrays = {
        "stem": RNG.normal(size=(8, 3, 3, 3)).astype(np.float32),
        "weights": RNG.normal(size=(6, 8, 2, 2)).astype(np.float32),
        "head": RNG.normal(size=(24, 5)).astype(np.float32),
        "one": 1.0, "zero": 0.0, "third": 1 / 3, "bit": 1.0, "byte": 8.0, "step": 1 / 64,
        "sizes": RNG.uniform(0.1, 1, (6, 1, 1, 1)).astype(np.float32), "row": [1, -1],
        "mean": RNG.normal(size=6).astype(np.float32), "spread": RNG.uniform(1, 9, 6).astype("f"),
    }  # fmt: skip

    def quantizer(source: str, scale: str, output: str) -> onnx.NodeProto:
        if kind == "BipolarQuant":
            return node("BipolarQuant", f"{source} {scale}", output)
        attributes = {**SIGNED, "signed": 0} if kind == "binary" else SIGNED
        return node("Quant", f"{source} {scale} zero bit", output, **attributes)

    nodes = [
        node("Quant", "x step zero byte", "q", **SIGNED),
        node("Conv", "q stem", "h"),
        quantizer("h", "third", "s"),
        node("BipolarQuant", "weights sizes", "w"),
        node("Conv", "s w", "c"),
        node("BatchNormalization", "c mean mean mean spread", "n"),
        quantizer("n", "third", "t"),
        node("MaxPool", "t", "p", kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", "p row", "f"),
        node("BipolarQuant", "head one", "d"),
        node("MatMul", "f d", "y"),
    ]
    return model(nodes, arrays, (1, 3, 7, 7))


@pytest.mark.parametrize(("kind", "layers"), [("BipolarQuant", 2), ("Quant", 2), ("binary", 1)])
def test_layers_of_one_bit(kind: str, layers: int, tmp_path: Path) -> None:
    """An unsigned bit is that of ``x > 0``: a factor below 0, which no pool of bits can pass."""
    path = tmp_path / "model.qonnx"
    onnx.save(network(kind), path)
    imported = read_file(path)
    kinds = [type(op) for op in imported.program.ops]
    assert kinds.count(BinaryConv) == len(imported.restored) == layers
    assert kinds.count(Sign) == 2
    assert kinds.count(Quantize) == kinds.count(MaxPool) == 1
    images = RNG.normal(size=(2, 7, 7, 3)).astype(np.float32)
    found = compare_file(path, imported, images)
    assert found.runtime == "qonnx"
    assert found.whole == 2
    assert found.sign_bits >= 2 * (5 * 5 * 8 + 4 * 4 * 6)


@pytest.mark.parametrize("domain", sorted(DOMAINS))
def test_names_of_earlier_years(domain: str, tmp_path: Path) -> None:
    proto = network("BipolarQuant")
    for each in (*proto.graph.node, proto.opset_import[1]):
        if each.domain:
            each.domain = domain
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    assert compare_file(path, read_file(path)).sign_bits
