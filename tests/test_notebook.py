"""The example notebook runs and gives what is stored in it; names in its tables are escaped."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import frostbit as fb
from tests import ROOT
from tests.nets import every_op

NOTEBOOK = ROOT / "examples" / "notebook.ipynb"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=".")
nbformat.write(notebook, "executed.ipynb")
"""
EVIL = "<script>alert(1)</script>"


def shown(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """HTML of the results in a notebook, and all data of all outputs."""
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert [each for each in outputs if each["output_type"] in ("error", "stream")] == []
    results = [each["data"] for each in outputs if each["output_type"] == "execute_result"]
    tables = ["".join(each["text/html"]) for each in results if "text/html" in each]
    return tables, [each["data"] for each in outputs]


def test_the_notebook_gives_what_is_stored_in_it(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", EXECUTE, str(NOTEBOOK)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stored, _ = shown(NOTEBOOK)
    found, data = shown(tmp_path / "executed.ipynb")
    titles = ["Program", "Engine", "exported/model.onnx", "parity passed, 64 given images"]
    for tables in (stored, found):
        assert [each.partition("<b>")[2].partition("</b>")[0] for each in tables] == titles
    assert found[0] == stored[0]
    assert found[2:] == stored[2:]
    bars = [each for each in data if "application/vnd.jupyter.widget-view+json" in each]
    assert bars, "a progress bar in the notebook"
    assert (tmp_path / "exported" / "model.onnx").is_file()


def test_names_in_tables_are_escaped() -> None:
    program = replace(every_op(), classes=(EVIL, *"bcde"), dataset=EVIL)
    for shown_as in (program._repr_html_(), fb.Engine(program)._repr_html_()):
        assert shown_as.startswith("<table>")
        assert "<script" not in shown_as
        assert "&lt;script&gt;" in shown_as
    many = replace(every_op(), classes=tuple(f"c{index}" for index in range(1000)))
    assert "c7 and 992 more" in many._repr_html_()
