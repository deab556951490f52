"""Static estimates: the loop that is cut, its products, and the command that shows them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from frostbit.kernels.machine import cpu as features
from frostbit.pipeline.bench import static_estimate
from frostbit.pipeline.bench.static_estimate import EstimateMissing, counting_loop, estimates
from tests.needs import need_any

NEON = ("xnor", "bytes", 16)
ASSEMBLY = """
count:
	mov	x0, #0
.LBB0_1:
	cnt	v0.16b, v1.16b
	ldr	q1, [x1]
	b	.LBB0_3
.LBB0_2:                                // inner loop
	cnt	v0.16b, v1.16b
	add	v2.16b, v0.16b, v2.16b
	// a comment
	cnt	v3.16b, v1.16b
	subs	x17, x17, #1
	b.ne	.LBB0_2
	ret
.LBB0_3:
	subs	x17, x17, #1
	b.ne	.LBB0_3
"""


def test_the_loop_that_counts_most_is_cut() -> None:
    loop, macs = counting_loop(ASSEMBLY, NEON)
    assert macs == 2 * 128
    lines = loop.splitlines()
    assert len(lines) == 5
    assert lines[-1].split() == ["b.ne", ".LBB0_2"]


def test_code_without_such_a_loop_has_no_estimate() -> None:
    with pytest.raises(EstimateMissing, match="has no loop"):
        counting_loop(ASSEMBLY.replace("cnt", "eor"), NEON)


def test_the_boards_and_this_cpu() -> None:
    need_any(static_estimate.TOOLS)
    found = {each.cpu: each for each in estimates(features.chosen_kernel())}
    assert len(found) == 3
    for cpu in static_estimate.BOARDS:
        each = found[cpu]
        # two vector pipes, three instructions (eor, cnt, add) for 128 products
        assert 0.75 <= each.per_word < 1.5
        assert each.kernel == "xnor"
        assert each.macs % (16 * 128) == 0
        assert each.model == cpu
        assert "llvm-mca 1" in each.tool
    (here,) = (each for cpu, each in found.items() if cpu not in static_estimate.BOARDS)
    assert 0.05 < here.per_word < 1


def test_a_cpu_that_the_tool_does_not_know_is_taken_for_the_nearest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need_any(static_estimate.TOOLS)
    line = ("no-such-cpu", "nor-this-one", "cortex-a72")
    monkeypatch.setattr(static_estimate, "LINES", (line,))
    monkeypatch.setattr(static_estimate, "BOARDS", line)
    same = lambda _, __, cpus: dict.fromkeys(cpus, ASSEMBLY)  # noqa: E731
    monkeypatch.setattr(static_estimate, "_assemblies", same)
    monkeypatch.setattr(static_estimate.llvm, "get_host_cpu_name", lambda: "cortex-a72")
    found = estimates("xnor")
    assert [each.cpu for each in found] == list(line)
    assert {each.model for each in found} == {"cortex-a72"}
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(static_estimate.table(found, 1000, None))
    text = console.export_text()
    assert "no-such-cpu (as cortex-a72)" in text
    assert "does not know no-such-cpu, nor-this-one; on Debian: apt-get install llvm-19" in text
    monkeypatch.setattr(static_estimate, "LINES", ())
    with pytest.raises(EstimateMissing, match=r"does not know no-such-cpu; .*llvm-19"):
        estimates("xnor")


def test_without_the_tool_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_estimate, "TOOLS", ("no-such-tool",))
    with pytest.raises(EstimateMissing, match="apt-get install llvm-19"):
        estimates("xnor")
