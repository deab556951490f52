"""LCE's environment and worker process: absent, broken, crashed, hung, closed."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from frostbit.export.errors import LceError, RuntimeMissing
from frostbit.export.lce import convert as to_lce
from frostbit.export.lce import environment as lce_environment
from frostbit.export.lce import worker as lce_worker
from frostbit.export.lce.graph import LceGraph
from frostbit.export.lce.runtime import CHUNK, LceRuntime, Worker
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import BinaryConv, Program, Threshold, Window
from tests.export.lce.lce_fixture import require_lce
from tests.export.lce.lce_nets import Net

READ_WITH_SCHEMA = """
import importlib.util, json, sys
from pathlib import Path
root = Path(importlib.util.find_spec("larq_compute_engine").submodule_search_locations[0])
spec = importlib.util.spec_from_file_location("s", root / "mlir" / "python" / "tflite_schema.py")
schema = importlib.util.module_from_spec(spec)
spec.loader.exec_module(schema)
model = schema.ModelT.InitFromPackedBuf(sys.stdin.buffer.read(), 0)
graph = model.subgraphs[0]
text = lambda value: value.decode() if value else ""
print(json.dumps({
    "version": model.version,
    "codes": [[c.builtinCode, text(c.customCode), c.version] for c in model.operatorCodes],
    "names": [text(t.name) for t in graph.tensors],
    "shapes": [[int(d) for d in t.shape] for t in graph.tensors],
    "inputs": [int(i) for i in graph.inputs],
    "outputs": [int(i) for i in graph.outputs],
    "options": [type(o.builtinOptions).__name__ for o in graph.operators],
}))
"""


@pytest.fixture
def program() -> Program:
    net = Net(1, 6, 5)
    net.watch(net.binary(net.stem(33), 40, Window((3, 3)), 1, to_bits=True))
    return net.program()


@pytest.fixture
def images() -> np.ndarray:
    return np.asarray(Net(2, 6, 5).pixels(2 * CHUNK + 1))


@pytest.fixture
def _lce() -> None:
    require_lce()


@pytest.mark.usefixtures("_lce")
class TestRuntime:
    def test_more_images_than_one_request_takes(self, program: Program, images: np.ndarray) -> None:
        runtime = LceRuntime(program, "indirect", to_lce.convert(program))
        try:
            assert runtime.name == "lce:indirect"
            assert np.array_equal(runtime.logits(images), reference.run(program, images))
            times = runtime.latency(images[:1], CHUNK + 3)
            assert times.shape == (CHUNK + 3,)
            assert times.min() > 0
        finally:
            runtime.close()

    def test_the_given_bytes_are_what_runs(self, program: Program, images: np.ndarray) -> None:
        other = Net(1, 6, 5)
        other.watch(other.binary(other.stem(33), 40, Window((3, 3)), 1, to_bits=False))
        runtime = LceRuntime(program, tflite=to_lce.convert(other.program()))
        try:
            expected = reference.run(other.program(), images)
            assert np.array_equal(runtime.logits(images), expected)
        finally:
            runtime.close()

    def test_wrong_images_are_refused_before_they_are_sent(self, program: Program) -> None:
        runtime = LceRuntime(program)
        try:
            with pytest.raises(ValueError, match="uint8"):
                runtime.logits(np.zeros((1, 6, 5, 2), np.float32))
            with pytest.raises(ValueError, match="shape"):
                runtime.latency(np.zeros((1, 5, 6, 2), np.uint8), 1)
        finally:
            runtime.close()

    def test_an_unknown_kernel_is_refused(self, program: Program) -> None:
        with pytest.raises(ValueError, match=r"no kernel 'fast'.*default, indirect, reference"):
            LceRuntime(program, "fast")

    def test_a_file_that_lce_cannot_read_is_one_clear_line(self, program: Program) -> None:
        with pytest.raises(LceError, match="LCE") as caught:
            LceRuntime(program, tflite=b"TFL3 is not enough")
        assert "\n" not in str(caught.value)

    def test_a_crash_names_the_signal(self, program: Program, images: np.ndarray) -> None:
        runtime = LceRuntime(program)
        try:
            os.kill(runtime._worker.pid, signal.SIGSEGV)
            for _ in range(2):  # and stays an error
                with pytest.raises(LceError, match="SIGSEGV"):
                    runtime.logits(images)
        finally:
            runtime.close()

    def test_a_real_crash_of_lce_is_an_error(self) -> None:
        """Zero padding with bit output on the reference kernel, which to_lce never writes."""
        graph = LceGraph()
        x = graph.input((1, 4, 4, 2))
        words = bits.pack(np.ones((32, 3, 3, 2), np.int8))
        window = Window((3, 3), (1, 1), (1, 1, 1, 1))
        level = Threshold(np.zeros(32, np.int32))
        op = BinaryConv("crash", ("input",), window, words, 2, 1, 0, level)
        y = graph.binary_conv(graph.quantize("q", x), op, level, "crash", same=True)
        model = graph.writer.finish([x], [y], "crash")
        worker = Worker(timeout=60)
        try:
            header = {"op": "load", "model": "m", "kernel": "reference", "threads": 1}
            worker.ask(header, np.frombuffer(model, np.uint8))
            with pytest.raises(LceError, match="crashed its worker process"):
                worker.ask({"op": "run", "model": "m"}, np.zeros((1, 4, 4, 2), np.uint8))
        finally:
            worker.close()

    def test_a_hang_ends_with_the_time_limit(self, program: Program, images: np.ndarray) -> None:
        runtime = LceRuntime(program, timeout=20)
        runtime._worker._timeout = 0.3
        try:
            os.kill(runtime._worker.pid, signal.SIGSTOP)
            with pytest.raises(LceError, match=r"no answer within 0\.3 s"):
                runtime.logits(images)
        finally:
            runtime.close()

    def test_close_ends_the_process_and_may_be_repeated(self, program: Program) -> None:
        runtime = LceRuntime(program)
        pid = runtime._worker.pid
        runtime.close()
        runtime.close()
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

    def test_lces_own_schema_reads_the_file(self, program: Program) -> None:
        done = subprocess.run(
            [str(lce_environment.require_python()), "-I", "-c", READ_WITH_SCHEMA],
            input=to_lce.convert(program, debug=True),
            capture_output=True,
            check=True,
        )
        model = json.loads(done.stdout)
        assert model["version"] == 3
        assert [32, "LceBconv2d", 1] in model["codes"]
        assert {"input", "logits", *(op.name for op in program.ops)} <= set(model["names"])
        assert [model["shapes"][i] for i in model["inputs"]] == [[1, 6, 5, 2]]
        outputs = [model["names"][i] for i in model["outputs"]]
        assert outputs == ["logits", *to_lce.sign_names(program)]
        assert model["shapes"][model["outputs"][0]] == [1, len(program.classes)]
        assert {"Conv2DOptionsT", "ReducerOptionsT", "NoneType"} <= set(model["options"])


def test_a_missing_environment_names_the_remedy(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(lce_environment.VARIABLE, str(tmp_path / "none"))
    assert lce_environment.lce_python() is None
    with pytest.raises(RuntimeMissing, match="pipeline doctor --install-lce"):
        LceRuntime(program)


def test_a_python_that_does_not_start_is_one_clear_line(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "lce", "no program")
    monkeypatch.setenv(lce_environment.VARIABLE, str(tmp_path / "lce"))
    with pytest.raises(LceError, match="cannot start"):
        LceRuntime(program)


def test_a_worker_that_ends_at_once_tells_its_last_words(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "lce", "#!/bin/sh\necho numpy is broken >&2\nexit 3\n")
    monkeypatch.setenv(lce_environment.VARIABLE, str(tmp_path / "lce"))
    with pytest.raises(LceError, match="status 3: numpy is broken"):
        LceRuntime(program)


def fake(root: Path, python: str) -> None:
    """A folder that looks like a complete environment, with this text as its Python."""
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").write_text(python)
    (root / "bin" / "python").chmod(0o755)
    (root / lce_environment.MARKER).write_text(lce_environment.requirements_hash())


def test_the_worker_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(lce_worker.__file__).read_text())
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    packages = {name.split(".")[0] for name in names}
    assert packages - sys.stdlib_module_names == {"numpy", "larq_compute_engine"}
