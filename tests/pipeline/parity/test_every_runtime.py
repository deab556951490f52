"""Every exporter and runtime at once, as ``pipeline verify`` runs them, and what makes it fail."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from hypothesis import given, settings
from torch import fx

from frostbit.export.errors import ExportError
from frostbit.export.lce.graph import reach
from frostbit.export.parity import compare
from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import (
    INPUT,
    AvgPool,
    Conv,
    Dense,
    GlobalSum,
    MaxPool,
    Preprocessing,
    Program,
    Window,
)
from frostbit.kernels.machine import cpu
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.data.inputs import Inputs, as_taken
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.pack import load_settled
from frostbit.pipeline.parity import verify as verifying
from frostbit.pipeline.parity.runtimes import ORT_FILES, Source
from frostbit.pipeline.parity.torch_program import TorchProgram
from tests.export.lce.lce_fixture import require_lce
from tests.kernels.programs import Builder, exact_programs, programs, random_images
from tests.needs import need, need_fashion
from tests.nets import every_op, images, imported, toy

SAME = Window((3, 3), pads=(1, 1, 1, 1))
SETTINGS = len(cpu.available()) + 1 + 4 * (len(ORT_FILES) - 1) + 1 + 1 + 3 + 4
"""Engine's kernels, reference, ONNX forms at four levels, QONNX, C, LCE's kernels, torch."""


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    require_lce()
    need("cc")


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def everything(program: Program, images: np.ndarray) -> verifying.Verified:
    formats = verifying.check_formats(())
    inputs = Inputs(images, None, "")
    return verifying.verify(Source(program, None, None), formats, inputs, asked=False)


@settings(deadline=None, max_examples=8)
@given(exact_programs())
def test_random_programs_of_all_ops_agree_everywhere(program: Program) -> None:
    """The exporters' own tests draw more of them, one format each."""
    images = random_images(program, 3)
    logits = reference.run(program, images)
    if (logits == logits[0]).all():
        return  # a dead network: the comparison would refuse it
    found = everything(program, images)
    pools = [op for op in program.ops if isinstance(op, (MaxPool, AvgPool))]
    refused = [op.name for op in pools if reach(op.window) != op.window.kernel]
    if refused:
        assert {m.name for m in found.missing} == {"lce:default", "lce:indirect", "lce:reference"}
        assert f"'{refused[0]}'" in found.missing[0].remedy
    else:
        assert found.missing == ()
    names = [each.name for each in found.report.comparisons]
    assert len(names) == SETTINGS - (3 if refused else 0)
    assert found.report.passed, [c for c in found.report.comparisons if not found.report.keeps(c)]
    compared = {each.sign_bits_compared for each in found.report.comparisons}
    assert len(compared) == 1


# ---------------------------------------------------------------- float32 rounds nothing


def nhwc(value: torch.Tensor) -> np.ndarray:
    return value.permute(0, 2, 3, 1).numpy()


def assert_nothing_rounds(program: Program, images: np.ndarray) -> None:
    """float32 and float64 at every value before an inexact head, in PyTorch and in NumPy."""
    single = TorchProgram(program).trace(images)
    double = TorchProgram(program, dtype=torch.float64).trace(images)
    defined = reference.trace(program, images)
    for op in program.ops:
        if op is program.ops[-1] and not analyse(program).head_exact:
            break
        assert single[op.name].dtype == torch.float32
        assert double[op.name].dtype == torch.float64
        assert np.array_equal(nhwc(single[op.name]), nhwc(double[op.name])), op.name
        assert np.array_equal(nhwc(single[op.name]), defined[op.name]), op.name


@settings(deadline=None, max_examples=40)
@given(exact_programs())
def test_float32_is_float64_at_every_value_of_random_programs(program: Program) -> None:
    assert_nothing_rounds(program, random_images(program, 2))


@pytest.mark.parametrize("name", ["resnet18@32", "mobilenet_v2@32"])
def test_float32_is_float64_at_every_value_of_standard_networks(name: str) -> None:
    program = synthetic(name)
    assert_nothing_rounds(program, random_images(program, 2))


class Everything(fx.Interpreter):
    """Keeps what every node gives."""

    def __init__(self, gm: fx.GraphModule) -> None:
        super().__init__(gm)
        self.kept: dict[str, torch.Tensor] = {}

    def run_node(self, n: fx.Node) -> torch.Tensor:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.kept[n.name] = value
        return value


