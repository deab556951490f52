"""predict, bundle, the board's check and bench --remote over a real ssh server on loopback."""

from __future__ import annotations

import getpass
import io
import json
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from frostbit.export.parity import REAL_TOLERANCE
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import INPUT, Window
from frostbit.kernels.machine import cpu
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.data import pictures
from frostbit.pipeline.data.inputs import Inputs
from frostbit.pipeline.device import bundle, remote, wheel
from frostbit.pipeline.device import check as board_check
from frostbit.pipeline.errors import UserError
from tests.kernels.programs import Builder
from tests.needs import need
from tests.nets import every_op, images, imported


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "toy" / "model.bnn"
    path.parent.mkdir()
    save_program(every_op(), path)
    return path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle in a folder, its wheel unpacked into ``lib``."""
    folder = tmp_path_factory.mktemp("built")
    (folder / "toy").mkdir()
    save_program(every_op(), folder / "toy" / "model.bnn")
    done = invoke("bundle", folder / "toy" / "model.bnn", "-o", folder / "b.zip")
    assert done.exit_code == 0, done.output
    with zipfile.ZipFile(folder / "b.zip") as archive:
        archive.extractall(folder / "board")
    with zipfile.ZipFile(next((folder / "board").glob("*.whl"))) as archive:
        archive.extractall(folder / "board" / "lib")
    return folder / "board"


@pytest.fixture
def unpacked(built: Path, tmp_path: Path) -> Path:
    """A bundle of one's own to damage."""
    return shutil.copytree(built, tmp_path / "board")


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def check(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the bundle's own script with the bundle's own code, and nothing of this checkout."""
    command = [sys.executable, "-c", PROBE, str(folder / "lib"), *words]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


PROBE = """
import sys, runpy
sys.path.insert(0, sys.argv.pop(1))
import frostbit.kernels, frostbit.pipeline
for package in (frostbit, frostbit.kernels, frostbit.pipeline):
    assert package.__file__.startswith(sys.path[0])
runpy.run_path("check.py")
"""


def test_a_bundle_proves_equality_and_measures(unpacked: Path) -> None:
    done = check(unpacked, "--rounds", "2", "--json", "result.json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((unpacked / "result.json").read_text())
    assert found["passed"]
    assert [each["kernel"] for each in found["kernels"]] == list(cpu.available())
    assert all(each["logits_max_abs_diff"] == 0 for each in found["kernels"])
    assert len(found["bench"]["runtimes"]) == len(cpu.available())
    assert "equal bit for bit" in done.stdout


def test_a_network_that_takes_floats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flips next to a threshold are followed; wrong logits, there or here, are a difference."""
    program = imported()
    batch = images(program, 12)
    zip_file = io.BytesIO(bundle.build(program, "toy", Inputs(batch, None, "")))
    with zipfile.ZipFile(zip_file) as archive:
        archive.extractall(tmp_path)
    told = board_check.read_manifest(tmp_path)
    assert told.tolerance == REAL_TOLERANCE
    assert np.load(tmp_path / "images.npy").dtype == np.float32
    assert all(each["equal"] for each in board_check.compare(program, tmp_path, told))
    logits = np.load(tmp_path / "logits.npy")
    np.save(tmp_path / "logits.npy", logits[::-1])
    assert not any(each["equal"] for each in board_check.compare(program, tmp_path, told))
    np.save(tmp_path / "logits.npy", logits)
    run = Engine.run
    with monkeypatch.context() as patched:
        patched.setattr(Engine, "run", lambda self, x: run(self, x) + np.float32(0.01))
        assert not any(each["equal"] for each in board_check.compare(program, tmp_path, told))
    np.save(tmp_path / "images.npy", batch.astype(np.uint8))
    with pytest.raises(UserError, match=r"images.npy does not fit"):
        board_check.compare(program, tmp_path, told)


def test_without_timing_no_time_is_told(unpacked: Path) -> None:
    done = check(unpacked, "--no-timing", "--json", "result.json")
    assert done.returncode == 0, done.stderr
    assert "bench" not in json.loads((unpacked / "result.json").read_text())
    assert "latency" not in done.stdout


def test_expected_logits_are_those_of_the_reference(unpacked: Path) -> None:
    program = load_program(unpacked / "model.bnn")
    images, logits = (np.load(unpacked / f"{name}.npy") for name in ("images", "logits"))
    assert len(images) == bundle.IMAGES
    np.testing.assert_array_equal(logits, reference.run(program, images))


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Change a file and its hash in the manifest."""
    (folder / name).write_bytes(data)
    facts = json.loads((folder / "manifest.json").read_text())
    facts["sha256"][name] = board_check.hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(facts))


def facts(folder: Path) -> dict[str, Any]:
    """The manifest."""
    found: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return found


def state(folder: Path, key: str, value: object) -> None:
    """Forge a field of the manifest; text stands there as it is."""
    text = json.dumps({**facts(folder), key: "HERE"})
    new = value if isinstance(value, str) else json.dumps(value)
    (folder / "manifest.json").write_text(text.replace('"HERE"', new))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("tolerance", "Infinity", "tolerance"),
        ("tolerance", "1e999", "tolerance"),
        ("tolerance", "NaN", "tolerance"),
        ("tolerance", "0.5", "tolerance"),
        ("tolerance", "-1e-9", "tolerance"),
        ("tolerance", '"0"', "tolerance"),
        ("tolerance", "1e-4", "allows a difference of 0.0001, this model needs"),
        ("images", "0", "images"),
        ("images", "255", "holds 256 images, the manifest names 255"),
        ("images", "1" + "0" * 400, "images"),
        ("sha256", "{}", "no hash of model.bnn"),
        ("sha256", '{"model.bnn": ""}', "sha256"),
        ("program_sha256", '""', "program_sha256"),
        ("program_sha256", json.dumps("0" * 64), "of another model"),
        ("label", "[" * 10**5, "label"),
        ("made_on", "{}", "cpu"),
    ],
)
def test_a_forged_manifest_proves_nothing(
    unpacked: Path, key: str, value: str, reason: str
) -> None:
    state(unpacked, key, value)
    with pytest.raises(UserError) as refused:
        board_check._main(unpacked, None, None)
    assert reason in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize("name", ["model.bnn", "images.npy", "logits.npy", "labels.npy"])
def test_no_file_that_counts_goes_without_a_hash(unpacked: Path, name: str) -> None:
    (unpacked / "labels.npy").write_bytes(npy(np.zeros(bundle.IMAGES, np.int64)))
    rewrite(unpacked, "labels.npy", (unpacked / "labels.npy").read_bytes())
    board_check.read_manifest(unpacked)
    sums = facts(unpacked)["sha256"]
    del sums[name]
    state(unpacked, "sha256", sums)
    with pytest.raises(UserError, match=f"no hash of {name}"):
        board_check.read_manifest(unpacked)


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("images", np.zeros((0, 8, 8, 3), np.uint8), "images.npy"),
        ("logits", np.full((256, 5), np.inf, np.float32), "logits.npy"),
        ("logits", np.zeros((256, 5), np.complex64), "logits.npy"),
        ("labels", np.zeros(1, np.int64), "labels.npy"),
    ],
)
def test_arrays_that_prove_nothing(
    unpacked: Path, name: str, values: np.ndarray, reason: str
) -> None:
    rewrite(unpacked, f"{name}.npy", npy(values))
    with pytest.raises(UserError, match=reason):
        board_check._main(unpacked, None, None)


def npy(values: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, values)
    return buffer.getvalue()


def test_one_wrong_bit_fails(unpacked: Path) -> None:
    logits = np.load(unpacked / "logits.npy")
    logits[17, 1] = np.nextafter(logits[17, 1], np.float32(np.inf))
    rewrite(unpacked, "logits.npy", npy(logits))
    done = check(unpacked, "--no-timing")
    assert done.returncode == 1
    assert "DIFFERS" in done.stdout


def test_constant_outputs_prove_nothing(unpacked: Path) -> None:
    images = np.load(unpacked / "images.npy")
    images[:] = images[0]
    program = load_program(unpacked / "model.bnn")
    rewrite(unpacked, "images.npy", npy(images))
    rewrite(unpacked, "logits.npy", npy(reference.run(program, images)))
    done = check(unpacked, "--no-timing")
    assert done.returncode == 1
    assert "same logits" in done.stdout


def test_damage_is_named(unpacked: Path) -> None:
    data = bytearray((unpacked / "images.npy").read_bytes())
    data[-1] ^= 1
    (unpacked / "images.npy").write_bytes(data)
    with pytest.raises(UserError, match=r"images\.npy' is damaged"):
        board_check.read_manifest(unpacked)
    data[-1] ^= 1
    (unpacked / "images.npy").write_bytes(data)
    state(unpacked, "sha256", {**facts(unpacked)["sha256"], "../x": "0" * 64})
    with pytest.raises(UserError, match="outside its folder"):
        board_check.read_manifest(unpacked)
    (unpacked / "manifest.json").unlink()
    with pytest.raises(UserError, match="no complete bundle"):
        board_check.read_manifest(unpacked)


def test_pickles_are_not_opened(unpacked: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{}]), allow_pickle=True)
    rewrite(unpacked, "images.npy", buffer.getvalue())
    done = check(unpacked, "--no-timing")
    assert done.returncode == 1
    assert "images.npy' is damaged" in done.stderr


def test_the_wheel_installs_and_is_the_same_twice(tmp_path: Path) -> None:
    name, data = wheel.build()
    assert wheel.build() == (name, data)
    (tmp_path / name).write_bytes(data)
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(target), str(tmp_path / name)], check=True)
    assert (target / "frostbit" / "kernels" / "engine.py").is_file()
    records = {each.name for each in (target / "frostbit" / "pipeline" / "records").iterdir()}
    assert records == {"fashion-best.bnn", "fashion-best-answers.npz"}
    assert (target / "bin" / "pipeline").is_file()


# ---------------------------------------------------------------- predict


def picture(path: Path, size: tuple[int, int]) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def colours(path: Path) -> Path:
    """A network for RGB images of 9x11 with five classes."""
    b = Builder((9, 11, 3), seed=3)
    program = b.finish(b.sign(b.conv(INPUT, 32, Window((3, 3), (2, 2)))))
    save_program(program, path)
    return path


def test_predict_is_the_engine_on_the_picture(tmp_path: Path) -> None:
    model = colours(tmp_path / "colours.bnn")
    program = load_program(model)
    height, width, channels = program.input_shape
    exact = picture(tmp_path / "exact.png", (height, width))
    photo = picture(tmp_path / "photo.jpg", (5 * height, 7 * width))
    out = tmp_path / "out.json"
    done = invoke("predict", model, exact, photo, "--top", 3, "--json", out)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    pixels = pictures.fitted(exact, (height, width, channels))
    logits = reference.run(program, pixels[None])[0]
    best = np.argsort(-logits, kind="stable")[:3]
    guesses = found[0]["guesses"]
    assert [each["name"] for each in guesses] == [program.classes[i] for i in best]
    assert [each["logit"] for each in guesses] == [float(logits[i]) for i in best]
    assert len(found[1]["guesses"]) == 3
    assert "photo.jpg" in done.output


def test_a_model_for_other_than_pictures_is_refused(model: Path, tmp_path: Path) -> None:
    done = invoke("predict", model, picture(tmp_path / "x.png", (9, 9)))
    assert done.exit_code == 2
    assert "2 channels" in done.output


def test_what_is_no_picture_is_named(tmp_path: Path) -> None:
    model = colours(tmp_path / "colours.bnn")
    (tmp_path / "x.png").write_bytes(b"no picture")
    done = invoke("predict", model, tmp_path / "x.png")
    assert done.exit_code == 2
    assert "x.png' (" in done.output
    assert "JPEG or PNG" in done.output


def test_pictures_keep_their_proportions(tmp_path: Path) -> None:
    wide = np.zeros((20, 60), np.uint8)
    wide[:, 20:40] = 255  # the middle third
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert (pictures.fitted(tmp_path / "wide.png", (10, 10, 1)) > 200).mean() > 0.85
    assert pictures.evaluated(tmp_path / "wide.png", (7, 5, 1)).shape == (7, 5, 1)


# ---------------------------------------------------------------- remote


@pytest.fixture(scope="module")
def ssh_config(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Configuration file for the host ``board``: an ssh server on loopback, with its own keys."""
    need("sshd", "ssh", "scp", "ssh-keygen")
    folder = tmp_path_factory.mktemp("ssh")
    for key in ("host", "user"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)]
        subprocess.run(make, check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "sshd").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nPidFile {folder}/pid\n"
        f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\n"
        "UsePAM no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n"
    )
    Path("/run/sshd").mkdir(exist_ok=True)
    command = [str(shutil.which("sshd")), "-D", "-e", "-f", str(folder / "sshd")]
    server = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.05)
    config = folder / "config"
    config.write_text(
        f"Host board\n HostName 127.0.0.1\n Port {port}\n User {getpass.getuser()}\n"
        f" IdentityFile {folder}/user\n IdentitiesOnly yes\n StrictHostKeyChecking no\n"
        f" UserKnownHostsFile {folder}/known\n LogLevel ERROR\n"
    )
    yield config
    server.terminate()
    server.wait()


