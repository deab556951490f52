"""The compiled-code cache: private, keyed by the sources, and never required."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from frostbit.kernels.machine import jit
from tests import ROOT

RUN_ONCE = """
import io
import logging
import numpy as np
log = io.StringIO()
logging.basicConfig(level=logging.INFO, stream=log)
from frostbit.kernels.engine import Engine, run_plan
from tests.kernels.test_engine import edge_net
program = edge_net()
logits = Engine(program).run(np.zeros((1, *program.input_shape), np.uint8))
print(sum(run_plan.stats.cache_hits.values()), logits.tobytes().hex())
print(log.getvalue().count("compiling the engine"))
"""


def fresh_process(cache: Path, script: str = RUN_ONCE, root: Path = ROOT) -> list[str]:
    """Cache hits and logits of an engine in a new process, and how often it said it compiles."""
    environment = {**os.environ, "FROSTBIT_CACHE": str(cache), "PYTHONPATH": str(root)}
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=environment,
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_second_process_finds_the_code_and_no_folder_is_needed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = fresh_process(cache), fresh_process(cache)
    assert (first[0], second[0]) == ("0", "1")
    blocked = tmp_path / "a file"
    blocked.write_text("")
    in_memory = fresh_process(blocked / "below")
    assert in_memory[0] == "0"
    assert first[1] == second[1] == in_memory[1]
    assert (first[2], second[2], in_memory[2]) == ("1", "0", "1")
    (folder,) = cache.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert len(list(folder.rglob("*.nbc"))) == 1  # one entry point


def test_a_damaged_or_unwritable_cache_only_costs_the_compilation(tmp_path: Path) -> None:
    first = fresh_process(tmp_path / "cache")
    for path in (tmp_path / "cache").rglob("*.nb?"):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert fresh_process(tmp_path / "cache") == first
    full = FULL_DISK + RUN_ONCE
    assert fresh_process(tmp_path / "other", full) == first
    assert not list((tmp_path / "other").rglob("*.nbc"))


FULL_DISK = """
from numba.core.caching import IndexDataCacheFile
def save(self, key, data):
    raise OSError(28, "No space left on device")
IndexDataCacheFile.save = save
"""


def test_the_time_of_a_source_file_does_not_matter(tmp_path: Path) -> None:
    """Layers of an image are given other times after the code was compiled."""
    copy = tmp_path / "lib"
    for name, place in (("frostbit",) * 2, ("kernels", "frostbit/kernels"), ("tests",) * 2):
        shutil.copytree(ROOT / name, copy / place, ignore=shutil.ignore_patterns("__pycache__"))
    assert fresh_process(tmp_path / "cache", root=copy)[0] == "0"
    for path in copy.rglob("*.py"):
        os.utime(path, (0, 0))
    assert fresh_process(tmp_path / "cache", root=copy)[0] == "1"


def test_folder_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTBIT_CACHE", str(tmp_path / "new"))
    folder = jit.cache_folder()
    assert folder is not None
    assert folder.stat().st_mode & 0o777 == 0o700
    assert jit.source_hash() in folder.name


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707])
def test_folder_that_others_may_open_is_refused(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTBIT_CACHE", str(tmp_path))
    folder = jit.cache_folder()
    assert folder is not None
    folder.chmod(mode)
    assert jit.cache_folder() is None


def test_parent_that_others_may_write_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROSTBIT_CACHE", str(tmp_path))
    tmp_path.chmod(0o777)
    assert jit.cache_folder() is None


def test_symbolic_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROSTBIT_CACHE", str(tmp_path))
    folder = jit.cache_folder()
    assert folder is not None
    elsewhere = tmp_path / "elsewhere"
    folder.rename(elsewhere)
    folder.symlink_to(elsewhere)
    assert jit.cache_folder() is None


def test_no_home_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Path:
        raise RuntimeError("no home")

    monkeypatch.delenv("FROSTBIT_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", staticmethod(missing))
    assert jit.cache_folder() is None


def test_hash_covers_every_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in folders: code compiled before an edit there must not be found after it."""
    copy = tmp_path / "kernels"
    shutil.copytree(jit.KERNELS, copy)
    (copy / "folder" / "below").mkdir(parents=True)
    (copy / "folder" / "below" / "kernel.py").write_text("")
    monkeypatch.setattr(jit, "KERNELS", copy)
    seen = {jit.source_hash()}
    sources = sorted(copy.rglob("*.py"))
    for source in sources:
        source.write_text(source.read_text() + "# changed\n")
        seen.add(jit.source_hash())
    moved = copy / "folder" / "kernel.py"
    (copy / "folder" / "below" / "kernel.py").rename(moved)
    seen.add(jit.source_hash())
    assert len(seen) == len(sources) + 2
