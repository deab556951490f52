"""The rooms: who may import whom, how full a room may be, and what each stage may load."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ROOT
from tests.rooms import PACKAGES, arrows, imports, modules, purpose, room_of

MOST_MODULES = 16
ALLOWED = {
    "pipeline.cli": (
        "pipeline.device pipeline.report pipeline.bench pipeline.experiments "
        "pipeline.training pipeline.parity pipeline.lowering pipeline.data pipeline.run "
        "pipeline.console pipeline.errors export.c export.summary export.synthetic "
        "export.errors kernels kernels.engine kernels.machine kernels.ir"
    ),
    "pipeline.device": (
        "pipeline.bench pipeline.data pipeline.run pipeline.json_file pipeline.console "
        "pipeline.machine pipeline.errors export.parity export.runtimes export.version "
        "kernels.engine kernels.machine export.rounding kernels.ir"
    ),
    "pipeline.report": (
        "pipeline.bench pipeline.training pipeline.parity pipeline.lowering pipeline.data "
        "pipeline.run pipeline.console pipeline.machine pipeline.errors export.web "
        "export.bounded export.lce export.summary export.errors kernels.engine "
        "kernels.machine kernels.ir"
    ),
    "pipeline.bench": (
        "pipeline.parity pipeline.data pipeline.run pipeline.json_file pipeline.console "
        "pipeline.machine pipeline.errors export.parity export.lce export.runtimes "
        "export.inputs export.synthetic export.errors kernels.profile kernels.engine "
        "kernels.micro kernels.machine kernels.ir"
    ),
    "pipeline.experiments": (
        "pipeline.training pipeline.lowering pipeline.data pipeline.run pipeline.json_file "
        "pipeline.errors"
    ),
    "pipeline.training": (
        "pipeline.parity pipeline.lowering pipeline.method pipeline.network pipeline.data "
        "pipeline.run pipeline.machine pipeline.errors export.errors kernels.ir"
    ),
    "pipeline.parity": (
        "pipeline.lowering pipeline.data pipeline.run pipeline.console pipeline.errors "
        "export.foreign export.reading export.sizes export.web export.parity export.c "
        "export.lce export.onnx export.runtimes export.inputs export.summary export.errors "
        "kernels.machine kernels.ir"
    ),
    "pipeline.lowering": (
        "pipeline.network pipeline.data pipeline.run pipeline.console pipeline.errors "
        "export.parity export.runtimes export.terms kernels.ir"
    ),
    "pipeline.method": "pipeline.network pipeline.errors",
    "pipeline.network": "pipeline.run pipeline.errors kernels.ir",
    "pipeline.data": (
        "pipeline.run pipeline.json_file pipeline.console pipeline.errors export.inputs kernels.ir"
    ),
    "pipeline.run": "pipeline.json_file pipeline.errors kernels.ir",
    "pipeline.json_file": "pipeline.console",
    "pipeline.console": "",
    "pipeline.machine": "",
    "pipeline.errors": "",
    "pipeline": "",
    "export.model_file": "export.foreign export.errors kernels.ir",
    "export.foreign": (
        "export.reading.onnx export.reading.tflite export.reading export.inputs kernels.ir"
    ),
    "export.reading.onnx": (
        "export.reading export.onnx export.inputs export.summary export.errors kernels.ir"
    ),
    "export.reading.tflite": (
        "export.reading export.lce export.inputs export.summary export.errors kernels.ir"
    ),
    "export.reading": "export.inputs export.errors export.terms kernels.ir",
    "export.sizes": "export.lce export.onnx export.errors kernels.ir",
    "export.web": "export.parity export.c export.runtimes export.errors kernels.ir",
    "export.parity": "export.runtimes export.errors export.rounding export.terms kernels.ir",
    "export.c": "export.runtimes export.errors kernels.plan kernels.ir",
    "export.bounded": "export.lce export.onnx export.summary export.errors",
    "export.lce": "export.inputs export.summary export.version export.errors kernels.ir",
    "export.onnx": (
        "export.runtimes export.inputs export.summary export.version export.errors kernels.ir"
    ),
    "export.runtimes": "export.inputs kernels.engine kernels.ir",
    "export.inputs": "kernels.ir",
    "export.summary": "kernels.ir",
    "export.synthetic": "export.errors kernels.ir",
    "export.version": "",
    "export.errors": "",
    "export": "",
    "kernels": "kernels.engine kernels.ir",
    "kernels.profile": "kernels.engine kernels.micro kernels.ir",
    "kernels.engine": "kernels.loops kernels.plan kernels.micro kernels.machine kernels.ir",
    "kernels.loops": "kernels.micro kernels.machine kernels.op_table",
    "kernels.plan": "kernels.micro kernels.machine kernels.op_table kernels.ir",
    "kernels.micro": "kernels.machine kernels.op_table",
    "kernels.machine": "",
    "kernels.op_table": "",
    "export.rounding": "kernels.ir",
    "export.terms": "kernels.ir",
    "kernels.ir": "",
}
"""Each room, topmost first, and the rooms below it from which it may import."""
LOADED = "import sys; print(*sorted(m for m in sys.modules if '.' not in m))"


def allowed() -> dict[str, set[str]]:
    return {room: set(below.split()) for room, below in ALLOWED.items()}


def test_rooms_import_from_those_that_are_named_and_no_others() -> None:
    assert arrows() == allowed()


def test_every_arrow_points_down() -> None:
    order = list(ALLOWED)
    for room, below in allowed().items():
        assert all(order.index(other) > order.index(room) for other in below), room


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("kernels/ir/bits.py", "from frostbit.kernels.micro import vector"),
        ("kernels/engine.py", "    from frostbit.export import parity"),
        ("export/summary.py", "import frostbit.export.onnx.reader"),
        ("pipeline/run/recipe.py", "from frostbit.pipeline.training.train import train"),
    ],
)
def test_an_added_arrow_is_noticed(file: str, line: str, tmp_path: Path) -> None:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("records")
        )
    assert arrows(tmp_path) == allowed()
    body = f"def late() -> None:\n{line}\n" if line.startswith(" ") else f"{line}\n"
    with (tmp_path / file).open("a") as changed:
        changed.write(body)
    assert arrows(tmp_path) != allowed()


def test_imports_are_absolute_and_by_the_installed_name() -> None:
    known = modules()
    for path in known.values():
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & {"", *PACKAGES}, path


def test_rooms_are_small_and_say_what_they_are_for() -> None:
    known = modules()
    rooms = {room_of(module, known) for module in known}
    for room in rooms:
        assert purpose(room, known), room
    for folder in {path.parent for path in known.values()}:
        assert len(list(folder.glob("*.py"))) <= MOST_MODULES, folder
    for folder in (ROOT / "tests").rglob("*"):
        assert len(list(folder.glob("*.py"))) <= MOST_MODULES, folder


def test_the_packages_are_ours() -> None:
    known = modules()
    code = "\n".join(f"import frostbit.{package}" for package in PACKAGES)
    code += "\nprint(*(getattr(frostbit, name).__file__ for name in " + repr(PACKAGES) + "))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(known[package]) for package in PACKAGES]


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
