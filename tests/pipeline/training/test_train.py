"""Training as a whole, on real digits: the run folder, determinism, and everything refused."""

import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console

from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network import models
from frostbit.pipeline.network.binary import unfrozen_layers
from frostbit.pipeline.run import checkpoint, metrics, recipe
from frostbit.pipeline.run.folder import read_run, read_tensors
from frostbit.pipeline.run.recipe import Recipe
from frostbit.pipeline.training import freeze_plot
from frostbit.pipeline.training import train as training
from frostbit.pipeline.training.batches import Batches, Changes
from frostbit.pipeline.training.divergence import watched, worst_layer
from frostbit.pipeline.training.loop import Setting, Trainer
from frostbit.pipeline.training.optimizers import lr_factor
from frostbit.pipeline.training.reproducibility import choose_device, reproducible
from frostbit.pipeline.training.train import Options, train

QUICK: dict[str, Any] = {"epochs": 1, "width": 8, "model": "bireal-2", "batch": 100, "warmup": 0.1}


def quick(**changes: Any) -> Recipe:
    return recipe.load("digits", {**QUICK, **changes})


# ---------------------------------------------------------------- the run folder


def test_a_run_is_complete_and_exactly_binary(trained: Path) -> None:
    run = read_run(trained)
    assert run.recipe == recipe.load("digits", {"epochs": 2})
    facts = run.facts
    assert facts["fully_frozen"] is True
    assert facts["unfrozen"] == {}
    assert facts["dataset"]["splits"] == {"train": 1197, "validation": 240, "test": 360}
    assert facts["steps"] == 2 * (1197 // 50)
    assert facts["seed"] == 0
    assert facts["threads"] >= 1
    assert facts["versions"]["torch"] == torch.__version__.split("+")[0]
    assert facts["settling"]["body_exact"] is True
    assert len(facts["settled_hash"]) == 64
    assert 60 < facts["accuracy"]["test_after_settling"] <= 100
    assert facts["seconds"] > 0
    model = models.build_from(run.recipe, facts["dataset"])
    model.load_state_dict(read_tensors(run.folder.model))
    assert unfrozen_layers(model) == {}
    assert str(trained.parent) not in run.folder.run.read_text()


def test_metrics_tell_the_whole_story(trained: Path) -> None:
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 47))
    assert rows[-1]["epoch"] == 2
    assert rows[0]["frozen"] == [0, 0, 0, 0, 0]
    assert rows[-1]["frozen"] == [1, 1, 1, 1, 1]
    flips = [row["flips"] for row in rows]
    assert all(len(row) == 5 and all(0 <= share <= 1 for share in row) for row in flips)
    assert any(any(row) for row in flips)
    assert flips[-1] == [0, 0, 0, 0, 0], "STE-free and all frozen: nothing moves"
    assert all(0 <= row["accuracy"] <= 100 and row["loss"] > 0 for row in rows)
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["lr"] < rows[25]["lr"]


def test_the_picture_is_a_picture(trained: Path) -> None:
    picture = imread(io.BytesIO((trained / "training.png").read_bytes()), format="png")
    assert picture.shape == (1020, 1080, 4)
    assert picture.std() > 0.1


def test_bold_lines_are_means_and_grey_lines_the_ends_of_windows(trained: Path) -> None:
    assert freeze_plot.smooth([1, 2, 6, 3], 3).tolist() == [1.5, 3, 11 / 3, 4.5]
    assert freeze_plot.smooth([2.0], 7).tolist() == [2.0]
    found = freeze_plot.closings(metrics.read(trained / "metrics.jsonl"))
    assert 1 <= len(found) <= 5
    assert found == sorted(found)
    assert 0 < found[0] < found[-1] < 2


def test_same_seed_same_bytes_other_seed_other_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(quick(seed=seed, shift=1), tmp_path / name)
    for file in ("model.safetensors", "settled.safetensors", "metrics.jsonl", "training.png"):
        first, second, third = ((tmp_path / name / file).read_bytes() for name in "abc")
        assert first == second, file
        assert first != third, file


@pytest.mark.parametrize("name", ["plain-2", "mlp-2"])
@pytest.mark.parametrize("method", ["stompp", "stompp-ste", "ste"])
def test_other_networks_and_methods(tmp_path: Path, name: str, method: str) -> None:
    result = train(quick(model=name, method=method, optimizer="sgd"), tmp_path / "run")
    assert result.unfrozen == {}
    assert result.test_after is not None
    assert result.folder.settled.exists()


def test_a_float_run_says_that_it_is_not_binary(tmp_path: Path) -> None:
    result = train(quick(method="float"), tmp_path / "run")
    assert result.test_after is None
    assert result.unfrozen["body.0.conv"] == 8 * 8 * 9
    run = read_run(tmp_path / "run")
    assert run.facts["fully_frozen"] is False
    assert run.facts["unfrozen"] == result.unfrozen
    assert run.facts["accuracy"]["test_after_settling"] is None
    assert not run.folder.settled.exists()


