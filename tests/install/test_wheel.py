"""What the wheel holds, and that what lies in a person's folder changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

import frostbit as fb
from frostbit.kernels.ir import reference
from frostbit.pipeline.device import wheel as bundled
from frostbit.pipeline.errors import UserError
from tests import ROOT
from tests.nets import every_op, images


def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel unpacked, as it lies in site-packages."""
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run(site: Path, where: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the folder ``where`` with the unpacked wheel before this checkout."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    command = [sys.executable, *words]
    return subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True)


def test_one_name_is_installed(wheel: Path) -> None:
    tops = {name.split("/")[0] for name in names(wheel)}
    assert tops == {"frostbit", f"frostbit-{fb.__version__}.dist-info"}


def test_the_list_of_packages_is_complete() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    there = {"frostbit"}
    for room in ("kernels", "export", "pipeline"):
        for path in (ROOT / room).rglob("__init__.py"):
            there.add(".".join(["frostbit", *path.parent.relative_to(ROOT).parts]))
    assert set(listed) == there
    assert len(listed) == len(there) == len(set(listed)) > 20


def test_every_folder_of_modules_is_a_package() -> None:
    for room in ("frostbit", "kernels", "export", "pipeline"):
        for path in (ROOT / room).rglob("*.py"):
            assert (path.parent / "__init__.py").is_file(), path


def test_the_bundles_wheel_holds_the_same_files(wheel: Path, tmp_path: Path) -> None:
    name, data = bundled.build()
    (tmp_path / name).write_bytes(data)
    ours = {each for each in names(tmp_path / name) if each.startswith("frostbit/")}
    theirs = {each for each in names(wheel) if each.startswith("frostbit/")}
    assert ours == theirs
    assert "frostbit/py.typed" in ours
    assert "frostbit/pipeline/recipes/digits.toml" in ours


def test_files_in_the_working_folder_change_nothing(site: Path, tmp_path: Path) -> None:
    (tmp_path / "kernels.py").write_text("raise SystemExit('the wrong kernels')\n")
    for folder in ("export", "pipeline"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").write_text("raise SystemExit('the wrong package')\n")
    program = every_op()
    pictures = images(program, 3)
    fb.save(program, tmp_path / "model.bnn")
    np.save(tmp_path / "images.npy", pictures)
    script = (
        "import numpy as np, frostbit as fb\n"
        "np.save('logits.npy', fb.load('model.bnn').run(np.load('images.npy')))\n"
        "print(fb.export_model(fb.read('model.bnn'), 'model.onnx').check, fb.__file__)\n"
    )
    done = run(site, tmp_path, "-c", script)
    assert " 0 differ" in done.stdout, done.stderr
    assert str(site) in done.stdout
    logits = np.load(tmp_path / "logits.npy")
    np.testing.assert_array_equal(logits, reference.run(program, pictures))
    shown = run(site, tmp_path, "-m", "frostbit", "summary", "model.bnn")
    assert "parameters" in shown.stdout, shown.stderr


def test_python_m_frostbit_is_the_command(site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "-m", "frostbit", "--help")
    assert done.stdout.startswith("Usage: pipeline "), done.stderr
    assert "Example: pipeline run" in done.stdout


@pytest.mark.parametrize("name", ["kernels", "export", "pipeline"])
def test_old_imports_fail_with_pythons_own_message(name: str, site: Path, tmp_path: Path) -> None:
    done = run(site, tmp_path, "-c", f"import {name}")
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: No module named '{name}'"
    assert f"`from frostbit.{name}" in (ROOT / "CHANGELOG.md").read_text()


# ---------------------------------------------------------------- a stale egg-info


def stale(folder: Path, version: str = "0.0.1") -> None:
    """What an old ``setup.py develop`` left in a checkout."""
    (folder / "frostbit.egg-info").mkdir()
    text = f"Metadata-Version: 2.1\nName: frostbit\nVersion: {version}\n"
    (folder / "frostbit.egg-info" / "PKG-INFO").write_text(text)
    (folder / "frostbit.egg-info" / "top_level.txt").write_text("kernels\nexport\npipeline\n")


def test_a_stale_egg_info_before_the_installation_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, data = bundled.build()
    stale(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert metadata.version("frostbit") == "0.0.1"  # it is found first
    assert bundled.build() == (name, data)
    assert name == f"frostbit-{fb.__version__}-py3-none-any.whl"
    (tmp_path / name).write_bytes(data)
    with zipfile.ZipFile(tmp_path / name) as archive:
        folder = f"frostbit-{fb.__version__}.dist-info"
        assert f"Version: {fb.__version__}\n" in archive.read(f"{folder}/METADATA").decode()
        points = archive.read(f"{folder}/entry_points.txt").decode()
    assert "pipeline = frostbit.pipeline.cli.main:main" in points


def test_a_stale_egg_info_alone_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale(tmp_path, fb.__version__)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match="not installed"):
        bundled.build()


@pytest.mark.parametrize(
    ("version", "entry"),
    [("0.0.1", "frostbit.pipeline.cli.main:main"), (fb.__version__, "pipeline.cli:main")],
)
def test_the_installation_of_another_version_is_refused(
    version: str, entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / f"frostbit-{version}.dist-info"
    folder.mkdir()
    text = f"Metadata-Version: 2.1\nName: frostbit\nVersion: {version}\n"
    (folder / "METADATA").write_text(text)
    (folder / "entry_points.txt").write_text(f"[console_scripts]\npipeline = {entry}\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match="install it again"):
        bundled.build()
