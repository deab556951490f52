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

from export import lce_env, lce_worker, to_lce
from export.lce_graph import LceGraph
from export.lce_runtime import CHUNK, LceError, LceRuntime, Worker
from export.runtimes import RuntimeMissing
from kernels import bits, reference
from kernels.program import BinaryConv, Program, Threshold, Window
from tests.export.lce_fixture import require_lce
from tests.export.lce_nets import Net

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
    return Net(2, 6, 5).pixels(2 * CHUNK + 1)


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
                runtime.logits(np.zeros((1, 6, 5, 2), np.float32))  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="shape"):
                runtime.latency(np.zeros((1, 5, 6, 2), np.uint8), 1)
        finally:
            runtime.close()

    def test_an_unknown_kernel_is_refused(self, program: Program) -> None:
        with pytest.raises(ValueError, match="no kernel 'fast'.*default, indirect, reference"):
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
            with pytest.raises(LceError, match="crashed its worker process"):
                header = {"op": "load", "model": "m", "kernel": "reference"}
                worker.ask(header, np.frombuffer(model, np.uint8))
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
            [str(lce_env.require_python()), "-I", "-c", READ_WITH_SCHEMA],
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
    monkeypatch.setenv(lce_env.VARIABLE, str(tmp_path / "none"))
    assert lce_env.lce_python() is None
    with pytest.raises(RuntimeMissing, match="pipeline doctor --install-lce"):
        LceRuntime(program)


def test_a_python_that_does_not_start_is_one_clear_line(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "lce", "no program")
    monkeypatch.setenv(lce_env.VARIABLE, str(tmp_path / "lce"))
    with pytest.raises(LceError, match="cannot start"):
        LceRuntime(program)


def test_a_worker_that_ends_at_once_tells_its_last_words(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake(tmp_path / "lce", "#!/bin/sh\necho numpy is broken >&2\nexit 3\n")
    monkeypatch.setenv(lce_env.VARIABLE, str(tmp_path / "lce"))
    with pytest.raises(LceError, match="status 3: numpy is broken"):
        LceRuntime(program)


def fake(root: Path, python: str) -> None:
    """A folder that looks like a complete environment, with this text as its Python."""
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").write_text(python)
    (root / "bin" / "python").chmod(0o755)
    (root / lce_env.MARKER).write_text(lce_env.requirements_hash())


def test_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(lce_env.VARIABLE, str(tmp_path))
    assert lce_env.folder() == tmp_path
    monkeypatch.delenv(lce_env.VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert lce_env.folder().parent == tmp_path / "cache" / "frostbit"
    assert lce_env.requirements_hash().startswith(lce_env.folder().name.removeprefix("lce-"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty place for an environment, on the platform that LCE has wheels for."""
    monkeypatch.setenv(lce_env.VARIABLE, str(tmp_path / "deep" / "lce"))
    monkeypatch.setattr(lce_env, "_check_platform", lambda: None)
    monkeypatch.setattr(lce_env, "_base_python", lambda: sys.executable)
    return tmp_path / "deep" / "lce"


def bare_venv(root: Path, base: str) -> None:
    """What _build makes, without the packages (no network in tests)."""
    subprocess.run([base, "-m", "venv", "--without-pip", str(root)], check=True)


def test_install_makes_an_environment_that_survives_its_move(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lce_env, "_build", bare_venv)
    said: list[str] = []
    python = lce_env.install(said.append)
    assert python == place / "bin" / "python" == lce_env.lce_python()
    assert str(place) in said[0]
    prefix = subprocess.run(
        [python, "-c", "import sys; print(sys.prefix)"], capture_output=True, text=True, check=True
    )
    assert Path(prefix.stdout.strip()) == place
    assert [path.name for path in place.parent.iterdir()] == ["lce"]

    monkeypatch.setattr(lce_env, "_build", None)  # a second call builds nothing
    assert lce_env.install(said.append) == python


def test_install_replaces_its_own_environment_of_older_pins(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lce_env, "_build", bare_venv)
    place.mkdir(parents=True)
    (place / lce_env.MARKER).write_text("of older pins")
    (place / "old").touch()
    assert lce_env.lce_python() is None
    lce_env.install(lambda _: None)
    assert not (place / "old").exists()


def test_install_leaves_a_foreign_folder_alone(place: Path) -> None:
    place.mkdir(parents=True)
    (place / "precious").touch()
    with pytest.raises(RuntimeMissing, match="holds something else"):
        lce_env.install(lambda _: None)
    assert (place / "precious").exists()


def test_a_failed_install_leaves_nothing_and_says_why(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(root: Path, base: str) -> None:
        root.mkdir()
        script = "import sys; sys.exit('ERROR: hashes do not match')"
        lce_env._run([base, "-c", script], "install LCE's packages")

    monkeypatch.setattr(lce_env, "_build", broken)
    with pytest.raises(RuntimeMissing, match=r"install LCE's packages \(ERROR: hashes do not"):
        lce_env.install(lambda _: None)
    assert list(place.parent.iterdir()) == []
    assert lce_env.main(["--install"]) == 2
    assert lce_env.main([]) == 1
    assert "--install-lce" in capsys.readouterr().err


def test_other_platforms_hear_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(lce_env.VARIABLE, str(tmp_path / "lce"))
    monkeypatch.setattr(lce_env.platform, "machine", lambda: "aarch64")
    for call in (lce_env.require_python, lce_env.install):
        with pytest.raises(RuntimeMissing, match=r"linux aarch64.*lce_benchmark_model"):
            call()


def test_another_python_on_the_path_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lce_env, "PYTHONS", ((3, 98), (3, 97)))
    monkeypatch.setattr(lce_env.shutil, "which", {"python3.97": "/opt/python3.97"}.get)
    assert lce_env._base_python() == "/opt/python3.97"
    monkeypatch.setattr(lce_env.shutil, "which", lambda _: None)
    with pytest.raises(RuntimeMissing, match=r"no Python wheel for Python 3\."):
        lce_env._base_python()


def test_requirements_are_pinned_and_hashed() -> None:
    text = lce_env.REQUIREMENTS.read_text()
    pins = [line for line in text.splitlines() if line[:1].isalpha()]
    assert {pin.split("==")[0] for pin in pins} == {
        "flatbuffers",
        "larq-compute-engine",
        "numpy",
        "tqdm",
    }
    for block in text.split("\n\n")[-1].replace("\\\n", " ").splitlines():
        assert block.startswith("#") or "--hash=sha256:" in block
    assert "://" not in text


def test_the_worker_imports_nothing_of_ours() -> None:
    tree = ast.parse(Path(lce_worker.__file__).read_text())
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert names - sys.stdlib_module_names == {"numpy", "larq_compute_engine"}
