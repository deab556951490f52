"""Locks are complete, licences allowed, the bill of materials is the same everywhere."""

from __future__ import annotations

import json
import re
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.supply import EXTRAS, LOCKS, ROOT, audit, entries, licences, names, sbom


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_with_hashes_and_names_no_registry(lock: str) -> None:
    found = entries(LOCKS[lock])
    assert len(found) >= 4
    for entry in found:
        assert re.match(r"[A-Za-z0-9._-]+==[^\s;]+", entry), entry
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", entry), entry
        assert not re.search(r"https?:|file:|@ |--(extra-)?index-url|--find-links|^-e", entry), (
            entry
        )


def test_every_dependency_of_an_extra_is_in_its_lock() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = {"base": project["dependencies"], **project["optional-dependencies"]}
    assert set(asked) == set(EXTRAS)
    for extra, requirements in asked.items():
        locked = set(names(LOCKS[extra]))
        for requirement in requirements:
            name = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert name is not None
            if "python_version < '3.11'" not in requirement:
                assert re.sub(r"[-_.]+", "-", name[0]).lower() in locked, requirement


def test_nothing_that_is_shipped_has_a_licence_of_the_gpl_kind() -> None:
    for extra in licences.SHIPPED:
        found = licences.of_lock(extra)
        assert len(found) >= 8
        assert [each for each in found if each.forbidden] == []


@pytest.mark.parametrize(
    ("text", "forbidden"),
    [
        ("MIT", False),
        ("GPL-3.0-only", True),
        ("GNU Lesser General Public License v3 (LGPLv3)", True),
        ("AGPL-3.0-or-later", True),
        ("GPL-2.0-only OR BSD-3-Clause", False),
        ("MIT AND LGPL-2.1-or-later", True),
        ("UNKNOWN", True),
        ("MPL-2.0", False),
    ],
)
def test_which_licences_are_refused(text: str, forbidden: bool) -> None:
    assert licences.Licence("x", "1", text).forbidden is forbidden
    assert not licences.Licence("nvidia-cublas", "1", "UNKNOWN").forbidden


def test_the_bill_of_materials_is_complete_and_the_same_twice(tmp_path: Path) -> None:
    done = CliRunner().invoke(sbom.main, ["--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    for extra in EXTRAS:
        data = (tmp_path / f"sbom-{extra}.json").read_bytes()
        document = json.loads(data)
        assert document["bomFormat"] == "CycloneDX"
        assert {each["name"].lower() for each in document["components"]} >= set(names(LOCKS[extra]))
        for word in (str(ROOT), "file:", "/tmp", "serialNumber", "timestamp"):
            assert word.encode() not in data
    assert sbom.build("base") == (tmp_path / "sbom-base.json").read_bytes()


class _Advisories(BaseHTTPRequestHandler):
    """An OSV service that knows one thing: rich is bad."""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        package = {"name": "rich", "ecosystem": "PyPI"}
        ranges = [{"type": "ECOSYSTEM", "events": [{"introduced": "0"}, {"fixed": "99"}]}]
        known = {
            "id": "GHSA-test", "modified": "2026-01-01T00:00:00Z", "summary": "bad",
            "affected": [{"package": package, "ranges": ranges}],
        }  # fmt: skip
        bad = asked["package"]["name"] == "rich"
        data = json.dumps({"vulns": [known]} if bad else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *words: object) -> None:
        """Say nothing."""


@pytest.fixture
def advisories() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), _Advisories) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/v1/query"
        server.shutdown()
        thread.join()


def test_a_known_vulnerability_fails_the_audit(advisories: str) -> None:
    done = CliRunner().invoke(audit.main, ["--lock", "base", "--osv-url", advisories])
    assert done.exit_code == 1, done.output
    assert f"base: {len(names(LOCKS['base']))} packages audited, 1 known" in done.output
    assert re.search(r"rich [\d.]+: GHSA-test \(fixed in 99", done.output)


def test_what_could_not_be_asked_about_is_not_called_good(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"name": "a", "version": "1", "vulns": []}, {"name": "b", "skip_reason": "not found"}]
    found = audit.read({"dependencies": rows, "fixes": []})
    assert found == audit.Audit(1, ("b",), ())
    monkeypatch.setattr(audit, "audit", lambda lock, url: found)
    done = CliRunner().invoke(audit.main, ["--lock", "base"])
    assert done.exit_code == audit.NOT_AUDITED
    assert "1 NOT audited (b, ...)" in done.output
