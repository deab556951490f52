"""Who may import whom, and what each stage may load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from frostbit import export, kernels, pipeline
from tests import ROOT

ALLOWED = {
    "kernels": {"kernels"},
    "export": {"kernels", "export"},
    "pipeline": {"kernels", "export", "pipeline"},
}
LOADED = "import sys; print(*sorted(m for m in sys.modules if '.' not in m))"


def imported(path: Path) -> set[str]:
    """Top-level names of all imports in a file, function bodies included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_in_one_direction(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        ours = imported(path) & set(ALLOWED)
        assert ours <= ALLOWED[package], path


def test_the_packages_are_ours() -> None:
    for module in (kernels, export, pipeline):
        assert Path(str(module.__file__)).parent.parent == ROOT


def loads(statement: str) -> set[str]:
    """Top-level modules in a fresh interpreter after ``statement``."""
    command = [sys.executable, "-c", f"{statement}\n{LOADED}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("statement", "kept_out"),
    [
        ("from frostbit.kernels import load", {"torch", "onnx", "onnxruntime", "sklearn", "rich"}),
        (
            "import frostbit.kernels.ir.file, frostbit.kernels.ir.reference",
            {"numba", "torch", "onnx"},
        ),
        ("import frostbit.pipeline.cli.main", {"numpy", "numba", "torch", "rich", "onnx"}),
        (
            "import frostbit.export.parity, frostbit.export.lce.runtime",
            {"torch", "onnx", "onnxruntime"},
        ),
        (
            "import frostbit.pipeline.bench.measure, frostbit.pipeline.parity.runtimes",
            {"torch", "onnx", "onnxruntime"},
        ),
    ],
)
def test_heavy_packages_stay_out(statement: str, kept_out: set[str]) -> None:
    assert not loads(statement) & kept_out


def test_benchmarking_the_engine_needs_the_base_install_only(packed: Path) -> None:
    arguments = ["bench", str(packed), "--runtime", "engine", "--rounds", "1"]
    arguments += ["--json", str(packed.with_name("engine.json"))]
    statement = (
        f"from frostbit.pipeline.cli.main import main; main({arguments!r}, standalone_mode=False)"
    )
    assert not loads(statement) & {"torch", "onnx", "onnxruntime", "matplotlib"}
