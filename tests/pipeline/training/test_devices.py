"""How a recipe is carried out: precision, compilation, teachers, threads, accumulation."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run import recipe
from frostbit.pipeline.run.folder import read_run
from frostbit.pipeline.run.recipe import Recipe
from frostbit.pipeline.training.loop import Setting, Trainer
from frostbit.pipeline.training.loss import Teacher
from frostbit.pipeline.training.reproducibility import (
    THREADS_VARIABLE,
    choose_device,
    reproducible,
    thread_count,
)
from frostbit.pipeline.training.train import Options, train

CPU = torch.device("cpu")
QUICK: dict[str, Any] = {"epochs": 3, "width": 8, "model": "bireal-2"}


def quick(**changes: Any) -> Recipe:
    return recipe.load("digits", {**QUICK, **changes})


def trainer(**changes: Any) -> Trainer:
    torch.manual_seed(0)
    return Trainer(quick(**changes), datasets.load("digits"), Setting(CPU))


@pytest.mark.parametrize("method", ["stompp", "stompp-ste"])
def test_bf16_keeps_float32_masters_and_ends_binary(tmp_path: Path, method: str) -> None:
    made = trainer(precision="bf16", method=method)
    inside: list[torch.dtype] = []
    made.model.get_submodule("body.0.conv").register_forward_hook(
        lambda module, inputs, output: inside.append(output.dtype)
    )
    made.run()
    assert set(inside) == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in made.model.parameters())
    states = made.optimizer.state_dict()["state"].values()
    assert all(s["exp_avg"].dtype == torch.float32 for s in states)
    result = train(quick(precision="bf16", method=method, epochs=8), tmp_path / "run")
    assert result is not None
    assert result.unfrozen == {}
    assert result.test_after is not None
    assert result.test_after > 40


def test_compiled_training_gives_the_same_losses() -> None:
    found = []
    for backend in (None, "eager"):
        with reproducible(0):
            setting = Setting(CPU, compile_backend=backend)
            made = Trainer(quick(epochs=1), datasets.load("digits"), setting)
            made.run()
            found.append([row.loss for row in made.history])
    assert found[0] == found[1]


def test_compiling_on_the_cpu_needs_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(UserError, match=r"--compile.*g\+\+"):
        train(quick(), tmp_path / "run", Options(device="cpu", compile_backend="inductor"))


def test_a_batch_in_parts_has_the_gradient_of_the_whole() -> None:
    gradients = []
    for parts in (1, 3):
        made = trainer(accumulate=parts)
        made.network.eval()  # BatchNorm would see parts
        images, labels = next(made.batches.epoch(0))
        made._step(0, images, labels)
        gradients.append([p.grad.clone() for p in made.model.parameters() if p.grad is not None])
    for whole, summed in zip(*gradients, strict=True):
        assert torch.allclose(whole, summed, atol=1e-6, rtol=1e-4)


def test_clipping_limits_the_norm() -> None:
    made = trainer(clip_norm=0.01)
    images, labels = next(made.batches.epoch(0))
    made._step(0, images, labels)
    norms = [p.grad.norm() for p in made.model.parameters() if p.grad is not None]
    assert torch.stack(norms).norm() == pytest.approx(0.01, rel=1e-3)


def test_label_smoothing_changes_the_loss_only_as_it_says() -> None:
    plain, smooth = trainer(), trainer(label_smoothing=0.2)
    images, labels = next(plain.batches.epoch(0))
    logits, loss = smooth._forward(*smooth._parts(images, labels)[0])
    logs = torch.log_softmax(logits.detach(), dim=1)
    picked = logs[torch.arange(len(labels)), torch.from_numpy(labels)]
    expected = -(0.8 * picked + 0.2 * logs.mean(dim=1)).mean()
    assert loss.detach() == pytest.approx(float(expected), rel=1e-5)


# ---------------------------------------------------------------- teachers


def test_a_teacher_is_matched(tmp_path: Path, trained: Path) -> None:
    result = train(
        quick(distil=1.0, temperature=2.0, epochs=12),
        tmp_path / "run",
        Options(device="cpu", teacher=trained),
    )
    assert result is not None
    assert result.test_before > 25, "nothing but the teacher told it the classes"
    assert read_run(tmp_path / "run").facts["teacher"]["recipe"] == "digits"


def test_full_weight_on_the_teacher_ignores_the_labels(trained: Path) -> None:
    from frostbit.pipeline.lowering.pack import network

    teacher = network(read_run(trained)).eval()
    losses = []
    for shift in (0, 1):
        torch.manual_seed(0)
        setting = Setting(CPU, teacher=Teacher(teacher, {}))
        made = Trainer(quick(distil=1.0), datasets.load("digits"), setting)
        images, labels = next(made.batches.epoch(0))
        _, loss = made._forward(*made._parts(images, (labels + shift) % 10)[0])
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_a_teacher_of_other_data_is_refused(tmp_path: Path, trained: Path) -> None:
    root = tmp_path / "set"
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for index in range(10):
            from PIL import Image

            noise = np.full((8, 8, 3), index, np.uint8)
            Image.fromarray(noise).save(root / name / f"{index}.png")
    with pytest.raises(UserError, match=r"teacher .* has another image_shape"):
        train(
            quick(dataset="folder", image_size=8, batch=4),
            tmp_path / "run",
            Options(device="cpu", teacher=trained, data_dir=root),
        )


# ---------------------------------------------------------------- threads and devices


def test_threads_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(THREADS_VARIABLE, "3")
    assert thread_count() == 3
    for wrong in ("0", "many", "-1"):
        monkeypatch.setenv(THREADS_VARIABLE, wrong)
        with pytest.raises(UserError, match=THREADS_VARIABLE):
            thread_count()


def test_apple_devices_come_after_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="no MPS device"):
        choose_device("mps")