def test_float32_is_float64_at_every_value_of_a_trained_network(
    trained: Path, packed: Path
) -> None:
    """The settled module itself; values that float32 cannot hold would differ."""
    program = load_program(packed)
    images = random_images(program, 16)
    assert_nothing_rounds(program, images)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    single, double = Everything(load_settled(trained)), Everything(load_settled(trained).double())
    with torch.inference_mode():
        single.run(pixels.float())
        try:
            torch.set_default_dtype(torch.float64)  # of the signs it makes
            double.run(pixels.double())
        finally:
            torch.set_default_dtype(torch.float32)
    assert len(single.kept) > 10
    for name, value in single.kept.items():
        assert double.kept[name].dtype == torch.float64
        assert torch.equal(value.double(), double.kept[name]), name


@pytest.mark.parametrize("channels", [1, 2])
def test_a_map_of_one_channel_is_not_taken_for_channels_last(channels: int) -> None:
    """torch's own convolution is wrong there at stride (1, 3)."""
    b = Builder((2, 2, channels), 1)
    strided = Window((1, 2), (1, 3))
    x = b.conv(INPUT, 33, strided)
    b.global_sum(b.conv(INPUT, 40, strided))
    y = b.binary_conv(b.sign(b.conv(INPUT, channels, SAME)), 40, strided)
    program = b.finish(b.add(b.binary_conv(b.sign(x), 40, Window((1, 1))), y))
    assert_nothing_rounds(program, b.images(3))


