"""pipeline import: another tool chain's file becomes a model that the other commands take."""

import dataclasses
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import frostbit as fb
from frostbit.export.reading.imported import Imported
from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import Affine, BinaryConv, Preprocessing
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.parity import importing
from tests import ROOT
from tests.nets import every_op

FILES = ROOT / "tests" / "data" / "foreign"
MNIST, QUICKNET = FILES / "larq_mnist.tflite", FILES / "mini_quicknet.tflite"


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, *words: str) -> None:
    assert result.exit_code == 2, result.output + repr(result.exception)
    text = result.stderr.strip().splitlines()[-1]
    for word in words:
        assert word in text, text


@pytest.fixture(scope="module")
def mnist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The MNIST tutorial, imported on its own images, with its range and names."""
    out = tmp_path_factory.mktemp("import") / "mnist.bnn"
    names = out.with_name("names.txt")
    names.write_text("\n".join(f"digit {i}" for i in range(10)) + "\n", "utf-8-sig")
    given = ("--inputs", MNIST.with_suffix(".npz"), "--range", "-1..1", "--classes", names)
    done = invoke("import", MNIST, "-o", out, *given)
    assert done.exit_code == 0, done.output + repr(done.exception)
    words = " ".join(done.output.split())
    assert "sign bits equal" in words
    assert "one bit restored: FULLY_CONNECTED" in words
    return out


def test_answers_are_those_of_the_source(mnist: Path) -> None:
    stored = np.load(MNIST.with_suffix(".npz"))
    found = fb.load(mnist).run(stored["input"])
    np.testing.assert_allclose(found, stored["output"], rtol=1e-5, atol=1e-6)
    assert found.std() > 0
    program = load_program(mnist)
    assert program.classes[3] == "digit 3"
    assert program.preprocessing == Preprocessing.of_range(-1, 1, 1)


def test_pixels_are_taken_where_the_range_is_built_in(mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "pixels.bnn"
    done = invoke("import", MNIST, "-o", out, "--range", "-1..1", "--input", "uint8")
    assert done.exit_code == 0, done.output
    pixels = np.random.default_rng(0).integers(0, 256, (5, 28, 28, 1), dtype=np.uint8)
    floats = fb.read(mnist)
    assert floats.preprocessing is not None
    expected = fb.load(mnist).run(floats.preprocessing.apply(pixels))
    assert np.array_equal(fb.load(out).run(pixels), expected)


def test_picture_is_predicted_by_the_range_of_the_file(mnist: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    shown = []
    for limits in ((), ("--range", "0..1")):
        out = tmp_path / "found.json"
        done = invoke("predict", mnist, tmp_path / "x.png", *limits, "--json", out, "--top", 10)
        assert done.exit_code == 0, done.output
        (found,) = json.loads(out.read_text())
        shown.append({each["name"]: each["score"] for each in found["guesses"]})
    floats = Preprocessing.of_range(-1, 1, 1).apply(pixels[None, :, :, None])
    expected = fb.load(mnist).run(floats)[0]
    assert [shown[0][f"digit {i}"] for i in range(10)] == pytest.approx(expected, rel=1e-6)
    assert shown[0] != shown[1]
    assert sum(shown[0].values()) == pytest.approx(1.0)


def test_difference_that_nothing_explains_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong(file: Path, logits: bool) -> Imported:
        imported = right(file, logits)
        ops = list(imported.program.ops)
        at = next(i for i, op in enumerate(ops) if isinstance(op, BinaryConv))
        changed = ops[at]
        assert isinstance(changed, BinaryConv)
        assert isinstance(changed.epilogue, Affine)
        mul = changed.epilogue.mul.copy()
        mul[0] *= 1.01
        ops[at] = dataclasses.replace(
            changed, epilogue=dataclasses.replace(changed.epilogue, mul=mul)
        )
        program = dataclasses.replace(imported.program, ops=tuple(ops))
        return dataclasses.replace(imported, program=program)

    right = importing.read_file
    monkeypatch.setattr(importing, "read_file", wrong)
    out = tmp_path / "model.bnn"
    refused(invoke("import", QUICKNET, "-o", out), "differ")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_is_one_line(mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.bnn"
    refused(invoke("import", MNIST, "-o", tmp_path / "m.tflite"), "ends in .bnn")
    refused(invoke("import", MNIST, "-o", mnist), "exists", "--force")
    refused(invoke("import", MNIST, "-o", out, "--input", "uint8"), "--range")
    refused(invoke("import", MNIST, "-o", out, "--range", "1..-1"), "no range")
    refused(invoke("import", MNIST, "-o", out, "--classes", ROOT / "README.md"), "10 classes")
    refused(invoke("import", MNIST, "-o", out, "--inputs", QUICKNET.with_suffix(".npz")), "28")
    refused(invoke("import", MNIST, "-o", out, "--inputs", ROOT / "README.md"), "cannot read")
    refused(invoke("import", MNIST, "-o", out, "--inputs", tmp_path), "--range")
    refused(invoke("import", mnist, "-o", out), ".bnn")
    refused(invoke("predict", mnist.with_name("names.txt"), "x.png"), "names.txt")
    assert list(tmp_path.iterdir()) == []


def test_predict_asks_for_a_range_that_nothing_states(tmp_path: Path) -> None:
    out = tmp_path / "m.bnn"
    assert invoke("import", MNIST, "-o", out).exit_code == 0
    Image.fromarray(np.zeros((28, 28), np.uint8)).save(tmp_path / "x.png")
    refused(invoke("predict", out, tmp_path / "x.png"), "--range -1..1")


def test_source_runs_beside_the_engine(mnist: Path, tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    only = ("--runtime", "engine", "--rounds", 2, "--json", out)
    done = invoke("bench", mnist, *only, "--source", MNIST)
    assert done.exit_code == 0, done.output + repr(done.exception)
    assert "source: answers within" in done.output
    rows = {row["name"]: row for row in json.loads(out.read_text())["runtimes"]}
    assert {"source:lce:default", "source:lce:indirect"} <= rows.keys()
    assert rows["source:lce:default"]["size_bytes"] == MNIST.stat().st_size
    assert rows["source:lce:default"]["ratio"]["value"] > 0
    refused(invoke("bench", mnist, *only, "--source", QUICKNET), QUICKNET.name)
    refused(invoke("bench", mnist, *only, "--source", ROOT / "README.md"), ".tflite")
    refused(invoke("bench", mnist, mnist, *only, "--source", MNIST), "one model")


def test_our_own_export_comes_back(tmp_path: Path) -> None:
    save_program(every_op(), tmp_path / "own.bnn")
    assert invoke("export", tmp_path / "own.bnn", "--format", "onnx").exit_code == 0
    file, out = tmp_path / "model.onnx", tmp_path / "again.bnn"
    refused(invoke("import", file, "-o", out, "--range", "0..1"), "takes uint8", "--range")
    refused(invoke("import", file, "-o", out, "--input", "float32"), "leave out --input float32")
    images = np.random.default_rng(4).integers(0, 256, (3, 6, 7, 2), dtype=np.uint8)
    np.save(tmp_path / "pixels.npy", images)
    done = invoke("import", file, "-o", out, "--inputs", tmp_path / "pixels.npy")
    assert done.exit_code == 0, done.output
    words = " ".join(done.output.split())
    assert "takes uint8 [N, 6, 7, 2]" in words
    assert "on 3 images" in words
    np.testing.assert_array_equal(
        fb.load(out).run(images), fb.load(tmp_path / "own.bnn").run(images)
    )


def test_no_more_images_are_read_than_are_compared(tmp_path: Path) -> None:
    out = tmp_path / "m.bnn"
    stored = np.load(MNIST.with_suffix(".npz"))["input"]
    for promised, count in ((1 << 40, 2), (len(stored), 10**9)):
        header = {"descr": "<f4", "fortran_order": False, "shape": (promised, 28, 28, 1)}
        with (tmp_path / "x.npy").open("wb") as stream:
            np.lib.format.write_array_header_2_0(stream, header)
            stream.write(stored.astype("<f4").tobytes())
        with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
            archive.write(tmp_path / "x.npy", "input.npy")
        for name in ("x.npy", "x.npz"):
            given = ("--inputs", tmp_path / name, "--images", count, "--force")
            done = invoke("import", MNIST, "-o", out, *given)
            assert done.exit_code == 0, done.output
            assert f"on {min(count, len(stored))} images" in " ".join(done.output.split())
    many = ("--images", 10**9, "--force")
    (tmp_path / "x.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-4])
    refused(
        invoke("import", MNIST, "-o", out, "--inputs", tmp_path / "x.npy", *many), "ends inside"
    )
    refused(invoke("import", MNIST, "-o", out, *many), "1000000000 images take", "--images 342392")
    np.save(tmp_path / "f.npy", np.asfortranarray(stored))
    refused(invoke("import", MNIST, "-o", out, "--inputs", tmp_path / "f.npy", *many), "Fortran")


def test_a_folder_of_pictures_is_compared(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(2)
    for number in range(3):
        pixels = rng.integers(0, 256, (40, 30), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    given = ("--inputs", pictures, "--range", "-1..1", "-o", tmp_path / "m.bnn")
    done = invoke("import", MNIST, *given)
    assert done.exit_code == 0, done.output
    assert "on 3 images" in " ".join(done.output.split())
    (pictures / "3.png").write_bytes(b"no picture")
    refused(invoke("import", MNIST, *given, "--force"), "3.png")
