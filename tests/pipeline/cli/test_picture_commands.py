"""Folders of pictures from training to the board: not square, grey, mixed modes, changed since."""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from frostbit.kernels.engine import load
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.data import pictures

CLASSES = ("left", "right")
SIZES = {"wide-grey": ("12x24", 1), "tall-colour": ("24x12", 3)}


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def done(*words: object) -> Result:
    result = invoke(*words)
    assert result.exit_code == 0, result.output
    return result


def fill(root: Path) -> None:
    """Pictures in several modes whose bright half tells the class."""
    rng = np.random.default_rng(0)
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for index in range(30):
            pixels = rng.integers(0, 100, (30 + index % 5, 40, 3), dtype=np.uint8)
            half = pixels[:, :20] if name == "left" else pixels[:, 20:]
            half[:] += 150
            image, path = Image.fromarray(pixels), root / name / f"{index:02d}"
            if index % 3 == 0:
                wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
                Image.fromarray(wide).save(f"{path}.png")
            elif index % 3 == 1:
                image.putalpha(Image.fromarray(np.full(pixels.shape[:2], 200, np.uint8)))
                image.save(f"{path}.png")
            else:
                exif = Image.Exif()
                exif[274] = 3
                image.rotate(180).save(f"{path}.jpg", exif=exif, quality=95)


@pytest.fixture(scope="module", params=SIZES)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed run beside the folder ``set`` that it trained on."""
    where = tmp_path_factory.mktemp(request.param)
    fill(where / "set")
    (where / "set" / "left" / "broken.png").write_bytes(b"\x89PNG nonsense")
    size, channels = SIZES[request.param]
    fields = {
        "dataset": "folder", "model": "bireal-2", "image_size": size, "image_channels": channels,
        "width": 8, "batch": 8, "epochs": 3,
    }  # fmt: skip
    words = [word for key, value in fields.items() for word in ("--set", f"{key}={value}")]
    train = ["train", "--recipe", "digits", *words, "--out", where / "run"]
    place = ["--data-dir", where / "set"]
    refused = invoke(*train, *place)
    assert refused.exit_code == 2
    assert "broken.png" in refused.output
    done(*train, *place, "--skip-corrupt", "--force")
    done("pack", where / "run")
    return where / "run"


def test_every_command_runs_what_was_trained(run: Path, tmp_path: Path) -> None:
    model, place = run / "model.bnn", ["--data-dir", run.parent / "set"]
    facts = json.loads((run / "run.json").read_text())
    accuracy = facts["accuracy"]["test_after_settling"]
    assert facts["dataset"]["preprocessing"] == pictures.PREPROCESSING
    figures = tmp_path / "verify.json"
    formats = "bnn,onnx,onnx-int8,onnx-float,qonnx,c,torch"
    told = done("verify", model, *place, "--formats", formats, "--json", figures)
    assert "since the training" not in told.output
    found = json.loads(figures.read_text())
    assert found["dataset"] == "folder"
    assert {round(row["accuracy"], 4) for row in found["runtimes"]} == {accuracy}
    bench = ["bench", model, *place, "--runtime", "engine", "--rounds", 1]
    done(*bench, "--json", tmp_path / "bench.json")
    row = json.loads((tmp_path / "bench.json").read_text())["runtimes"][0]
    assert round(row["accuracy"], 4) == accuracy
    done("bundle", model, *place, "-o", tmp_path / "bundle.zip")
    with zipfile.ZipFile(tmp_path / "bundle.zip") as archive:
        images = np.load(io.BytesIO(archive.read("images.npy")))
        assert images.shape[1:] == load(model).input_shape
        assert len(archive.read("labels.npy")) > 128
    page = tmp_path / "page.html"
    done("report", run, *place, "-o", page)
    assert "Confusion matrix over" in page.read_text()


def test_one_bad_picture_stops_no_prediction(run: Path, tmp_path: Path) -> None:
    model, folder, out = run / "model.bnn", run.parent / "set" / "left", tmp_path / "out.json"
    good = sorted(folder.glob("0[0-2]*"))
    none = tmp_path / "\x1b[2J\u202enone.png"
    words = ["predict", model, good[0], folder / "broken.png", none, *good[1:]]
    told = invoke(*words, "--json", out)
    assert told.exit_code == 1
    assert "broken.png'" in told.output
    assert "\\x1b[2J\\u202enone.png'" in told.output
    found = json.loads(out.read_text())
    assert [bool(each["error"]) for each in found] == [False, True, True, False, False]
    engine = load(model)
    for path, each in zip((good[0], *good[1:]), (found[0], *found[3:]), strict=True):
        logits = engine.run(pictures.evaluated(path, engine.input_shape)[None])[0]
        assert {g["name"]: g["logit"] for g in each["guesses"]} == {
            name: float(value) for name, value in zip(engine.classes, logits, strict=True)
        }
    assert invoke(*words, "--skip-corrupt").exit_code == 0
    assert invoke("predict", model, folder / "broken.png", "--skip-corrupt").exit_code == 2


def test_a_changed_folder_is_said_and_nothing_trained_on_is_tested(
    run: Path, tmp_path: Path
) -> None:
    """Training pictures that someone puts into a folder for testing are recognised."""
    listed = [json.loads(line) for line in (run / "pictures.jsonl").read_text().splitlines()]
    paths = {part: [row[4] for row in listed if row[0] == part] for part in ("train", "test")}
    changed = tmp_path / "changed"
    for path in paths["train"][:5] + paths["test"]:
        (changed / "test" / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(run.parent / "set" / path, changed / "test" / path)
    figures = tmp_path / "verify.json"
    told = done(
        "verify", run / "model.bnn", "--data", changed, "--formats", "bnn", "--json", figures
    )
    assert "5 that were trained on are not tested on" in " ".join(told.output.split())
    assert "removed" in told.output
    assert json.loads(figures.read_text())["images"] == len(paths["test"])
    for path in paths["test"]:
        (changed / "test" / path).unlink()
    page = tmp_path / "page.md"
    told = done("report", run, "--data-dir", changed, "-o", page)
    for text in (told.output, page.read_text()):
        assert "confusion matrix and mistakes" in text
        assert "no picture to test on" in " ".join(text.split())


def test_a_run_goes_on_with_its_own_pictures(run: Path, tmp_path: Path) -> None:
    """A picture that was added is left alone; one that is gone is named."""
    shutil.copytree(run.parent / "set", tmp_path / "set")
    shutil.copytree(run, tmp_path / "run")
    for name in ("run.json", "model.bnn", "model.safetensors", "settled.safetensors"):
        (tmp_path / "run" / name).unlink()
    Image.new("RGB", (30, 30)).save(tmp_path / "set" / "left" / "new.png")
    before = (tmp_path / "run" / "pictures.jsonl").read_bytes()
    words = ["train", "--resume", tmp_path / "run", "--data-dir", tmp_path / "set"]
    done(*words)
    assert (tmp_path / "run" / "pictures.jsonl").read_bytes() == before
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        run / "model.safetensors"
    ).read_bytes()
    (tmp_path / "run" / "run.json").unlink()
    gone = next(row for row in map(json.loads, before.splitlines()) if row[0] == "train")[4]
    (tmp_path / "set" / gone).unlink()
    told = invoke(*words)
    assert told.exit_code == 2
    assert gone in told.output
