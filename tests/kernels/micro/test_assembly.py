"""What LLVM makes of the micro-kernels: a silent fall back to scalar code would only be slow."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from tests import ROOT

HASWELL = "+avx2,+fma,+bmi,+bmi2,+popcnt,+sse4.2,+ssse3,+avx"
ICELAKE = f"{HASWELL},+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx512vpopcntdq"


def hot_loop(kernel: str, cpu: str, features: str, instruction: str, triple: str = "") -> str:
    """The block of the assembly, up to its first jump, that has most of ``instruction``."""
    environment = {**os.environ, "NUMBA_CPU_FEATURES": features}
    if features:
        environment["NUMBA_CPU_NAME"] = "generic" if triple else cpu
    else:
        environment["NUMBA_CPU_NAME"] = "generic"
    command = [sys.executable, "-m", "tests.kernels.micro.asm_probe", kernel]
    command += [triple, cpu] if triple else []
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    blocks = re.split(r"\n(?=\.LBB)", done.stdout)
    blocks = [re.split(r"(?m)^\s+(?:j[a-z]+|b\.[a-z]+|cbn?z)\s", block)[0] for block in blocks]
    return max(blocks, key=lambda block: block.count(instruction))


@pytest.mark.skipif("sys.platform != 'linux' or os.uname().machine != 'x86_64'", reason="x86")
class TestOnX86:
    def test_look_up_on_avx2(self) -> None:
        """Twelve look-ups a turn, everything else in registers."""
        loop = hot_loop("lookup", "haswell", HASWELL, "vpshufb")
        assert loop.count("vpshufb") == 12
        assert loop.count("vbroadcasti128") == 6
        assert "(%rsp" not in loop
        assert "(%rbp" not in loop
        assert "popcnt" not in loop

    def test_words_on_avx512(self) -> None:
        """One counting instruction for every 512 products, and no spill."""
        loop = hot_loop("xnor", "icelake-server", ICELAKE, "vpopcntd")
        assert len(re.findall(r"vpopcntd\s.*%zmm", loop)) == 8
        assert "(%rsp" not in loop

    @pytest.mark.parametrize("kernel", ["threshold", "affine"])
    def test_two_blocks_on_avx512(self, kernel: str) -> None:
        """Sixteen counts a word, all in registers."""
        loop = hot_loop(kernel, "icelake-server", ICELAKE, "vpopcntd")
        assert len(re.findall(r"vpopcntd\s.*%zmm", loop)) == 16
        assert "(%rsp" not in loop

    @pytest.mark.parametrize(
        ("cpu", "features", "register"),
        [("haswell", HASWELL, "ymm"), ("icelake-server", ICELAKE, "zmm")],
    )
    def test_floats(self, cpu: str, features: str, register: str) -> None:
        """Eight vectors of sums stay in registers from tap to tap."""
        loop = hot_loop("float", cpu, features, "vfmadd")
        assert len(re.findall(rf"vfmadd\w+\s.*%{register}", loop)) == 8
        assert "(%rsp" not in loop

    def test_bytes_on_avx2(self) -> None:
        loop = hot_loop("xnor", "haswell", HASWELL, "vpshufb")
        assert loop.count("vpshufb") >= 16
        assert "popcntl" not in loop


@pytest.mark.parametrize("cpu", ["cortex-a72", "neoverse-n1"])
def test_bytes_on_arm(cpu: str) -> None:
    """NEON's ``cnt`` on whole vectors; the kernel's form for a CPU without AVX is 16 bytes wide."""
    loop = hot_loop("xnor", cpu, "", "cnt", "aarch64-unknown-linux-gnu")
    assert len(re.findall(r"\bcnt\s+v\d+\.16b", loop)) >= 16
    assert len(re.findall(r"\beor\s+v\d+\.16b", loop)) >= 16
    assert "[sp" not in loop
