"""The command as a person uses it: what works, and one clear line for each thing that does not."""

import dataclasses
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from safetensors.numpy import load_file as load_tensors
from safetensors.numpy import save_file as save_tensors

from frostbit import kernels
from frostbit.pipeline.cli.main import main

PIPELINE = [sys.executable, "-m", "frostbit"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, *words: str) -> None:
    """Exit status 2 and one line on standard error that holds all ``words``."""
    assert result.exit_code == 2, result.output + repr(result.exception)
    assert "Traceback" not in result.output
    text = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in text, text


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def test_every_command_explains_itself_with_an_example() -> None:
    for command in ("", *main.commands):
        result = invoke(*([command] if command else []), "--help")
        assert result.exit_code == 0
        assert f"Example: pipeline {command}" in " ".join(result.output.split())


def test_pack_export_bench(run: Path) -> None:
    assert invoke("pack", run).exit_code == 0
    exported = invoke("export", run / "model.bnn", "--format", "onnx")
    assert exported.exit_code == 0, exported.output
    assert "0 differ" in " ".join(exported.output.split())
    asked = [
        "--runtime",
        "engine",
        "--runtime",
        "ort",
        "--runtime",
        "torch",
        "--runtime",
        "ort-fp32",
    ]
    bench = invoke("bench", run / "model.bnn", *asked, "--rounds", 2)
    assert bench.exit_code == 0, bench.output
    found = json.loads((run / "bench.json").read_text())
    rows = {row["name"].split(":")[0]: row for row in found["runtimes"]}
    assert set(rows) == {"engine", "ort", "torch", "ort-fp32"}
    for row in rows.values():
        assert set(row) == {
            "name",
            "model",
            "kernel",
            "threads",
            "ratio",
            "latency_ms",
            "accuracy",
            "size_bytes",
        }
        ms = row["latency_ms"]
        assert 0 < ms["min"] <= ms["median"] <= ms["p90"] <= ms["p99"]
        assert ms["n"] >= 2
        assert row["size_bytes"] > 0
    assert rows["ort-fp32"]["accuracy"] is None
    assert rows["engine"]["accuracy"] == rows["torch"]["accuracy"] > 50
    parity = found["parity"]
    assert parity["images"] == 360
    assert parity["sign_bits_compared"] > 3 * 360 * 1000
    assert parity["sign_bits_differing"] == 0
    assert parity["top1_agreement"] == 1.0
    assert found["conditions"]["threads"] == 1


def test_a_wrong_export_fails_the_check(run: Path, tmp_path: Path) -> None:
    """Another model's ONNX file beside the model: exit 1, and the difference is shown."""
    from frostbit.export.onnx.packed import convert
    from frostbit.kernels.ir.file import load_program
    from frostbit.kernels.ir.program import Dense

    assert invoke("pack", run).exit_code == 0
    program = load_program(run / "model.bnn")
    head = program.ops[-1]
    assert isinstance(head, Dense)
    other = dataclasses.replace(head, add=head.add + np.float32(0.5))
    wrong = dataclasses.replace(program, ops=(*program.ops[:-1], other))
    (run / "model.onnx").write_bytes(convert(wrong))
    result = invoke("verify", run / "model.bnn", "--format", "onnx")
    assert result.exit_code == 1
    assert "FAILED" in result.output
    result = invoke("bench", run / "model.bnn", "--runtime", "ort", "--rounds", 1)
    assert result.exit_code == 1
    assert "FAILED" in result.output


def test_pack_prints_what_it_packed(run: Path) -> None:
    result = invoke("pack", run, "-o", run / "other.bnn")
    assert result.exit_code == 0
    for word in ("BinaryConv", "1-bit", "times smaller", "sign bits exact", "other.bnn"):
        assert word in result.output
    refused(invoke("pack", run, "-o", run / "other.bnn"), "exists", "--force")
    assert invoke("pack", run, "-o", run / "other.bnn", "--force").exit_code == 0


def test_packing_twice_gives_the_same_bytes(run: Path, packed: Path) -> None:
    invoke("pack", run)
    assert (run / "model.bnn").read_bytes() == packed.read_bytes()


def test_the_packed_model_loads_and_answers(packed: Path) -> None:
    engine = kernels.load(packed)
    assert engine.input_shape == (8, 8, 1)
    logits = engine.run(np.zeros((3, 8, 8, 1), np.uint8))
    assert logits.shape == (3, 10)
    assert logits.dtype == np.float32