def test_progress_and_warnings_are_shown(tmp_path: Path) -> None:
    text = io.StringIO()
    console = Console(file=text, width=160, force_terminal=True)
    train(quick(), tmp_path / "run", None, console)
    shown = text.getvalue()
    words = ("train stompp", "epoch 1.0/1", "loss", "accuracy", "frozen 100 %", "left")
    for word in (*words, "evaluate (test)", "evaluate settled", "evaluate (validation)"):
        assert word in shown
    assert "too few" in shown


def test_the_warning_names_enough_epochs() -> None:
    digits = datasets.load("digits")
    here = Setting(torch.device("cpu"))
    warning = Trainer(quick(), digits, here).warning()
    assert warning is not None
    epochs = int(warning.split("train for ")[1].split()[0])
    assert Trainer(quick(epochs=epochs), digits, here).warning() is None
    assert Trainer(quick(epochs=epochs - 1), digits, here).warning() is not None
    assert Trainer(quick(method="ste"), digits, here).warning() is None


# ---------------------------------------------------------------- refusals


def refused(*words: str, out: Path, chosen: Recipe | None = None, **options: Any) -> None:
    with pytest.raises(UserError) as refusal:
        train(chosen or quick(), out, Options(**options))
    text = str(refusal.value)
    assert "\n" not in text
    for word in words:
        assert word in text, text


def test_divergence_names_step_and_layer(tmp_path: Path) -> None:
    chosen = quick(optimizer="sgd", lr_binary=1e30, lr_other=1e30, lr_warmup_steps=0)
    refused(
        "diverged", "at step ", "; layer '", "first epoch", "smaller learning rates",
        "checkpoint: step ",
        out=tmp_path / "run", chosen=chosen,
    )  # fmt: skip
    kept, damaged = checkpoint.newest(tmp_path / "run" / "checkpoints")
    assert damaged == []
    assert kept is not None
    assert all(torch.isfinite(value).all() for value in kept.tensors.values())
    assert not (tmp_path / "run" / "run.json").exists()


def test_the_layer_that_goes_wrong_is_named() -> None:
    from torch import nn

    net = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    x = torch.ones(3, 2)
    with torch.no_grad():
        net[2].weight.fill_(1e3)
    assert worst_layer(net, x).startswith("layer '2' (Linear) gives the largest value")
    with torch.no_grad():
        net[0].bias.fill_(3e38)
        net[0].weight.fill_(3e38)
    assert worst_layer(net, x) == "layer '0' (Linear) is the first to give inf"
    with torch.no_grad():
        net[2].bias[1] = float("nan")
    assert worst_layer(net, x) == "layer '2' (Linear) has weights that are not finite"
    assert not any(module._forward_hooks for module in net.modules())


def test_an_anomaly_is_named_where_it_appears(tmp_path: Path) -> None:
    chosen = quick(optimizer="sgd", lr_binary=1e38, lr_other=3e38, lr_warmup_steps=0)
    place = {"out": tmp_path / "run", "chosen": chosen}
    refused("anomaly: layer '", "of ", "values", **place, detect_anomaly=True)


def test_an_anomaly_in_the_backward_pass_is_named() -> None:
    x = torch.zeros(1, requires_grad=True)
    with pytest.raises(UserError, match="backward pass: Function 'SqrtBackward0'"):  # noqa: SIM117
        with watched(torch.nn.Identity(), True):
            (torch.sqrt(x) * 0).sum().backward()
    with pytest.raises(RuntimeError, match="other"), watched(torch.nn.Identity(), True):
        raise RuntimeError("other")


def test_a_later_divergence_names_the_layer_that_froze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer._step

    def broken(self: Trainer, number: int, *args: Any) -> Any:
        loss, right = step(self, number, *args)
        return (loss * float("nan") if number == 7 else loss), right

    monkeypatch.setattr(Trainer, "_step", broken)
    refused(
        "nan at step 7 (freezing layer 1, 2)", "checkpoint", out=tmp_path / "run", chosen=quick()
    )


def test_a_used_folder_is_refused_and_force_clears_the_old_run(tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "model.bnn").write_bytes(b"stale")
    refused("not empty", "--force", out=out)
    train(quick(), out, Options(force=True))
    assert (out / "notes.txt").read_text() == "mine"
    assert not (out / "model.bnn").exists()
    assert read_run(out).facts["fully_frozen"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    refused("is a file", out=tmp_path / "run")
    refused("cannot write", out=tmp_path / "run" / "inside")


def test_a_full_disk_leaves_no_half_written_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        if training_done:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    training_done: list[bool] = []
    monkeypatch.setattr("os.fsync", full)
    original = training._finish

    def finish(*args: Any) -> Any:
        training_done.append(True)
        return original(*args)

    monkeypatch.setattr(training, "_finish", finish)
    refused("No space left", "--out", out=tmp_path / "run")
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"recipe.toml", "metrics.jsonl", "checkpoints"}


