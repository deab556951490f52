"""A run that stops and goes on ends bit for bit as one that never stopped."""

import io
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import Interrupted, UserError
from frostbit.pipeline.run import checkpoint, recipe
from frostbit.pipeline.run.folder import RunFolder, read_run
from frostbit.pipeline.run.recipe import Recipe
from frostbit.pipeline.training import resume
from frostbit.pipeline.training.loop import Setting, Trainer
from frostbit.pipeline.training.reproducibility import reproducible
from frostbit.pipeline.training.train import Options, RunResult, train

FILES = ("model.safetensors", "settled.safetensors", "metrics.jsonl", "training.png", "recipe.toml")
QUICK: dict[str, Any] = {"epochs": 2, "width": 8, "model": "bireal-2", "batch": 60, "shift": 1}
STEPS = 2 * (1197 // 60)


def quick(**changes: Any) -> Recipe:
    return recipe.load("digits", {**QUICK, **changes})


def stop_at(monkeypatch: pytest.MonkeyPatch, *steps: int) -> None:
    """Send this process SIGTERM when one of ``steps`` is about to be done."""
    original = Trainer._step
    left = list(steps)

    def step(self: Trainer, number: int, *args: Any) -> Any:
        if left and number == left[0]:
            left.pop(0)
            signal.raise_signal(signal.SIGTERM)
        return original(self, number, *args)

    monkeypatch.setattr(Trainer, "_step", step)


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "stompp"},  # soft refresh due in every step
        {"method": "stompp-ste", "optimizer": "sgd", "lr_binary": 0.1},
        {"method": "reverse", "accumulate": 3, "clip_norm": 1.0, "label_smoothing": 0.1},
    ],
)
def test_stopped_twice_inside_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    chosen = quick(**changes)
    train(chosen, tmp_path / "whole")
    out = tmp_path / "parts"
    stop_at(monkeypatch, 13, 25)
    for sitting, step in enumerate((14, 26)):
        with pytest.raises(Interrupted) as stopped:
            train(chosen, out, Options(resume=sitting > 0, checkpoint_every=100))
        assert stopped.value.number == signal.SIGTERM
        assert f"after step {step}" in str(stopped.value)
        assert "--resume" in str(stopped.value)
    text = io.StringIO()
    result = train(chosen, out, Options(resume=True), Console(file=text, width=200))
    assert isinstance(result, RunResult)
    assert f"going on from step 26 of {STEPS}" in text.getvalue()
    assert contents(out) == contents(tmp_path / "whole")
    assert not (out / "checkpoints").exists()
    schedule = Trainer(chosen, datasets.load("digits"), Setting(torch.device("cpu"))).schedule
    assert schedule.transition(14), "step 14 lies inside a window"


