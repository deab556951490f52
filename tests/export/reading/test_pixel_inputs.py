"""ONNX files that take uint8 pixels, our own exports among them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from frostbit.export.foreign import compare_file, read_file
from frostbit.export.onnx.packed import convert
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import program as ir
from frostbit.kernels.ir.file import load_program
from frostbit.kernels.ir.program import FormatError, Program
from tests import ROOT
from tests.export.reading.networks import Arrays, model, node, read, run
from tests.nets import every_op

RNG = np.random.default_rng(0)
WEIGHTS = {"w": RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)}
END = [node("GlobalAveragePool", "m", "g"), node("Flatten", "g", "y")]
CAST = node("Cast", "x", "f", to=TensorProto.FLOAT)


def pixels(program: Program, count: int = 3) -> np.ndarray:
    shape = (count, *program.input_shape)
    return np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)


def taking_pixels(
    nodes: list[onnx.NodeProto], arrays: Arrays, shape: tuple[int, ...]
) -> onnx.ModelProto:
    made = model(nodes, arrays, shape)
    made.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return made


def assert_same(made: onnx.ModelProto) -> Program:
    """What is read of a file of pixels NCHW gives the file's answers."""
    found = read(made).program
    assert found.input_kind == "u8"
    images = pixels(found)
    wanted = run(made, images.transpose(0, 3, 1, 2))
    got = Engine(found).run(images)
    assert np.abs(got - wanted).max() < 1e-5 * np.ptp(wanted)
    return found


@pytest.mark.parametrize("seed", [0, 1, None])
def test_our_own_files_come_back_equal(seed: int | None, tmp_path: Path) -> None:
    shipped = load_program(ROOT / "pipeline" / "records" / "fashion-best.bnn")
    program = shipped if seed is None else every_op(seed)
    path = tmp_path / "model.onnx"
    path.write_bytes(convert(program))
    found = read_file(path)
    assert found.program.input_kind == "u8"
    stems = [each for each in (program.ops[0], found.program.ops[0]) if isinstance(each, ir.Conv)]
    np.testing.assert_array_equal(stems[0].pad_value, stems[1].pad_value)
    images = pixels(program)
    np.testing.assert_array_equal(Engine(found.program).run(images), Engine(program).run(images))
    compared = compare_file(path, found)
    assert compared.sign_bits > 0
    assert (compared.flips, compared.answers, compared.whole) == (0, 0.0, compared.images)


def test_padding_with_a_pixel_is_that_of_the_convolution() -> None:
    pads = {**WEIGHTS, "pads": [0, 0, 1, 1, 0, 0, 1, 1], "grey": 127.0}
    nodes = [CAST, node("Pad", "f pads grey", "p"), node("Conv", "p w", "m"), *END]
    found = assert_same(taking_pixels(nodes, pads, (1, 3, 6, 5)))
    stem = found.ops[0]
    assert isinstance(stem, ir.Conv)
    assert stem.inputs == (ir.INPUT,)
    assert stem.pad_value.tolist() == [127] * 3
    half = {**pads, "grey": 0.5}  # is none
    assert_same(taking_pixels(nodes, half, (1, 3, 6, 5)))


@pytest.mark.parametrize(
    "nodes",
    [
        [node("Transpose", "x", "t", perm=[0, 2, 3, 1]), node("Cast", "t", "f", to=1),
         node("Transpose", "f", "c", perm=[0, 3, 1, 2]), node("Conv", "c w", "m"), *END],
        [CAST, node("MaxPool", "f", "p", kernel_shape=[2, 2]), node("Conv", "p w", "m"), *END],
        [CAST, node("Mul", "f w0", "s"), node("Relu", "s", "m"), *END],
        [node("Flatten", "x", "r"), node("Cast", "r", "f", to=1), node("MatMul", "f d", "y")],
        [CAST, node("Concat", "f f", "c", axis=1), node("Relu", "c", "m"), *END],
        [CAST, node("Sub", "f w0", "s"), node("Sign", "s", "b"), node("Conv", "b w", "m"), *END],
    ],
)  # fmt: skip
def test_what_reads_pixels(nodes: list[onnx.NodeProto]) -> None:
    arrays = {
        **WEIGHTS,
        "w0": np.full((1, 3, 1, 1), 100.5, np.float32),
        "d": RNG.normal(size=(90, 4)).astype(np.float32),
    }
    assert_same(taking_pixels(nodes, arrays, (1, 3, 6, 5)))


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Add", "x one", "s"), node("Cast", "s", "m", to=1), *END], "Add 's': of type UINT8"),
        ([node("MaxPool", "x", "s", kernel_shape=[2, 2]), node("Cast", "s", "m", to=1), *END],
         "MaxPool 's': of type UINT8"),
        ([node("Flatten", "x", "y")], "the output is made of pixels"),
        ([node("Cast", "x", "c", to=TensorProto.INT32), node("Cast", "c", "m", to=1), *END],
         "Cast 'c': to another type"),
    ],
)  # fmt: skip
def test_arithmetic_of_bytes_is_refused(nodes: list[onnx.NodeProto], words: str) -> None:
    made = taking_pixels(nodes, {"one": np.ones((), np.uint8)}, (1, 3, 6, 5))
    with pytest.raises(FormatError, match=words):
        read(made)