def unsnapped() -> tuple[Program, np.ndarray]:
    """A stem whose weights lie on no grid, and grey images on which its sum is all rounding."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((64, 5, 5, 3)).astype(np.float32)
    grey = 117
    added = -(weights.astype(np.float64).sum(axis=(1, 2, 3)) * grey).astype(np.float32)
    b = Builder((9, 9, 3))
    stem = Conv("stem", (INPUT,), Window((5, 5)), weights, added, np.zeros(3, np.uint8))
    b._append(stem, "f32", (5, 5, 64))
    program = b.finish(b.binary_conv(b.sign("stem"), 8, Window((3, 3)), affine=False))
    images = random_images(program, 6)
    images[:3] = grey
    return program, images


def test_float32_of_a_network_off_the_grid_is_not_float64() -> None:
    program, images = unsnapped()
    with pytest.raises(AssertionError):
        assert_nothing_rounds(program, images)


def test_a_network_off_the_grid_is_told_apart() -> None:
    """Each runtime adds in its own order: signs differ, by rounding, and the verdict says so."""
    program, images = unsnapped()
    verdict = analyse(program)
    assert not verdict.body_exact
    assert verdict.tightest == "stem"
    found = everything(program, images)
    assert not found.report.promised
    differing = [c for c in found.report.comparisons if c.sign_bits_differing]
    assert {"ort", "torch:program:batch1-threads1"} <= {c.name for c in differing}
    assert all(c.sign_bits_differing == c.sign_bits_rounded for c in differing)
    assert "passed within the tolerance" in found.report.verdict
    assert "float32 rounds at 'stem'" in found.report.verdict


# ---------------------------------------------------------------- the command


def test_verify_runs_every_setting_on_a_trained_network(
    trained: Path, packed: Path, tmp_path: Path
) -> None:
    """With ``--run``: the model lies elsewhere."""
    json_file = tmp_path / "verify.json"
    result = invoke("verify", packed, "--run", trained, "--json", json_file)
    assert result.exit_code == 0, result.output
    found = json.loads(json_file.read_text())
    assert (found["images"], found["dataset"], found["passed"]) == (360, "digits", True)
    rows = found["runtimes"]
    assert len(rows) == SETTINGS
    assert found["missing"] == []
    for row in rows:
        assert row["name"].split(":")[0] in ("reference", "engine", "ort", "lce", "torch", "c")
        assert row["sign_bits_compared"] > 360 * 1000
        assert row["sign_bits_differing"] == 0
        assert row["logits_max_abs_diff"] == 0
        assert row["top1_agreement"] == 1
        assert row["accuracy"] == rows[0]["accuracy"] > 50
    names = {row["name"] for row in rows}
    assert {f"torch:batch{b}-threads{t}" for b in (1, 256) for t in (1, 2)} < names


@pytest.mark.parametrize("formats", ["onnx,bnn", "onnx , bnn"])
def test_formats_may_stand_between_commas(packed: Path, formats: str) -> None:
    result = invoke("verify", packed, "--formats", formats, "--data", "random", "--images", 5)
    assert result.exit_code == 0, result.output
    assert "parity over 5 random images" in result.output
    assert "ort:basic" in result.output
    assert "lce" not in result.output


def test_the_images_of_a_named_data_set_or_folder(packed: Path, tmp_path: Path) -> None:
    program = load_program(packed)
    anonymous = tmp_path / "anonymous.bnn"
    save_program(dataclasses.replace(program, dataset=""), anonymous)
    result = invoke("verify", anonymous, "--formats", "bnn", "--data", "digits", "--images", 7)
    assert result.exit_code == 0, result.output
    assert "parity over 7 digits images" in result.output
    for where, words in (
        ("digit", "did you mean 'digits'"),
        ("no/such/folder", "is no folder and no data set"),
    ):
        result = invoke("verify", packed, "--formats", "bnn", "--data", where)
        assert result.exit_code == 2
        assert words in result.stderr


def test_a_data_set_of_other_images_is_refused(packed: Path) -> None:
    need_fashion()
    result = invoke("verify", packed, "--formats", "bnn", "--data", "fashion-mnist-14")
    assert result.exit_code == 2
    assert "do not fit" in result.stderr


def test_random_weights_need_no_file() -> None:
    result = invoke("verify", "--synthetic", "resnet18@32", "--formats", "bnn,torch", "--images", 2)
    assert result.exit_code == 0, result.output
    assert "torch:program:batch1-threads2" in result.output
    assert "proves nothing about its training" in result.output
    result = invoke("verify", "--synthetic", "resnet19@32")
    assert (result.exit_code, "did you mean" in result.stderr) == (2, True)
    assert invoke("verify").exit_code == 2


def test_a_run_that_is_not_the_models_is_refused(packed: Path, trained: Path) -> None:
    program = load_program(packed)
    other = packed.parent / "other.bnn"
    save_program(dataclasses.replace(program, settled_hash="f" * 64), other)
    result = invoke("verify", other, "--run", trained, "--formats", "torch")
    assert result.exit_code == 2
    assert "are not those the model was packed from" in result.stderr


@pytest.mark.parametrize("file", ["model.onnx", "model.int8.onnx", "model.tflite", "model.c"])
def test_a_damaged_export_is_named(packed: Path, tmp_path: Path, file: str) -> None:
    model = tmp_path / "model.bnn"
    model.write_bytes(packed.read_bytes())
    (tmp_path / file).write_bytes(b"\x08damaged")
    result = invoke("verify", model, "--data", "random", "--images", 2)
    assert result.exit_code == 2
    (line,) = result.stderr.strip().splitlines()
    assert file in line
    assert "export it again with --force" in line


@pytest.mark.parametrize("file", ["model.onnx", "model.c"])
def test_an_export_of_a_network_of_another_shape_is_named(
    packed: Path, tmp_path: Path, file: str
) -> None:
    from frostbit.export.c import convert as to_c
    from frostbit.export.onnx import packed as to_onnx

    model = tmp_path / "model.bnn"
    model.write_bytes(packed.read_bytes())
    convert = to_c.convert if file.endswith(".c") else to_onnx.convert
    (tmp_path / file).write_bytes(convert(every_op()))
    result = invoke("verify", model, "--data", "random", "--images", 2)
    assert result.exit_code == 2
    assert f"{file}'" in result.stderr
    assert "another model" in result.stderr


def test_an_export_of_other_weights_is_seen_and_said(packed: Path, tmp_path: Path) -> None:
    """Signs of the shipped file itself are compared, not only its logits."""
    from frostbit.export.onnx import packed as to_onnx
    from frostbit.kernels.ir.program import BinaryConv

    program = load_program(packed)
    model = tmp_path / "model.bnn"
    model.write_bytes(packed.read_bytes())
    first = next(op for op in program.ops if isinstance(op, BinaryConv))
    flipped = dataclasses.replace(
        first, words=bits.pack(-bits.unpack(first.words, first.channels_in))
    )
    ops = tuple(flipped if op is first else op for op in program.ops)
    other = to_onnx.convert(dataclasses.replace(program, ops=ops))
    (tmp_path / "model.onnx").write_bytes(other)
    result = invoke("verify", model, "--formats", "onnx", "--images", 5, "--json", tmp_path / "v")
    assert result.exit_code == 1
    assert "model.onnx is an export of another model" in result.output
    rows = json.loads((tmp_path / "v").read_text())["runtimes"]
    assert all(row["sign_bits_differing"] > 0 for row in rows)
    assert {row["first_difference"] for row in rows} == {
        op.name for op in program.ops if op.name.startswith("body.1") and "activation" in op.name
    }


def test_a_format_that_cannot_hold_the_model_is_named(tmp_path: Path) -> None:
    x, program = "most", toy()
    wide = Window((2, 2), (1, 1), (1, 0, 0, 1), (2, 2))
    ops = tuple(dataclasses.replace(op, window=wide) if op.name == x else op for op in program.ops)  # type: ignore[call-arg]
    model = tmp_path / "model.bnn"
    save_program(dataclasses.replace(program, ops=ops, dataset=""), model)
    result = invoke("verify", model)
    assert result.exit_code == 0, result.output
    assert f"lce:indirect: op '{x}' (MaxPool)" in result.output
    for command in (["verify", model, "--formats", "lce"], ["export", model, "--format", "lce"]):
        result = invoke(*command)
        assert result.exit_code == 2
        assert f"op '{x}' (MaxPool): TFLite has no pooling with dilation" in result.stderr
    with pytest.raises(ExportError, match=x):
        everything_asked(load_program(model))


def everything_asked(program: Program) -> verifying.Verified:
    inputs = Inputs(random_images(program, 2), None, "")
    return verifying.verify(Source(program, None, None), ["lce"], inputs, asked=True)


def test_torch_program_has_every_op_and_the_head_is_a_dense_layer() -> None:
    """An op added to the Program must be added there too."""
    from frostbit.kernels.ir.program import OP_TYPES

    program, foreign = every_op(), imported()
    assert {type(op) for op in (*program.ops, *foreign.ops)} == set(OP_TYPES.values())
    assert isinstance(program.ops[-1], Dense)
    assert isinstance(program.ops[-2], GlobalSum)
    assert_nothing_rounds(program, random_images(program, 4))
    assert compare(foreign, [TorchProgram(foreign)], images(foreign, 9)).passed


def test_an_imported_network_agrees_everywhere_within_the_tolerance(tmp_path: Path) -> None:
    """It was not trained here, so PyTorch runs the packed model; verify says what was compared."""
    program = dataclasses.replace(imported(), dataset="", settled_hash="")
    save_program(program, tmp_path / "model.bnn")
    done = invoke("export", tmp_path / "model.bnn", "--format", "all", "--out", tmp_path)
    assert done.exit_code == 0, done.output
    assert "within the tolerance" in done.output
    result = invoke("verify", tmp_path / "model.bnn", "--images", 20, "--json", tmp_path / "v")
    assert result.exit_code == 0, result.output
    assert "passed within the tolerance (not exact: its input is float" in result.output
    found = json.loads((tmp_path / "v").read_text())
    assert (found["exact"], found["passed"], found["missing"]) == (False, True, [])
    assert len(found["runtimes"]) == SETTINGS
    assert {row["sign_bits_compared"] for row in found["runtimes"]} == {20 * 6 * 7 * 9}
    assert all(0 < row["logits_max_abs_diff"] < 1e-6 for row in found["runtimes"][1:])


def test_a_data_set_for_a_model_that_takes_floats_needs_to_know_what_pixels_become(
    tmp_path: Path,
) -> None:
    program = dataclasses.replace(imported(), dataset="", settled_hash="", preprocessing=None)
    pixels = np.zeros((1, *program.input_shape), np.uint8)
    with pytest.raises(UserError, match="what pixels become"):
        as_taken(program, pixels)
    known = Preprocessing.of_range(-1, 1, 2)
    floats = as_taken(dataclasses.replace(program, preprocessing=known), pixels)
    assert floats.dtype == np.float32
    assert (floats == -1).all()
    save_program(program, tmp_path / "model.bnn")
    result = invoke("export", tmp_path / "model.bnn", "--float-input", "--out", tmp_path)
    assert result.exit_code == 2
    assert "as it is" in result.stderr


@settings(deadline=None, max_examples=4)
@given(programs(foreign=True))
def test_random_imported_programs_agree_in_torch(program: Program) -> None:
    """The exporters' own tests draw more of them."""
    report = compare(program, [TorchProgram(program)], random_images(program, 3), must_vary=False)
    assert report.passed, report
