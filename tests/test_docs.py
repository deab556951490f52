"""The pages as a site: built with warnings as errors, with every public name in the reference."""

import html
import re
import subprocess
import sys
from pathlib import Path

import frostbit as fb
from tests import ROOT


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "docs", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / f"{page.stem}.html").is_file(), page
    reference = (tmp_path / "reference.html").read_text()
    for name in set(fb.__all__) - {"__version__"}:
        assert f'id="frostbit.{name}"' in reference or f"frostbit.{name}" in reference, name
    shown = html.unescape(re.sub(r"<[^>]+>", "", reference))
    for text in ("uint8 [N, H, W, C]", "Raises", "FormatError"):
        assert text in shown, text