@pytest.mark.parametrize(
    ("images", "word"),
    [
        (np.zeros((1, 8, 8, 1), np.float32), "uint8"),
        (np.zeros((8, 8, 1), np.uint8), "shape"),
        (np.zeros((1, 8, 8, 3), np.uint8), "shape"),
        (np.zeros((0, 8, 8, 1), np.uint8), "N >= 1"),
    ],
)
def test_images_of_the_wrong_kind_are_refused(packed: Path, images: np.ndarray, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        kernels.load(packed).run(images)


def test_unknown_names_suggest_the_nearest(packed: Path, tmp_path: Path) -> None:
    refused(invoke("train", "--recipe", "digit"), "'digit'", "did you mean 'digits'")
    refused(invoke("train", "--recipe", "digits", "--method", "stomp"), "did you mean 'stompp'")
    refused(invoke("bench", packed, "--runtime", "enigne"), "did you mean 'engine'")
    refused(invoke("export", packed, "--format", "onxx", "-o", tmp_path), "did you mean 'onnx'")


def test_any_field_of_a_recipe_can_be_set(tmp_path: Path) -> None:
    out = tmp_path / "run"
    texts = ("width=8", "final_sign=false", "model=bireal-2", "epochs=1", "seed=5")
    settings = [word for text in texts for word in ("--set", text)]
    result = invoke("train", "--recipe", "digits", "--seed", 4, *settings, "-o", out)
    assert result.exit_code == 0, result.output
    recipe = (out / "recipe.toml").read_text()
    for line in ("width = 8", "final_sign = false", 'model = "bireal-2"', "epochs = 1", "seed = 4"):
        assert line in recipe
    refused(invoke("train", "--recipe", "digits", "--set", "widht=8"), "did you mean 'width'")
    refused(invoke("train", "--recipe", "digits", "--set", "width=wide"), "width", "'wide'")
    refused(invoke("train", "--recipe", "digits", "--set", "width"), "KEY=VALUE")


def test_a_damaged_model_is_refused(packed: Path, tmp_path: Path) -> None:
    data = packed.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 4
    for name, damaged in (("cut", data[:-9]), ("flipped", bytes(flipped)), ("empty", b"")):
        path = tmp_path / f"{name}.bnn"
        path.write_bytes(damaged)
        for command in ("bench", "export"):
            refused(invoke(command, path), f"{name}.bnn")


def test_a_run_of_another_version_is_refused(run: Path) -> None:
    facts = json.loads((run / "run.json").read_text())
    facts["format_version"] += 1
    (run / "run.json").write_text(json.dumps(facts))
    refused(invoke("pack", run), "run format", "--force")


def test_a_run_with_a_changed_file_is_refused(run: Path) -> None:
    weights = bytearray((run / "settled.safetensors").read_bytes())
    weights[-1] ^= 1
    (run / "settled.safetensors").write_bytes(weights)
    refused(invoke("pack", run), "settled.safetensors")


def test_a_network_that_is_not_frozen_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "float"
    arguments = ["--recipe", "digits", "--method", "float", "--epochs", 1, "-o", out]
    trained = invoke("train", *arguments)
    assert trained.exit_code == 0, trained.output
    assert "method float: a network of real numbers" in trained.output
    refused(invoke("pack", out), "not fully frozen", "body.0.conv", "9216 entries")
    assert not (out / "model.bnn").exists()


def test_the_torch_runtime_needs_the_run_it_came_from(packed: Path, tmp_path: Path) -> None:
    refused(invoke("bench", packed, "--runtime", "torch", "--run", tmp_path), "no finished run")


def test_without_its_run_the_usual_bench_goes_on(packed: Path, tmp_path: Path) -> None:
    result = invoke("bench", packed, "--rounds", 1, "--json", tmp_path / "bench.json")
    assert result.exit_code == 0, result.output
    assert "torch: " in result.output
    assert "no finished run" in result.output


def test_without_its_data_set_bench_still_measures(packed: Path, tmp_path: Path) -> None:
    """Names no data set: seeded random images, and it says so."""
    from frostbit.kernels.ir.file import load_program, save_program

    path = tmp_path / "anonymous.bnn"
    save_program(dataclasses.replace(load_program(packed), dataset=""), path)
    result = invoke("bench", path, "--runtime", "engine", "--rounds", 1)
    assert result.exit_code == 0, result.output
    assert "accuracy: not measured" in result.output
    assert json.loads((tmp_path / "bench.json").read_text())["runtimes"][0]["accuracy"] is None


def test_a_missing_data_file_is_named(tmp_path: Path) -> None:
    arguments = ["--recipe", "fashion-small", "--data-dir", tmp_path, "-o", tmp_path / "run"]
    refused(invoke("train", *arguments), "train-images-idx3-ubyte.gz", "--data-dir")
    assert not (tmp_path / "run").exists()


def test_a_missing_package_says_how_to_get_it(packed: Path, tmp_path: Path) -> None:
    """With onnx made unimportable, export names the extra."""
    hide = "import sys; sys.modules['onnx'] = None; from frostbit.__main__ import main; main()"
    command = [sys.executable, "-c", hide, "export", str(packed), "-o", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'frostbit[export]'" in done.stderr


def test_a_missing_runtime_is_a_line_with_the_remedy(packed: Path, tmp_path: Path) -> None:
    hide = (
        "import sys; sys.modules['onnxruntime'] = None; from frostbit.__main__ import main; main()"
    )
    arguments = ["bench", str(packed), "--runtime=engine", "--runtime=ort", "--rounds=1"]
    command = [sys.executable, "-c", hide, *arguments, "--json", str(tmp_path / "b.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "ort: onnxruntime is not installed: pip install 'frostbit[export]'" in done.stdout


def test_without_any_runtime_the_remedy_is_the_error(packed: Path) -> None:
    hide = "import sys; sys.modules['onnx'] = None; from frostbit.__main__ import main; main()"
    remedy = "onnx is not installed: pip install 'frostbit[export]'"
    for words, names in (
        (["bench", str(packed), "--runtime=ort"], "ort"),
        (["verify", str(packed), "--formats=onnx"], "ort, ort:extended, ort:basic, ort:disabled"),
    ):
        done = subprocess.run([*PIPELINE[:1], "-c", hide, *words], capture_output=True, text=True)
        assert done.returncode == 2
        assert f"{names}: {remedy}" in done.stderr
        assert done.stderr.count("\n") == 1


def test_weights_with_nan_are_refused(run: Path) -> None:
    """Even where every checksum fits."""
    tensors = load_tensors(run / "model.safetensors")
    name = next(key for key in tensors if key.endswith("weight"))
    tensors[name][..., 0] = np.nan
    save_tensors(tensors, run / "model.safetensors")
    facts = json.loads((run / "run.json").read_text())
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    facts["sha256"]["model.safetensors"] = digest
    (run / "run.json").write_text(json.dumps(facts))
    refused(invoke("pack", run), "NaN", name)
    assert not (run / "model.bnn").exists()


def small_files_only() -> None:
    """No file may grow beyond 2 kB: the closest thing to a full disk that a test can have."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def test_a_full_disk_leaves_no_half_written_file(run: Path) -> None:
    before = sorted(path.name for path in run.iterdir())
    done = subprocess.run(
        [*PIPELINE, "pack", str(run)],
        capture_output=True, text=True, check=False, preexec_fn=small_files_only,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "cannot write" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_folder_that_cannot_be_written_is_named(packed: Path, tmp_path: Path) -> None:
    missing = tmp_path / "no" / "such"
    refused(invoke("export", packed, "-o", missing), "no folder", "--out")
    blocked = tmp_path / "file"
    blocked.write_text("")
    refused(invoke("train", "--recipe", "digits", "-o", blocked), "is a file")
    refused(invoke("train", "--recipe", "digits", "-o", blocked / "in"), "cannot write", "--out")


def test_ctrl_c_during_training_keeps_a_checkpoint_and_exits_130(tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = ["train", "--recipe", "digits", "--epochs", "2000", "-o", str(out)]
    process = subprocess.Popen(
        [*PIPELINE, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (out / "recipe.toml").exists() and process.poll() is None:
        time.sleep(0.1)
    time.sleep(2.0)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"--resume '{out}'" in errors
    assert "Traceback" not in errors
    names = {path.name for path in out.iterdir()}
    assert names == {"recipe.toml", "metrics.jsonl", "checkpoints"}
