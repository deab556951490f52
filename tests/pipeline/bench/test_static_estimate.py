"""Static estimates: the loop that is cut, its products, and the command that shows them."""

from __future__ import annotations

import shutil

import pytest

from frostbit.kernels.machine import cpu as features
from frostbit.pipeline.bench import static_estimate
from frostbit.pipeline.bench.static_estimate import EstimateMissing, counting_loop, estimates

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
    assert any(map(shutil.which, static_estimate.TOOLS)), "no llvm-mca: run `make system`"
    found = {each.cpu: each for each in estimates(features.chosen_kernel())}
    assert len(found) == 3
    for cpu in static_estimate.BOARDS:
        each = found[cpu]
        # two vector pipes, three instructions (eor, cnt, add) for 128 products
        assert 0.75 <= each.per_word < 1.5
        assert each.kernel == "xnor"
        assert each.macs % (16 * 128) == 0
        assert "llvm-mca 1" in each.tool
    (here,) = (each for cpu, each in found.items() if cpu not in static_estimate.BOARDS)
    assert 0.05 < here.per_word < 1


def test_without_the_tool_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(static_estimate, "TOOLS", ("no-such-tool",))
    with pytest.raises(EstimateMissing, match="apt-get install llvm-19"):
        estimates("xnor")
