"""``pipeline export`` as a person uses it: every format, its figures, and what is refused."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result

from frostbit.export.c.header import header
from frostbit.export.errors import RuntimeMissing
from frostbit.export.lce import convert as to_lce
from frostbit.export.sizes import bits_per_weight
from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.ir.file import dumps, load_program, program_hash, save_program
from frostbit.kernels.ir.program import INPUT, Program, Window
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.parity import export as exporting
from frostbit.pipeline.parity.export import FORMATS, Choices
from tests import ROOT
from tests.export.lce.lce_fixture import require_lce
from tests.kernels.programs import Builder
from tests.needs import need
from tests.nets import every_op

SAME = Window((3, 3), pads=(1, 1, 1, 1))
FILES = {form.file for form in FORMATS.values()}


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, *words: str) -> None:
    """Exit status 2 and one line that holds all ``words``."""
    assert result.exit_code == 2, result.output + repr(result.exception)
    (line,) = [each for each in result.stderr.splitlines() if each.startswith("Error: ")]
    assert all(word in line for word in words), line


@pytest.fixture
def model(packed: Path, trained: Path, tmp_path: Path) -> Path:
    """The trained model beside the facts of its run."""
    (tmp_path / "run.json").write_bytes((trained / "run.json").read_bytes())
    for name in ("recipe.toml", "model.safetensors", "settled.safetensors", "metrics.jsonl"):
        (tmp_path / name).write_bytes((trained / name).read_bytes())
    path = tmp_path / "model.bnn"
    path.write_bytes(packed.read_bytes())
    return path


def test_all_formats_are_written_and_run(model: Path) -> None:
    require_lce()
    need("cc")
    result = invoke("export", model, "--format", "all")
    assert result.exit_code == 0, result.output
    assert {path.name for path in model.parent.iterdir()} > FILES
    text = " ".join(result.output.split())
    for runtime in ("ort", "ort:int8", "ort:float", "ort:qonnx", "lce:indirect", "c"):
        assert f"ran in {runtime}: " in text
    assert text.count("sign bits, 0 differ, logits differ by at most 0") == len(FORMATS)
    assert "bits a binary weight" in text
    assert invoke("verify", model, "--formats", "onnx,qonnx,c").exit_code == 0


def test_onnx_metadata_tells_where_a_file_comes_from(model: Path) -> None:
    result = invoke("export", model, "--format", "onnx,qonnx", "--licence", "CC0-1.0", "--no-check")
    assert result.exit_code == 0, result.output
    program = load_program(model)
    for name in ("model.onnx", "model.qonnx"):
        proto = onnx.load(model.parent / name)
        found = {each.key: each.value for each in proto.metadata_props}
        assert found["program_sha256"] == program_hash(program)
        assert found["classes"].split("\n") == list("0123456789")
        assert (found["dataset"], found["model_license"]) == ("digits", "CC0-1.0")
        assert 0.5 < float(found["accuracy"]) < 1
        assert found["frostbit_version"] == proto.producer_version
        assert proto.producer_name == "frostbit"
        assert (proto.ir_version, proto.opset_import[0].version) == (8, 13)


def test_the_version_in_files_is_the_packages() -> None:
    from importlib import metadata

    import frostbit
    from frostbit.export.version import VERSION

    assert metadata.version("frostbit") == VERSION == frostbit.__version__


def test_every_file_names_its_program(model: Path) -> None:
    program = load_program(model)
    mark = program_hash(program).encode()
    for form in FORMATS.values():
        assert mark in form.convert(program, Choices()), form.file


@pytest.mark.parametrize("source", ["model", "synthetic"])
def test_float_input_is_planar(model: Path, tmp_path: Path, source: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    chosen = [model] if source == "model" else ["--synthetic", "vgg11_bn@32"]
    options = ["--format", "onnx", "--float-input", "--licence", "MIT", "-o", out]
    result = invoke("export", *chosen, *options)
    assert result.exit_code == 0, result.output
    assert "0 differ" in " ".join(result.output.split())
    proto = onnx.load(out / "model.onnx")
    shape = proto.graph.input[0].type.tensor_type
    assert shape.elem_type == onnx.TensorProto.FLOAT
    assert shape.shape.dim[0].dim_param == "N"
    channels, height = (1, 8) if source == "model" else (3, 32)
    assert [d.dim_value for d in shape.shape.dim[1:]] == [channels, height, height]
    assert {each.key: each.value for each in proto.metadata_props}["model_license"] == "MIT"


# ---------------------------------------------------------------- bytes


def test_bytes_are_the_same_in_other_processes_and_folders(tmp_path: Path) -> None:
    """The command itself, with other hash seeds, folders, time zones and languages."""
    found = []
    for index, (seed, zone, language) in enumerate(
        [("1", "Asia/Tokyo", "C"), ("4242", "America/Lima", "C.UTF-8")]
    ):
        folder = tmp_path / f"folder {index}"
        folder.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": language}
        environment["PYTHONPATH"] = str(ROOT)
        command = [
            "-m",
            "frostbit",
            "export",
            "--synthetic",
            "vgg11_bn@32",
            "--no-check",
        ]
        subprocess.run(
            [sys.executable, *command, "--format", "all", "-o", "out"],
            cwd=folder, env=environment, check=True, capture_output=True,
        )  # fmt: skip
        files = sorted((folder / "out").iterdir())
        found.append({p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files})
    program = synthetic("vgg11_bn@32")
    writers = {form.file: form.convert for form in FORMATS.values()}
    here = {"model.bnn": hashlib.sha256(dumps(program)).hexdigest()}
    for file, convert in writers.items():
        here[file] = hashlib.sha256(convert(program, Choices())).hexdigest()
    here["model.h"] = hashlib.sha256(header(program)).hexdigest()
    assert found == [here, here]


@pytest.mark.parametrize("form", FORMATS)
def test_no_machine_path_is_in_a_file(form: str) -> None:
    data = FORMATS[form].convert(every_op(), Choices())
    for word in (str(ROOT), str(Path.home()), sys.prefix, "site-packages", "file://"):
        assert word.encode() not in data


def wide(*, real: bool) -> Program:
    """Layers as wide as those of common networks, so that tables weigh little."""
    b = Builder((4, 4, 3))
    x = b.conv(INPUT, 256, Window((1, 1)))
    for _ in range(4):
        x = b.binary_conv(b.clip(x) if real else b.sign(x), 256, SAME, pad_value=0)
    return b.finish(x)


@pytest.mark.parametrize("real", [False, True])
def test_binary_weights_take_one_bit(real: bool) -> None:
    """Those on real inputs too, but for LCE, which keeps them in float32 and says so."""
    program = wide(real=real)
    compact = {"model.bnn": dumps(program)}
    for name in ("onnx", "onnx-int8", "lce", "c"):
        form = FORMATS[name]
        compact[form.file] = form.convert(program, Choices())
    for file, data in compact.items():
        spent = bits_per_weight(file, data, program)
        assert spent is not None
        if real and file == "model.tflite":
            assert spent == 8
        else:
            assert 1.0 <= spent <= 1.02, (file, spent)
    for name in ("onnx-float", "qonnx"):
        form = FORMATS[name]
        spent = bits_per_weight(form.file, form.convert(program, Choices()), program)
        assert spent is not None
        assert 32 <= spent < 32.1


def test_what_lce_does_not_compress_is_said_and_shown(tmp_path: Path) -> None:
    model = tmp_path / "model.bnn"
    save_program(wide(real=True), model)
    result = invoke("export", model, "--format", "onnx,lce", "--no-check")
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "LCE keeps 2,359,296 binary weights on real inputs in 8 bits" in text
    rows = {
        line.split()[1]: line.split() for line in result.output.splitlines() if "│ model" in line
    }
    assert rows["model.tflite"][-2] == "8.000"
    assert float(rows["model.onnx"][-2]) <= 1.02


# ---------------------------------------------------------------- refused


def test_an_unknown_format_is_answered_with_the_nearest(model: Path) -> None:
    refused(invoke("export", model, "--format", "onnx,tflit"), "unknown format 'tflit'", "known: ")
    refused(invoke("export", model, "--format", "qonx"), "did you mean 'qonnx'?")
    refused(invoke("export", model, "--format", "onnx-in8"), "did you mean 'onnx-int8'?")


def test_folders_that_cannot_take_files(model: Path, tmp_path: Path) -> None:
    refused(invoke("export", model, "-o", tmp_path / "none"), "no folder", "--out")
    blocked = "/proc"  # takes no files, not even root's
    refused(invoke("export", model, "-o", blocked), "cannot write '/proc/model.onnx'", "--out")


def test_no_file_is_overwritten_unasked_not_even_the_last_of_many(model: Path) -> None:
    last = model.parent / "model.c"
    last.write_text("mine")
    names = {path.name for path in model.parent.iterdir()}
    refused(invoke("export", model, "--format", "all", "--no-check"), "model.c' exists", "--force")
    assert last.read_text() == "mine"
    assert {path.name for path in model.parent.iterdir()} == names
    assert invoke("export", model, "--format", "c", "--no-check", "--force").exit_code == 0
    assert last.read_text() != "mine"


def test_a_c_file_with_a_prefix_is_named_so_and_declared(tmp_path: Path) -> None:
    need("cc")
    path = tmp_path / "model.bnn"
    save_program(every_op(), path)
    result = invoke("export", path, "--format", "c", "--prefix", "gesture")
    assert result.exit_code == 0, result.output
    assert "ran in c" in " ".join(result.output.split())
    assert {each.name for each in tmp_path.iterdir()} == {"model.bnn", "gesture.c", "gesture.h"}
    assert b"void gesture_run(" in (tmp_path / "gesture.c").read_bytes()
    assert invoke("export", path, "--format", "c", "--no-check").exit_code == 0
    assert b"frostbit_run" in (tmp_path / "model.h").read_bytes()
    again = invoke("export", path, "--format", "c", "--prefix", "gesture")
    refused(again, "gesture.c' exists", "--force")
    refused(invoke("export", path, "--prefix", "gesture", "--force"), "--format c")


@pytest.mark.parametrize("source", ["model", "synthetic"])
def test_a_prefix_that_is_none_is_refused_before_anything_is_written(
    tmp_path: Path, source: str
) -> None:
    save_program(every_op(), tmp_path / "model.bnn")
    named = [tmp_path / "model.bnn"] if source == "model" else ["--synthetic", "vgg11_bn@32"]
    for prefix in ("../up", "1st", "a b"):
        out = tmp_path / "out"
        out.mkdir(exist_ok=True)
        arguments = [*named, "--format", "onnx,c", "--prefix", prefix, "-o", out]
        refused(invoke("export", *arguments), "cannot begin names in C")
        assert not list(out.iterdir())


def test_a_synthetic_export_refuses_before_it_writes(tmp_path: Path) -> None:
    (tmp_path / "model.tflite").write_text("mine")
    result = invoke("export", "--synthetic", "vgg11_bn@32", "--format", "lce", "-o", tmp_path)
    refused(result, "model.tflite' exists")
    assert {path.name for path in tmp_path.iterdir()} == {"model.tflite"}


def test_an_op_that_an_exporter_lacks_is_named_with_its_layer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from frostbit.export.c import calls
    from frostbit.export.onnx import int8 as to_onnx_int8
    from frostbit.export.onnx import packed as to_onnx
    from frostbit.export.onnx import qonnx as to_qonnx
    from frostbit.kernels.ir.program import Repeat

    model = tmp_path / "model.bnn"
    save_program(every_op(), model)
    tables = {
        "onnx": to_onnx.RULES, "onnx-float": to_onnx.FLOAT_RULES, "onnx-int8": to_onnx_int8.RULES,
        "qonnx": to_qonnx.RULES, "lce": to_lce.RULES, "c": calls.RULES,
    }  # fmt: skip
    assert tables.keys() == FORMATS.keys()
    for name, table in tables.items():
        monkeypatch.delitem(table, Repeat)
        refused(invoke("export", model, "--format", name), "op 'twice'", "Repeat")
    assert {path.name for path in tmp_path.iterdir()} == {"model.bnn"}


@pytest.mark.parametrize(
    ("package", "form"),
    [("onnx", "onnx-float"), ("onnxruntime", "onnx"), ("flatbuffers", "lce"), ("onnx", "qonnx")],
)
def test_a_missing_package_says_how_to_get_it(model: Path, package: str, form: str) -> None:
    hide = (
        f"import sys; sys.modules['{package}'] = None; from frostbit.__main__ import main; main()"
    )
    command = [sys.executable, "-c", hide, "export", str(model), "--format", form]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stdout
    (line,) = done.stderr.strip().splitlines()
    assert f"export needs {package}" in line
    assert "pip install 'frostbit[export]'" in line


def test_c_needs_no_package_but_a_compiler_to_be_checked(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*arguments: object) -> None:
        raise RuntimeMissing("there is no C compiler 'cc'; install one")

    monkeypatch.setattr("frostbit.export.c.runtime.require_compiler", missing)
    result = invoke("export", model, "--format", "c")
    assert result.exit_code == 0, result.output
    assert "not run: there is no C compiler" in " ".join(result.output.split())


def test_a_file_that_computes_something_else_is_not_kept(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One multiplier is wrong in the file."""

    def wrong(convert: Callable[..., bytes]) -> Callable[..., bytes]:
        def converted(program: Program, choices: Choices) -> bytes:
            head = program.ops[-1]
            worse = dataclasses.replace(head, add=head.add + np.float32(0.5))  # type: ignore[attr-defined,call-arg]
            return convert(dataclasses.replace(program, ops=(*program.ops[:-1], worse)), choices)

        return converted

    form = FORMATS["onnx"]
    changed = dataclasses.replace(form, convert=wrong(form.convert))
    monkeypatch.setitem(exporting.KNOWN, "onnx", changed)
    refused(invoke("export", model, "--format", "onnx"), "ort disagrees with the model", "logits")
    assert not (model.parent / "model.onnx").exists()
