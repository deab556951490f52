"""The command's own edges: a full, closed or deserted output, empty values, names in messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from frostbit.kernels.ir.file import save_program
from frostbit.pipeline.cli.main import main
from tests import RECORDS
from tests.nets import every_op

MODEL = RECORDS / "fashion-best.bnn"
COMMAND = f"{sys.executable} -m frostbit"


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("arguments", [f"summary {MODEL}", "--help", "summary --help"])
@pytest.mark.parametrize(
    ("target", "reason"),
    [
        (">/dev/full", "cannot write to standard output: No space left on device"),
        (">&-", "standard output is closed; send it to a file or to /dev/null"),
    ],
)
def test_output_that_cannot_be_written(arguments: str, target: str, reason: str) -> None:
    done = shell(f"{COMMAND} {arguments} {target}")
    assert done.stderr == f"Error: {reason}\n"
    assert done.returncode == 2


def test_a_reader_that_leaves_early_is_no_error() -> None:
    done = shell(f"{COMMAND} summary {MODEL} | head -1")
    assert done.stderr == ""
    assert "fashion-best.bnn" in done.stdout


def test_errors_need_no_standard_output(tmp_path: Path) -> None:
    done = shell(f"{COMMAND} summary {tmp_path}/none >/dev/full")
    assert done.returncode == 2
    assert "none' does not exist" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["bench", MODEL, "--runtime", ""], "--runtime"),
        (["bench", MODEL, "--runtime="], "--runtime"),
        (["export", MODEL, "--formats", " "], "--formats"),
        (["verify", MODEL, "--data", ""], "--data"),
        (["pack", "-o", "", "run"], "-o"),
        (["summary", ""], "summary"),
    ],
)
def test_empty_values_are_refused_by_name(arguments: list[object], name: str) -> None:
    result = CliRunner().invoke(main, [str(each) for each in arguments])
    assert result.exit_code == 2
    assert (
        result.stderr == f"Error: {name} is followed by an empty value; give one, or leave it out\n"
    )


@pytest.mark.parametrize("option", ["--runtime=engine,,ort", "--runtime=,"])
def test_lists_without_a_name_are_refused(option: str) -> None:
    result = CliRunner().invoke(main, ["bench", str(MODEL), option])
    assert result.exit_code == 2
    assert "a runtime without a name is asked for" in result.stderr


def test_a_value_of_the_recipe_may_be_empty() -> None:
    result = CliRunner().invoke(
        main, ["train", "--recipe", "digits", "--set", "keep=", "--method=x"]
    )
    assert "unknown method 'x'" in result.stderr


def test_messages_show_names_escaped(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[2J\u202eb.bnn"
    for _ in range(2):  # missing, then damaged
        result = CliRunner().invoke(main, ["summary", str(path)])
        assert result.exit_code == 2
        assert "a\\x1b[2J\\u202eb.bnn" in result.stderr
        assert "\x1b" not in result.stderr
        path.write_bytes(b"nothing")


@pytest.mark.parametrize("kind", ["recipe", "experiment"])
def test_toml_with_a_byte_order_mark_and_other_encodings(tmp_path: Path, kind: str) -> None:
    texts = {"recipe": "epochs = 0\n", "experiment": "title = 'x'\nrecipe = 'none'\nruns = [{}]\n"}
    file = tmp_path / "mine.toml"
    command = ["train", "--recipe", str(file)] if kind == "recipe" else ["experiment", str(file)]
    for encoding, expected in (
        ("utf-8-sig", "epochs must be at least 1" if kind == "recipe" else "unknown recipe 'none'"),
        ("utf-16", f"{kind} '{file}' is no text in UTF-8"),
    ):
        file.write_text(texts[kind], encoding)
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2
        assert expected in result.stderr


EXTRAS = (
    "torch", "torchvision", "sklearn", "matplotlib", "jinja2", "onnx", "onnxruntime", "flatbuffers",
)  # fmt: skip
BARE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {EXTRAS}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from frostbit.pipeline.cli.main import main
main()
"""


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["doctor"], 0, "cuda: not known without torch; pip install 'frostbit[train]'"),
        (["summary", MODEL], 0, "float equivalent"),
        (["predict", MODEL, "picture.png"], 0, "picture.png"),
        (["bench", "toy.bnn", "--runtime", "engine", "--rounds", "1"], 0, "wrote bench.json"),
        (["bundle", "toy.bnn"], 0, "wrote toy.zip"),
        (["export", MODEL, "-o", "."], 2, "pip install 'frostbit[export]'"),
        (["verify", MODEL, "--formats", "onnx"], 2, "pip install 'frostbit[export]'"),
        (["train", "--recipe", "digits", "-o", "r"], 2, "pip install 'frostbit[train]'"),
        (["run", "--recipe", "digits", "-o", "r"], 2, "pip install 'frostbit[train]'"),
        (["pack", ".", "-o", "m.bnn"], 2, "pip install 'frostbit[train]'"),
        (["report", "."], 2, "pip install 'frostbit[train]'"),
        (["experiment", "smoke"], 2, "pip install 'frostbit[train]'"),
        (["compare", "."], 2, "holds no finished run"),
    ],
    ids=lambda each: each[0] if isinstance(each, list) else "",
)
def test_the_base_install_works_or_names_the_extra(
    tmp_path: Path, arguments: list[object], status: int, words: str
) -> None:
    """Without the packages of the extras a command works or says in one line what to install."""
    from PIL import Image

    Image.new("L", (28, 28)).save(tmp_path / "picture.png")
    save_program(every_op(), tmp_path / "toy.bnn")
    command = [sys.executable, "-c", BARE, *(str(each) for each in arguments)]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert words in " ".join((done.stderr if status else done.stdout).split())
    if status:
        assert [line for line in done.stderr.splitlines() if words in line]
