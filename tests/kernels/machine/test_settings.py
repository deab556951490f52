"""Settings of the environment that keep the engine from running: one line each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from frostbit.kernels.ir.file import save_program
from frostbit.kernels.machine.settings import SettingError, blaming_numba_settings
from tests import nets

SETTINGS = {
    "NUMBA_DISABLE_JIT": "1",
    "NUMBA_NUM_THREADS": "0",
    "NUMBA_OPT": "junk",
    "NUMBA_CPU_FEATURES": "avx2",
    "FROSTBIT_KERNEL": "junk",
}
LOAD = "import sys; from frostbit.kernels import load; load(sys.argv[1])"


def refusal(words: list[str], variable: str) -> list[str]:
    """Lines on stderr of a Python that fails because of ``variable``."""
    environment = {**os.environ, variable: SETTINGS[variable]}
    done = subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode in (1, 2)
    return done.stderr.splitlines()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("settings") / "model.bnn"
    save_program(nets.every_op(), path)
    return path


@pytest.mark.parametrize("variable", SETTINGS)
def test_load_names_the_setting(variable: str, model: Path) -> None:
    last = refusal(["-c", LOAD, str(model)], variable)[-1]
    assert last.startswith("frostbit.kernels.machine.settings.SettingError: ")
    assert variable in last


@pytest.mark.parametrize("variable", SETTINGS)
def test_bench_is_one_line(variable: str, model: Path) -> None:
    lines = refusal(["-m", "frostbit", "bench", str(model)], variable)
    errors = [line for line in lines if not line.startswith("accuracy: ")]
    assert len(errors) == 1
    assert errors[0].startswith("Error: ")
    assert variable in errors[0]


def test_only_a_set_variable_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("NUMBA_")]:
        monkeypatch.delenv(name)
    with pytest.raises(OSError, match="no such"), blaming_numba_settings("x", OSError):
        raise OSError("no such\nfile")
    monkeypatch.setenv("NUMBA_DUMP_HTML", "/no/where\x1b")
    with pytest.raises(SettingError) as caught, blaming_numba_settings("not built", OSError):
        raise OSError("no such\nfile")
    assert str(caught.value) == (
        r"not built (no such): unset or correct NUMBA_DUMP_HTML='/no/where\x1b'"
    )
    with pytest.raises(KeyError), blaming_numba_settings("x", OSError):
        raise KeyError("x")
