"""Synthetic networks: the papers' structure, proven exact, alive, small when exported, stable."""

import re
import subprocess
import sys

import numpy as np
import onnx
import pytest
from safetensors import deserialize

from frostbit.export.c import convert as to_c
from frostbit.export.lce import convert as to_lce
from frostbit.export.lce.summary import summarise_tflite
from frostbit.export.onnx import int8 as to_onnx_int8
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx.runtime import FORMS, OrtRuntime
from frostbit.export.parity import compare
from frostbit.export.synthetic.networks import NAMES, UnknownNetwork, synthetic
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import bits
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import dumps, program_hash
from frostbit.kernels.ir.program import BinaryConv, Conv, Dense, MaxPool, Program
from frostbit.kernels.ir.verify import infer_types
from tests import ROOT
from tests.kernels.programs import random_images


def binary_weights(program: Program) -> int:
    return sum(op.channels_out * op.taps for op in program.ops if isinstance(op, BinaryConv))


@pytest.mark.parametrize("name", NAMES)
def test_body_and_head_are_proven_exact(name: str) -> None:
    verdict = analyse(synthetic(name))
    assert verdict.body_exact
    assert verdict.head_exact
    assert verdict.bits_left > 2


@pytest.mark.parametrize(
    ("name", "binary", "float_weights"),
    [
        # torchvision's counts (11,689,512, 21,797,672, 25,557,032) less BatchNorm and biases
        ("resnet18@224", 10_985_472, 9_408 + 172_032 + 512_000),
        ("resnet34@224", 21_086_208, 9_408 + 172_032 + 512_000),
        ("resnet50@224", 20_676_608, 9_408 + 2_768_896 + 2_048_000),
        ("resnet18@32", 10_985_472, 1_728 + 172_032 + 5_120),
        # 3,504,872 less 34,112 of BatchNorm and 1,000 biases
        ("mobilenet_v2@224", 2_124_672, 864 + 64_224 + 1_280_000),
        ("mobilenet_v2@32", 2_124_672, 864 + 64_224 + 12_800),
        # eight convolutions of 9,217,728 weights, the first of them the stem
        ("vgg11_bn@32", 9_216_000, 1_728 + 5_120),
    ],
)
def test_weights_are_those_of_the_papers(name: str, binary: int, float_weights: int) -> None:
    program = synthetic(name)
    assert binary_weights(program) == binary
    others = [op.weights.size for op in program.ops if isinstance(op, (Conv, Dense))]
    assert sum(others) == float_weights


def test_maps_have_the_papers_sizes() -> None:
    program = synthetic("resnet18@224")
    types = infer_types(program)
    assert types["conv1"].shape == (112, 112, 64)
    assert types["maxpool"].shape == (56, 56, 64)
    assert [types[f"layer{i}.1.sign"].shape for i in (1, 2, 3, 4)] == [
        (56, 56, 64), (28, 28, 128), (14, 14, 256), (7, 7, 512),
    ]  # fmt: skip
    small = infer_types(synthetic("resnet50@32"))
    assert small["conv1"].shape == (32, 32, 64)
    assert small["layer4.2.sign"].shape == (4, 4, 2048)
    assert not any(isinstance(op, MaxPool) for op in synthetic("resnet50@32").ops)


@pytest.mark.parametrize(
    "name", ["resnet18@32", "resnet34@32", "resnet50@32", "mobilenet_v2@32", "resnet18@224"]
)
def test_no_layer_is_dead(name: str) -> None:
    """About half of the bits are +1, except where the maximum of nine bits follows."""
    program = synthetic(name)
    types = infer_types(program)
    signs = Engine(program, keep=True).signs(random_images(program, 2))
    for op, words in signs.items():
        share = 1 - bits.popcount(words.reshape(1, -1))[0] / (2 * np.prod(types[op].shape))
        low, high = (0.05, 0.2) if name.endswith("@224") and op == "sign1" else (0.4, 0.6)
        assert low < share < high, op
        assert (words[0] != words[1]).any(), op


@pytest.mark.parametrize("name", ["resnet18@32", "resnet50@32", "mobilenet_v2@32"])
def test_every_onnx_form_runs_it_exactly(name: str) -> None:
    program = synthetic(name)
    runtimes = [OrtRuntime(program, form=form) for form in FORMS]
    report = compare(program, runtimes, random_images(program, 2))
    assert report.passed
    assert all(each.sign_bits_compared > 500_000 for each in report.comparisons)


@pytest.fixture(scope="module")
def resnet() -> Program:
    return synthetic("resnet18@224")


@pytest.mark.parametrize("converter", [to_onnx, to_onnx_int8])
def test_exported_weights_take_one_bit_each(resnet: Program, converter: object) -> None:
    """Everything that belongs to binary weights counts: bits, tables, shapes, unpacking nodes."""
    data = converter.convert(resnet)  # type: ignore[attr-defined]
    graph = onnx.load_from_string(data).graph
    binary = {op.name for op in resnet.ops if isinstance(op, BinaryConv)}
    parts = [*graph.initializer, *graph.node]
    spent = sum(
        part.ByteSize()
        for part in parts
        if part.name.startswith("lut/")
        or (part.name.split("/")[0] in binary and "/weights" in part.name)
    )
    assert 1.0 <= 8 * spent / binary_weights(resnet) <= 1.02
    assert len(data) * 10 <= len(to_onnx.convert(resnet, packed=False))


def test_the_other_files_take_one_bit_each_too(resnet: Program) -> None:
    count = binary_weights(resnet)
    stored = {name: each["data"] for name, each in deserialize(dumps(resnet))}
    binary = {op.name for op in resnet.ops if isinstance(op, BinaryConv)}
    spent = sum(
        len(data) for name, data in stored.items() if name in {f"{n}/words" for n in binary}
    )
    assert 1.0 <= 8 * spent / count <= 1.02
    layers = summarise_tflite(to_lce.convert(resnet)).layers
    spent = sum(
        each.bytes - 4 * each.parameters.get(32, 0) for each in layers if 1 in each.parameters
    )
    assert 0.99 <= 8 * spent / count <= 1.02  # multipliers of one are stored once
    said = re.search(rb"for ([\d,]+) binary weights, ([\d.]+) bits each", to_c.convert(resnet))
    assert said is not None
    assert int(said[1].replace(b",", b"")) == count
    assert 1.0 <= float(said[2]) <= 1.02


def test_the_tflite_file_is_a_tenth_of_fp32() -> None:
    """At 224 as well, where constants of a map's size would weigh most."""
    program = synthetic("resnet18@224")
    assert len(to_lce.convert(program)) * 10 <= len(to_onnx.convert(program, packed=False))


def test_a_seed_gives_the_same_network_everywhere(resnet: Program) -> None:
    """The hash is fixed: records of sizes and speeds name these networks."""
    assert program_hash(synthetic("resnet18@32"))[:16] == "a7a4d522acf3e96d"
    assert program_hash(synthetic("resnet18@224", seed=1)) != program_hash(resnet)


@pytest.mark.parametrize(
    ("asked", "near"),
    [("resnet19@32", "resnet18@32"), ("ResNet50@224", "resnet50@224"), ("vgg11@32", "vgg11_bn@32")],
)
def test_an_unknown_name_is_answered_with_the_nearest(asked: str, near: str) -> None:
    with pytest.raises(UnknownNetwork, match=f"unknown network '{asked}'; did you mean '{near}'"):
        synthetic(asked)


def test_it_needs_no_torch() -> None:
    code = "import sys, frostbit.export.synthetic.networks\n"
    code += "print(sorted({'torch', 'onnx'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
