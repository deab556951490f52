"""A stranger's recipe or run folder: absurd sizes, names that are paths, names that are escapes."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from frostbit.pipeline import json_file
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.data.inputs import Place, inputs_for
from frostbit.pipeline.device import bundle
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.models import Options, Shape, build
from frostbit.pipeline.run import checks as run_checks
from frostbit.pipeline.run import folder as run_folder
from frostbit.pipeline.run import metrics, recipe
from tests.nets import every_op


def refused(*words: object) -> str:
    """The one line with which the command ends."""
    done = CliRunner().invoke(main, [str(word) for word in words])
    assert done.exit_code == 2, done.output
    (line,) = done.output.strip().splitlines()
    assert all(part.isprintable() for part in line.split("\t"))
    return line


@pytest.mark.parametrize("field", recipe.MOST)
def test_every_number_of_a_recipe_has_a_limit(field: str) -> None:
    for value in (recipe.MOST[field] + 1, 2**63, 10**400):
        with pytest.raises(UserError, match=f"{field} must be at most"):
            recipe.load("digits", {field: value})


def test_every_whole_number_is_limited() -> None:
    numbers = {f.name for f in dataclasses.fields(recipe.Recipe) if type(f.default) is int}
    ranges = {"image_size", "image_channels"}
    assert numbers == set(recipe.MOST) | ranges
    for name in ranges:
        for value in (-1, 10**9):
            with pytest.raises(UserError, match=name):
                recipe.load("edge", {name: value})


@pytest.mark.parametrize("text", ['lr_other = 1e999', "lr_other = " + "9" * 5000, "x = " + "[" * 9999])  # fmt: skip  # noqa: E501
def test_numbers_and_nesting_beyond_measure(text: str) -> None:
    with pytest.raises(UserError):
        recipe.from_toml(text, "mine")
    with pytest.raises(UserError, match="lr_other"):
        recipe.load("digits", {"lr_other": 10**400})


def test_a_network_that_no_memory_holds_is_not_built() -> None:
    shape = Shape((32, 32, 3), 10, (0.5,) * 3, (0.5,) * 3)
    for name in ("bireal-998", "plain-998", "mlp-998"):
        with pytest.raises(UserError, match=r"more than .* weights"):
            build(name, shape, Options(1 << 16))


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "..", "a/b", "a\x1b[31m", "C:evil"])
def test_a_recipe_does_not_choose_where_to_write(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "r.toml"
    file.write_text(f"name = {json.dumps(name)}\n")
    assert "give one with --out" in refused("train", "--recipe", file)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.toml"]


def test_a_recipe_file_of_any_size_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "r.toml"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)  # sparse
    assert "larger than" in refused("train", "--recipe", file)
    file.write_text('model = "\\u001b[2J"\n')
    assert "model must be printable" in refused("train", "--recipe", file)


Change = Callable[[dict[str, Any]], None]


def _set(*path: str, value: Any) -> Change:
    def change(facts: dict[str, Any]) -> None:
        for key in path[:-1]:
            facts = facts[key]
        facts[path[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("dataset", value=None),
        _set("dataset", "image_shape", value=[2**40, 2**40, 3]),
        _set("dataset", "image_shape", value=[65536, 65536, 1]),
        _set("dataset", "image_shape", value=[8, 8]),
        _set("dataset", "classes", value=["x"] * 10**5),
        _set("dataset", "classes", value=["\x1b[2J"] * 10),
        _set("dataset", "classes", value=[7] * 10),
        _set("dataset", "mean", value=[float("nan")]),
        _set("dataset", "std", value=[]),
        _set("accuracy", value={}),
        _set("accuracy", "validation", value="high"),
        _set("parameters", value="<b>"),
        _set("unfrozen", value=3),
        _set("cpu", value="a\nb"),
        _set("seconds", value=10**400),
    ],
)
def test_a_forged_run_json_is_refused(trained: Path, tmp_path: Path, change: Change) -> None:
    folder = shutil.copytree(trained, tmp_path / "run")
    facts = json.loads((folder / "run.json").read_text())
    change(facts)
    (folder / "run.json").write_text(json.dumps(facts))
    with pytest.raises(UserError, match=r"run\.json' is damaged"):
        run_folder.read_run(folder)
    for command in ("pack", "report", "compare"):
        assert "damaged" in refused(command, folder)


def test_json_beyond_measure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    for text in ("[" * 10**5, '{"unknown": ' + "[" * 10**5 + "]" * 10**5 + "}"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"nested|object"):
            run_checks.read(path, "train again")
    monkeypatch.setattr(json_file, "MAX_BYTES", 10)
    path.write_text('{"a": "bcdefghijk"}')
    with pytest.raises(UserError, match="larger"):
        run_checks.read(path, "train again")


@pytest.mark.parametrize(
    "text", ["{}", "[]", '{"step": 1}', "\0", "[" * 10**5, '{"step": NaN}', "NaN"]
)
def test_forged_metrics_are_refused(trained: Path, tmp_path: Path, text: str) -> None:
    good = (trained / "metrics.jsonl").read_text()
    path = tmp_path / "metrics.jsonl"
    path.write_text(good + text + "\n")
    with pytest.raises(UserError, match="is damaged"):
        metrics.read(path)
    row = json.loads(good.splitlines()[0])
    for change in ({"loss": "<b>"}, {"frozen": []}, {"lr": 10**40}, {"more": 1}):
        path.write_text(good + json.dumps({**row, **change}) + "\n")
        with pytest.raises(UserError, match="is damaged"):
            metrics.read(path)


def test_no_name_in_a_bundle_leads_out_of_its_folder() -> None:
    """Whatever label and classes say; the wheel inside is a zip too."""
    program = dataclasses.replace(every_op(), dataset="", classes=("../../evil", *"bcde"))
    inputs = inputs_for(program, Place(), 0)
    with zipfile.ZipFile(io.BytesIO(bundle.build(program, "../../evil", inputs))) as archive:
        names = archive.namelist()
        assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name) for name in names)
        (wheel,) = (name for name in names if name.endswith(".whl"))
        with zipfile.ZipFile(io.BytesIO(archive.read(wheel))) as inner:
            for name in inner.namelist():
                assert not name.startswith(("/", "\\"))
                assert ".." not in Path(name).parts


def test_half_written_files_are_swept_up(trained: Path, tmp_path: Path) -> None:
    """What a process leaves that is killed between writing and renaming."""
    folder = shutil.copytree(trained, tmp_path / "run")
    for name in (".metrics.jsonl.x1", ".run.json.abc", ".training.png.q"):
        (folder / name).write_text("half")
    (folder / ".mine").write_text("kept")
    facts = (folder / "run.json").read_bytes()
    run_folder.prepare(folder, force=False, resume=True)
    assert sorted(path.name for path in folder.glob(".*")) == [".mine"]
    assert sha256((folder / "run.json").read_bytes()).digest() == sha256(facts).digest()