def test_an_interval_of_several_steps_is_not_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frostbit.pipeline.training.loop.INTERVALS", 6)
    train(quick(), tmp_path / "whole")
    stop_at(monkeypatch, 15)
    with pytest.raises(Interrupted):
        train(quick(), tmp_path / "parts")
    train(quick(), tmp_path / "parts", Options(resume=True))
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.fixture
def stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder whose two checkpoints lie at steps 15 and 17."""
    out = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        stop_at(patch, 16)
        with pytest.raises(Interrupted):
            train(quick(), out, Options(checkpoint_every=5))
    names = sorted(path.name[:14] for path in (out / "checkpoints").iterdir())
    assert names == ["step-000000015", "step-000000017"]
    return out


def damage_flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:1000])


@pytest.mark.parametrize("damage", [damage_flip, damage_cut, Path.unlink])
def test_a_damaged_checkpoint_gives_way_to_the_older(
    stopped: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(max((stopped / "checkpoints").iterdir()))
    text = io.StringIO()
    train(quick(), stopped, Options(resume=True), Console(file=text, width=200))
    assert "going on from step 15" in text.getvalue()
    assert ("damaged" in text.getvalue()) == (damage is not Path.unlink)
    train(quick(), tmp_path / "whole")
    assert contents(stopped) == contents(tmp_path / "whole")


def test_without_a_valid_checkpoint_training_starts_at_step_0(
    stopped: Path, tmp_path: Path
) -> None:
    for path in (stopped / "checkpoints").iterdir():
        damage_cut(path)
    text = io.StringIO()
    train(quick(), stopped, Options(resume=True), Console(file=text, width=200))
    assert "no valid checkpoint: training starts at step 0" in text.getvalue()
    train(quick(), tmp_path / "whole")
    assert contents(stopped) == contents(tmp_path / "whole")
    train(quick(), tmp_path / "new", Options(resume=True))
    assert contents(tmp_path / "new") == contents(tmp_path / "whole")


def test_another_recipe_is_refused(stopped: Path) -> None:
    with pytest.raises(UserError, match="another recipe"):
        train(quick(seed=5), stopped, Options(resume=True))


def test_a_finished_run_is_left_alone(trained: Path) -> None:
    before = contents(trained)
    text = io.StringIO()
    found = train(
        read_run(trained).recipe, trained, Options(resume=True), Console(file=text, width=200)
    )
    assert "finished: nothing to resume" in text.getvalue()
    assert contents(trained) == before
    assert isinstance(found, RunResult)
    assert found.test_after == read_run(trained).facts["accuracy"]["test_after_settling"]


def test_force_forgets_the_old_checkpoints(stopped: Path, tmp_path: Path) -> None:
    train(quick(), stopped, Options(force=True))
    train(quick(), tmp_path / "whole")
    assert contents(stopped) == contents(tmp_path / "whole")


def test_digits_writes_at_least_ten_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []

    def save(folder: Path, found: checkpoint.Checkpoint) -> None:
        saved.append(found.step)

    monkeypatch.setattr(resume.checkpoint, "save", save)
    train(recipe.load("digits", {"epochs": 2, "width": 8}), tmp_path / "run")
    assert len(saved) >= 10
    assert saved[-1] == 46


def test_checkpoints_by_steps_by_time_or_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    monkeypatch.setattr(resume.checkpoint, "save", lambda folder, found: saved.append(found.step))
    clock = iter(range(10**6))  # a second passes at each look
    monkeypatch.setattr(resume.time, "perf_counter", lambda: float(next(clock)))
    for every, minutes, least in ((0, 0.1, 3), (10, 0.0, STEPS // 10), (10, 0.1, STEPS // 10 + 2)):
        saved.clear()
        options = Options(checkpoint_every=every, checkpoint_minutes=minutes, force=True)
        train(quick(), tmp_path / "run", options)
        assert len(saved) >= least
        assert saved == sorted(set(saved))
        by_step = {step for step in saved if step % 10 == 0}
        assert (by_step >= set(range(10, STEPS, 10))) == bool(every)


@pytest.mark.parametrize("change", ["history", "seconds", "step", "optimizer", "signs"])
def test_a_forged_checkpoint_is_refused(stopped: Path, change: str) -> None:
    """Its checksum is right and its content is not."""
    folder = stopped / "checkpoints"
    found, _ = checkpoint.newest(folder)
    assert found is not None
    tensors, facts = dict(found.tensors), {k: v for k, v in found.facts.items() if k != "version"}
    if change == "optimizer":
        tensors["optimizer.999.exp_avg"] = torch.ones(1)
    elif change == "signs":
        tensors = {k: v for k, v in tensors.items() if not k.startswith("signs.")}
    else:
        facts[change] = {"history": [{"step": "x"}], "seconds": "soon", "step": 3}[change]
    for path in folder.iterdir():
        path.unlink()
    checkpoint.save(folder, checkpoint.Checkpoint(found.step, tensors, facts))
    text = io.StringIO()
    place = Console(file=text, width=200)
    reason = {
        "history": ("it is no checkpoint", "history"),
        "seconds": ("it is no checkpoint", "seconds"),
        "step": ("its name tells another step",),
    }
    if change in reason:
        train(quick(), stopped, Options(resume=True), place)
        said = text.getvalue().replace("\n", " ").partition("is damaged (")[2]
        assert all(words in said for words in reason[change])
    else:
        with pytest.raises(UserError, match="does not fit"):
            train(quick(), stopped, Options(resume=True), place)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    here = Setting(torch.device("cpu"))
    digits = datasets.load("digits")
    with reproducible(0):
        tensors, facts = Trainer(quick(), digits, here).state()
        with pytest.raises(UserError, match="does not fit"):
            Trainer(quick(width=16), digits, here).restore(0, tensors, facts)


def test_a_checkpoint_of_another_version_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "VERSION", 99)
    checkpoint.save(tmp_path, checkpoint.Checkpoint(3, {"x": torch.ones(2)}, {}))
    monkeypatch.undo()
    found, notes = checkpoint.newest(tmp_path)
    assert found is None
    assert "version 99" in notes[0]


def test_only_complete_names_count(tmp_path: Path) -> None:
    (tmp_path / "step-000000001.safetensors").write_bytes(b"x")
    (tmp_path / ".step-000000002-tmp").write_bytes(b"x")
    assert checkpoint.newest(tmp_path) == (None, [])
    assert checkpoint.newest(RunFolder(tmp_path / "none").checkpoints) == (None, [])