def test_an_abrupt_end_leaves_only_the_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Trainer, step: int, *args: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(quick(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.toml"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    refused("no CUDA device", "--device cpu", out=tmp_path / "run", device="cuda")
    refused("unknown device 'tpu'", out=tmp_path / "run", device="tpu")
    assert not (tmp_path / "run").exists()
    assert choose_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def unreadable(path: Path, *words: str) -> None:
    with pytest.raises(UserError) as refusal:
        read_run(path)
    for word in (*words, "train"):
        assert word in str(refusal.value)


def test_another_version_is_refused(copied: Path) -> None:
    facts = json.loads((copied / "run.json").read_text())
    facts["format_version"] = 99
    (copied / "run.json").write_text(json.dumps(facts))
    unreadable(copied, "run format 99", "reads 1")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format_version": 1, "sha256": 3}', "\0"])
def test_a_damaged_run_json_is_refused(copied: Path, content: str) -> None:
    (copied / "run.json").write_text(content)
    unreadable(copied, "damaged")


@pytest.mark.parametrize("name", ["recipe.toml", "model.safetensors", "settled.safetensors"])
def test_a_changed_or_missing_file_is_named(copied: Path, name: str) -> None:
    path = copied / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    unreadable(copied, name)
    path.unlink()
    unreadable(copied, name)


def test_no_run_at_all(tmp_path: Path) -> None:
    unreadable(tmp_path, "no finished run")
    with pytest.raises(UserError, match="cannot read"):
        read_tensors(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nonsense")
    with pytest.raises(UserError, match="cannot read"):
        read_tensors(tmp_path / "model.safetensors")


# ---------------------------------------------------------------- parts


def test_reproducible_gives_torch_its_settings_back() -> None:
    before = (torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32)
    with reproducible(3):
        assert torch.are_deterministic_algorithms_enabled()
        first = torch.rand(3)
    with reproducible(3):
        assert torch.equal(torch.rand(3), first)
    assert not torch.are_deterministic_algorithms_enabled()
    assert (torch.get_num_threads(), torch.backends.cuda.matmul.allow_tf32) == before


@settings(deadline=None, max_examples=40)
@given(
    count=st.integers(1, 40),
    batch=st.integers(1, 50),
    shift=st.integers(0, 2),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_batches(count: int, batch: int, shift: int, seed: int, epoch: int) -> None:
    images = np.zeros((count, 5, 4, 2), np.uint8)
    images[:, 2, 2, 0] = np.arange(1, count + 1)  # a marked pixel that no shift moves out
    split = datasets.Split(images, np.arange(count))
    batches = Batches(split, batch, seed, Changes(shift))
    seen: list[int] = []
    for found, labels in batches.epoch(epoch):
        assert found.shape == (batches.batch, 5, 4, 2)
        for image, label in zip(found, labels, strict=True):
            y, x, channel = (int(v[0]) for v in np.nonzero(image)) if image.any() else (2, 2, 0)
            assert channel == 0
            assert max(abs(y - 2), abs(x - 2)) <= shift
            moved = np.zeros_like(image)
            moved[y, x, 0] = label + 1
            assert np.array_equal(image, moved) or not image.any()
            seen.append(int(label))
    assert len(seen) == len(set(seen)) == batches.steps_per_epoch * batches.batch
    again = [int(label) for _, labels in batches.epoch(epoch) for label in labels]
    assert again == seen


def test_epochs_and_seeds_differ() -> None:
    split = datasets.load("digits").train
    first = next(Batches(split, 50, 0).epoch(0))[1]
    for other in (Batches(split, 50, 0).epoch(1), Batches(split, 50, 1).epoch(0)):
        assert not np.array_equal(first, next(other)[1])


def test_learning_rates() -> None:
    flat = Recipe(lr_schedule="flat-cosine", lr_flat=0.5, lr_warmup_steps=4)
    factors = [lr_factor(flat, step, 100) for step in range(100)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1, 1]
    assert factors[49:51] == [1, 1]
    assert factors[75] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.005)
    constant = Recipe(lr_schedule="constant", lr_warmup_steps=0)
    assert {lr_factor(constant, step, 10) for step in range(10)} == {1.0}
    cosine = Recipe(lr_schedule="cosine", lr_warmup_steps=0)
    assert lr_factor(cosine, 50, 100) == pytest.approx(0.5)
