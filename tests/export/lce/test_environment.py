"""Making and finding LCE's environment, without network."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from frostbit.export.errors import RuntimeMissing
from frostbit.export.lce import environment as lce_environment


def test_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lce_environment.VARIABLE, str(tmp_path))
    assert lce_environment.folder() == tmp_path
    monkeypatch.delenv(lce_environment.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert lce_environment.folder().parent == tmp_path / "cache" / "frostbit"
    assert lce_environment.requirements_hash().startswith(
        lce_environment.folder().name.removeprefix("lce-")
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for an environment, on the platform that LCE has wheels for."""
    monkeypatch.setenv(lce_environment.VARIABLE, str(tmp_path / "deep" / "lce"))
    monkeypatch.setattr(lce_environment, "check_platform", lambda: None)
    monkeypatch.setattr(lce_environment, "_base_python", lambda: sys.executable)
    return tmp_path / "deep" / "lce"


def bare_venv(root: Path, base: str) -> None:
    """What _build makes, without the packages (no network in tests)."""
    subprocess.run([base, "-m", "venv", "--without-pip", str(root)], check=True)


def test_install_makes_an_environment_that_survives_its_move(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lce_environment, "_build", bare_venv)
    said: list[str] = []
    python = lce_environment.install(said.append)
    assert python == place / "bin" / "python" == lce_environment.lce_python()
    assert str(place) in said[0]
    prefix = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert Path(prefix.stdout.strip()) == place
    assert [path.name for path in place.parent.iterdir()] == ["lce"]

    monkeypatch.setattr(lce_environment, "_build", None)  # a second call builds nothing
    assert lce_environment.install(said.append) == python


def test_install_replaces_its_own_environment_of_older_pins(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lce_environment, "_build", bare_venv)
    place.mkdir(parents=True)
    (place / lce_environment.MARKER).write_text("of older pins")
    (place / "old").touch()
    assert lce_environment.lce_python() is None
    lce_environment.install(lambda _: None)
    assert not (place / "old").exists()


def test_install_leaves_what_is_not_its_own_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir(parents=True)
    precious = place / "precious"
    precious.touch()
    for root in (place, precious):  # a folder, then a file
        monkeypatch.setenv(lce_environment.VARIABLE, str(root))
        with pytest.raises(RuntimeMissing, match="holds something else"):
            lce_environment.install(lambda _: None)
    assert precious.exists()


def test_a_failed_install_leaves_nothing_and_says_why(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(root: Path, base: str) -> None:
        root.mkdir()
        script = "import sys; sys.exit('ERROR: hashes do not match')"
        lce_environment._run([base, "-c", script], "install LCE's packages")

    monkeypatch.setattr(lce_environment, "_build", broken)
    with pytest.raises(RuntimeMissing, match=r"install LCE's packages \(ERROR: hashes do not"):
        lce_environment.install(lambda _: None)
    assert list(place.parent.iterdir()) == []
    assert lce_environment.main(["--install"]) == 2
    assert lce_environment.main([]) == 1
    assert "--install-lce" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_is_one_clear_line(place: Path) -> None:
    place.parent.touch()  # a file where a folder has to be
    with pytest.raises(RuntimeMissing, match=r"cannot write .*set FROSTBIT_LCE"):
        lce_environment.install(lambda _: None)


def test_other_platforms_hear_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(lce_environment.VARIABLE, str(tmp_path / "lce"))
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    for call in (lce_environment.require_python, lce_environment.install):
        with pytest.raises(RuntimeMissing, match=r"linux aarch64.*lce_benchmark_model"):
            call()


def test_another_python_on_the_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lce_environment, "PYTHONS", ((3, 98), (3, 97)))
    monkeypatch.setattr(shutil, "which", {"python3.97": "/opt/python3.97"}.get)
    assert lce_environment._base_python() == "/opt/python3.97"
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(RuntimeMissing, match=r"no Python wheel for Python 3\."):
        lce_environment._base_python()


def test_requirements_are_pinned_and_hashed() -> None:
    text = lce_environment.REQUIREMENTS.read_text()
    pins = [line for line in text.splitlines() if line[:1].isalpha()]
    assert {pin.split("==")[0] for pin in pins} == {
        "flatbuffers",
        "larq-compute-engine",
        "numpy",
        "tqdm",
    }
    for block in text.split("\n\n")[-1].replace("\\\n", " ").splitlines():
        assert block.startswith("#") or "--hash=sha256:" in block
    assert "://" not in text
