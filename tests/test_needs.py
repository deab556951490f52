"""What is missing is skipped by name, counted in the closing line, and a failure in CI."""

import pytest

from tests import needs


def report(reason: str) -> pytest.TestReport:
    where = ("tests/test_x.py", 1, f"Skipped: {reason}")
    return pytest.TestReport("test_x", where, {}, "skipped", where, "call")


def test_a_missing_tool_is_skipped_by_name_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    reasons = []
    for ask in (lambda: needs.need("no-such-cc", "sh"), lambda: needs.need_any(("no-such-lld",))):
        with pytest.raises(pytest.skip.Exception) as skipped:
            ask()
        reasons.append(str(skipped.value))
    with pytest.raises(pytest.skip.Exception) as skipped:
        needs.skip("a wheel", "pipeline doctor")
    reasons.append(str(skipped.value))
    found = needs.told([*map(report, reasons), report("needs another CPU")])
    assert found == [
        "2 tests did not run for want of no-such-cc, no-such-lld; to get them: "
        "make system (as root)",
        "1 tests did not run for want of a wheel; to get them: pipeline doctor",
    ]


def test_in_ci_it_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="absent: no-such-cc; run: make system"):
        needs.need("no-such-cc")
