"""What a board tells of itself, on folders that look like its /proc and /sys."""

from __future__ import annotations

from pathlib import Path

import pytest

from frostbit.pipeline import machine


def put(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_raspberry_pi(tmp_path: Path) -> None:
    cpu0 = "sys/devices/system/cpu/cpu0/cpufreq"
    put(
        tmp_path,
        {
            "proc/cpuinfo": "processor\t: 0\nCPU part\t: 0xd08\n",
            "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
            "proc/stat": "cpu  1 2 3 4 5 6 7 250 0 0\n",
            f"{cpu0}/scaling_governor": "ondemand\n",
            f"{cpu0}/scaling_cur_freq": "1500000\n",
            "sys/class/thermal/thermal_zone0/temp": "61342\n",
            "sys/class/thermal/thermal_zone1/temp": "not a number\n",
            "sys/class/thermal/cooling_device0/cur_state": "2\n",
        },
    )
    assert machine.cpu_model(tmp_path) == "Raspberry Pi 4 Model B Rev 1.4"
    found = machine.sensors(tmp_path)
    assert found.pop("steal") > 0
    assert found == {"governor": "ondemand", "mhz": 1500.0, "celsius": 61.342, "throttled": 2}


def test_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    assert machine.sensors(tmp_path) == {}
    assert machine.cpu_model(tmp_path)


def test_the_clock_of_a_virtual_machine(tmp_path: Path) -> None:
    put(tmp_path, {"proc/cpuinfo": "model name\t: A CPU\ncpu MHz\t\t: 2596.104\n"})
    assert machine.sensors(tmp_path) == {"mhz": 2596.104}
    assert machine.cpu_model(tmp_path) == "A CPU"


def test_the_commit_says_whether_files_were_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"rev-parse": "abc", "status": ""}
    monkeypatch.setattr(machine, "_git", lambda word, *_: answers[word])
    assert machine.git_commit() == "abc"
    answers["status"] = " M kernels/ir/bits.py"
    assert machine.git_commit() == "abc+changes"
    answers["rev-parse"] = ""
    assert machine.git_commit() is None


def test_this_machine() -> None:
    assert machine.cpu_model()
    assert machine.affinity()
    assert "numpy" in machine.versions()
    assert "no-such-package" not in machine.versions(("no-such-package",))
