"""``pipeline bench --shipped``: the model in the package, its stored answers, the base install."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from frostbit.kernels.ir import reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.machine.jit import cache_folder
from frostbit.pipeline.bench import shipped
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.data.datasets import load
from tests.needs import need_fashion


def invoke(*words: str) -> Result:
    return CliRunner().invoke(main, ["bench", *words])


def test_answers_are_the_references_on_the_first_test_images() -> None:
    program, stored = shipped.load()
    assert analyse(program).head_exact  # so that equal can mean bit for bit
    np.testing.assert_array_equal(reference.run(program, stored.images[:32]), stored.logits[:32])
    assert len(np.unique(stored.labels)) == 10
    need_fashion()
    test = load("fashion-mnist").test.first(len(stored.images))
    np.testing.assert_array_equal(test.take(range(len(test))), stored.images)
    np.testing.assert_array_equal(test.labels, stored.labels)


def test_reference_and_engine_are_compared() -> None:
    folder = cache_folder()
    assert folder is not None
    shipped.EngineRuntime(shipped.load()[0]).close()  # compiled, whichever test comes first
    done = invoke("--shipped")
    assert done.exit_code == 0, done.output
    assert done.output.count("equal bit for bit") == 2
    assert " ms an image" in done.output


def test_without_compiled_code_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTBIT_CACHE", str(tmp_path / "cache"))
    done = invoke("--shipped")
    assert done.exit_code == 0, done.output
    assert done.output.count("equal bit for bit") == 1
    assert "bench --warm-cache" in done.output


def test_other_answers_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTBIT_CACHE", str(tmp_path / "cache"))
    with np.load(shipped.ANSWERS) as stored:
        arrays = dict(stored)
    changed = tmp_path / "answers.npz"
    monkeypatch.setattr(shipped, "ANSWERS", changed)
    arrays["logits"][7, 3] = np.nextafter(arrays["logits"][7, 3], np.float32(np.inf))
    np.savez(changed, **arrays)
    done = invoke("--shipped")
    assert done.exit_code == 1
    assert "DIFFER" in done.output
    arrays["program_sha256"] = np.array("0" * 64)
    np.savez(changed, **arrays)
    assert "another model" in invoke("--shipped").stderr
    changed.write_bytes(b"PK")
    assert "install again" in invoke("--shipped").stderr


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--shipped", "--rounds", "3"], "--rounds"),
        (["--shipped", str(shipped.MODEL)], "MODELS"),
        (["--warm-cache", "--shipped"], "--shipped"),
    ],
)
def test_it_goes_alone(words: list[str], named: str) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert f"goes alone, without {named}" in done.stderr