def test_bench_on_another_machine(model: Path, ssh_config: Path, tmp_path: Path) -> None:
    out = tmp_path / "a name with spaces.json"
    where = ["--remote", "board", "--ssh-config", ssh_config, "--remote-python", sys.executable]
    done = invoke("bench", model, *where, "--rounds", 2, "--json", out)
    assert done.exit_code == 0, done.output
    found = json.loads(out.read_text())
    assert found["passed"]
    assert found["bench"]["conditions"]["rounds"] == 2
    assert "equal bit for bit" in done.output


def test_every_word_is_quoted(ssh_config: Path) -> None:
    there = remote.Remote("board", config=ssh_config)
    words = ["a b", "$(touch /tmp/never)", "; echo c", "'", '"', "*"]
    assert there.run("printf", "%s\\n", *words).stdout.splitlines() == words


def test_failures_there_are_told(ssh_config: Path) -> None:
    there = remote.Remote("board", config=ssh_config)
    with pytest.raises(UserError, match="No such file"):
        there.run("ls", "/no/such/folder")
    nobody = remote.Remote("nobody-here.invalid", config=ssh_config)
    with pytest.raises(UserError, match="nobody-here"):
        nobody.run("true")


@pytest.mark.parametrize("target", ["", "-oProxyCommand=touch", "a b", "a;b", "user@-x"])
def test_hosts_that_are_none(target: str) -> None:
    with pytest.raises(UserError, match="is no host"):
        remote.Remote(target)


def test_doctor_as_json() -> None:
    done = invoke("doctor", "--json")
    assert done.exit_code == 0, done.output
    found = {each["name"]: each for each in json.loads(done.output)}
    for name in ("python", "cpu", "threads", "engine", "cache", "torch", "cuda", "data digits"):
        assert found[name]["text"]
    assert found["torch"]["remedy"] == ""
    assert "--data-dir" in found["data imagenet"]["remedy"]
