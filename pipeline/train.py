"""Training: recipe and data in, run folder out.

The loop is short on purpose: before a step the :class:`~pipeline.freezer.Freezer` sets the masks,
after it frozen latents are held. What follows, in :func:`_finish`: masks all ones, settling
(:mod:`pipeline.settle`), one look at the test split, files.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from pipeline import data, freeze_plot, run_folder
from pipeline.batches import Batches
from pipeline.binary import maskable, unfrozen_layers
from pipeline.data import Dataset, Split
from pipeline.errors import UserError
from pipeline.freezer import Freezer
from pipeline.models import build_from
from pipeline.optim import lr_factor, make_optimizer
from pipeline.progress import Progress
from pipeline.recipe import Recipe, to_toml
from pipeline.run_folder import RunFolder
from pipeline.session import choose_device, conditions, reproducible
from pipeline.stompp import FEWEST_STEPS_PER_LAYER, METHODS, Schedule

SETTLE_IMAGES = 5000
INTERVALS = 300
DIVERGED = 1e4
"""A cross-entropy that no training in progress reaches."""


@dataclass(frozen=True)
class Metrics:
    """Averages over one interval of training, a line of metrics.jsonl.

    Attributes:
        step: first step after the interval; epoch: fractional, at that step.
        loss: cross-entropy; accuracy: percent, on the (augmented) training batches.
        lr: of the binary weights.
        frozen: share of every layer, in [0, 1].
    """

    step: int
    epoch: float
    loss: float
    accuracy: float
    lr: float
    frozen: tuple[float, ...]


@dataclass(frozen=True)
class RunResult:
    """What :func:`train` did.

    Attributes:
        folder: the run folder.
        unfrozen: entries not frozen by module; empty when the network is exactly binary.
        validation_accuracy: percent, of the settled network (else of the network as it is).
        test_before: percent, BatchNorm re-estimated, before folding and rounding.
        test_after: percent, of the settled network; None if it is not binary.
        seconds: of the training loop.
    """

    folder: RunFolder
    unfrozen: dict[str, int]
    validation_accuracy: float
    test_before: float
    test_after: float | None
    seconds: float


class Trainer:
    """A network, its masks and its optimizer.

    Args:
        recipe: settings.
        dataset: data; the training split is used here.
        device: where to train.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        split = dataset.train.first(recipe.train_images)
        self.batches = Batches(split, recipe.batch, recipe.seed, recipe.shift)
        self.steps = recipe.epochs * self.batches.steps_per_epoch
        model = build_from(recipe, data.as_json(dataset))
        self.model: nn.Module = model.to(device=device)
        self.model.to(memory_format=torch.channels_last)
        method = METHODS[recipe.method]
        self.schedule = Schedule(
            method.order,
            recipe.ramp,
            1 + max(module.layer for _, module in maskable(model)),
            self.steps,
            recipe.warmup,
            recipe.settle,
            recipe.overlap,
        )
        both = recipe.binarize == "both"
        self.freezer = Freezer(model, method, self.schedule, recipe.seed, recipe.refresh, both)
        self.optimizer, self.rates = make_optimizer(model, recipe)
        self.history: list[Metrics] = []

    def warning(self) -> str | None:
        """A line about too few steps per layer, with the number of epochs that would do."""
        if self.schedule.order not in ("forward", "reverse"):
            return None
        have = self.schedule.steps_per_layer
        if have >= FEWEST_STEPS_PER_LAYER:
            return None
        epochs = -int(-self.recipe.epochs * FEWEST_STEPS_PER_LAYER // have)
        return (
            f"{have:.0f} steps for each layer to freeze are too few (at least "
            f"{FEWEST_STEPS_PER_LAYER}); train for {epochs} epochs or with a smaller batch"
        )

    def run(self, progress: Progress) -> None:
        """Train for all epochs; the freezer ends at step ``steps`` (all masks ones).

        Raises:
            UserError: if the loss becomes NaN or absurdly large; names the step and the layer.
        """
        interval = max(1, self.steps // INTERVALS)
        losses: list[Tensor] = []
        correct: list[Tensor] = []
        step = 0
        self.model.train()
        for epoch in range(self.recipe.epochs):
            for images, labels in self.batches.epoch(epoch):
                shares = self.freezer.advance(step)
                loss, right = self._step(step, images, labels)
                losses.append(loss)
                correct.append(right)
                step += 1
                if len(losses) == interval or step == self.steps:
                    self._record(step, losses, correct, shares)
                    progress.update(self.history[-1])
                    losses, correct = [], []
        self.freezer.advance(self.steps)

    def _step(self, step: int, images: data.Images, labels: data.Labels) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns loss and number of right answers, still on the device."""
        factor = lr_factor(self.recipe, step, self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        target = torch.from_numpy(labels).to(self.device)
        logits = self.model(as_pixels(images, self.device))
        loss = F.cross_entropy(logits, target)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        with self.freezer.holding():
            self.optimizer.step()
        return loss.detach(), (logits.detach().argmax(dim=1) == target).sum()

    def _record(
        self, step: int, losses: list[Tensor], correct: list[Tensor], shares: list[float]
    ) -> None:
        values = torch.stack(losses).cpu()
        bad = torch.nonzero(~(values < DIVERGED))  # NaN compares false
        if len(bad):
            at = step - len(losses) + int(bad[0])
            raise UserError(
                f"training diverged: the loss is {values[bad[0]].item()} at step {at} "
                f"({self.schedule.in_words(at)}); use smaller learning rates"
            )
        seen = len(correct) * self.batches.batch
        self.history.append(
            Metrics(
                step=step,
                epoch=round(step / self.batches.steps_per_epoch, 4),
                loss=round(float(values.mean()), 6),
                accuracy=round(100 * int(torch.stack(correct).sum()) / seen, 3),
                lr=self.optimizer.param_groups[0]["lr"],
                frozen=tuple(round(share, 6) for share in shares),
            )
        )


def as_pixels(images: data.Images, device: torch.device) -> Tensor:
    """uint8 ``[N, H, W, C]`` -> float32 pixels ``[N, C, H, W]`` (0..255) on ``device``."""
    return torch.from_numpy(images).to(device).permute(0, 3, 1, 2).float()


@torch.no_grad()
def accuracy(model: nn.Module, split: Split, device: torch.device, batch: int = 500) -> float:
    """Percent of ``split`` that ``model``, set to evaluation mode, classifies right."""
    model.eval()
    right = 0
    for start in range(0, len(split), batch):
        part = slice(start, start + batch)
        answers = model(as_pixels(split.images[part], device)).argmax(dim=1).cpu()
        right += int((answers == torch.from_numpy(split.labels[part])).sum())
    return 100 * right / len(split)


def train(
    recipe: Recipe,
    out: Path,
    *,
    device: str = "auto",
    force: bool = False,
    data_dir: Path | None = None,
    console: Console | None = None,
) -> RunResult:
    """Train ``recipe`` and write the run folder ``out``.

    Args:
        recipe: settings.
        out: run folder; made if missing.
        device: ``auto``, ``cpu`` or ``cuda``.
        force: overwrite a folder that is not empty.
        data_dir: folder of the data set's files.
        console: where the progress bar and warnings go; None for silence.

    Raises:
        UserError: anything a person can mend: data, folder, device, divergence.
    """
    target = choose_device(device)
    dataset = data.load(recipe.dataset, data_dir, download=True)
    folder = run_folder.prepare(Path(out), force)
    with reproducible(recipe.seed):
        trainer = Trainer(recipe, dataset, target)
        warning = trainer.warning()
        if warning and console is not None:
            console.print(f"warning: {warning}", style="yellow")
        start = time.perf_counter()
        with Progress(console, recipe, trainer.steps) as progress:
            trainer.run(progress)
        seconds = time.perf_counter() - start
        return _finish(trainer, dataset, folder, seconds)


def _finish(trainer: Trainer, dataset: Dataset, folder: RunFolder, seconds: float) -> RunResult:
    """Settle, evaluate on the test split (the only time), write everything."""
    from pipeline.settle import settle

    cpu = torch.device("cpu")
    model = trainer.model.to(cpu).to(memory_format=torch.contiguous_format)
    unfrozen = unfrozen_layers(model, activations=trainer.recipe.binarize == "both")
    settling: dict[str, Any] = {}
    final = model
    if not unfrozen:
        settled = settle(model, as_pixels(dataset.train.images[:SETTLE_IMAGES], cpu).contiguous())
        final = settled.module
        settling = {"settled_hash": settled.hash, "settling": settled.report}
        run_folder.write_tensors(folder.settled, settled.module.state_dict())
    before = accuracy(model, dataset.test, cpu)
    after = None if unfrozen else accuracy(final, dataset.test, cpu)
    result = RunResult(
        folder, unfrozen, accuracy(final, dataset.validation, cpu), before, after, seconds
    )
    run_folder.write_tensors(folder.model, model.state_dict())
    run_folder.write_bytes(folder.recipe, to_toml(trainer.recipe).encode())
    lines = "".join(json.dumps(asdict(row)) + "\n" for row in trainer.history)
    run_folder.write_bytes(folder.metrics, lines.encode())
    run_folder.write_bytes(folder.picture, freeze_plot.draw(trainer.history, trainer.recipe))
    run_folder.write_run(folder, _facts(trainer, dataset, result) | settling)
    return result


def _facts(trainer: Trainer, dataset: Dataset, result: RunResult) -> dict[str, Any]:
    """Contents of run.json but for settling and checksums."""
    return {
        "recipe": trainer.recipe.name,
        "seed": trainer.recipe.seed,
        "dataset": data.as_json(dataset),
        "fully_frozen": not result.unfrozen,
        "unfrozen": result.unfrozen,
        "accuracy": {
            "unit": "percent",
            "validation": round(result.validation_accuracy, 4),
            "test_before_settling": round(result.test_before, 4),
            "test_after_settling": None
            if result.test_after is None
            else round(result.test_after, 4),
        },
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "layers": trainer.schedule.layers,
        "steps": trainer.steps,
        "steps_per_layer": round(trainer.schedule.steps_per_layer, 2),
        "seconds": round(result.seconds, 2),
        **conditions(trainer.device),
    }
