"""The training loop: a network, its masks, its optimizer, and a state that can be put back.

The loop is short on purpose: before a step :class:`~frostbit.pipeline.method.own_loop.StoMPP`
sets the masks, after it frozen latents are held. A step depends on the state and on (recipe, seed,
step) alone, so a run that stops and goes on from its :meth:`Trainer.state` ends bit for bit the
same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import msgspec
import torch
from torch import Tensor, nn

from frostbit.pipeline.data import datasets
from frostbit.pipeline.data.datasets import Dataset
from frostbit.pipeline.errors import Diverged, UserError
from frostbit.pipeline.method.own_loop import StoMPP
from frostbit.pipeline.method.stompp import FEWEST_STEPS_PER_LAYER, METHODS
from frostbit.pipeline.network.binary import BinaryActivation, maskable
from frostbit.pipeline.network.models import build_from
from frostbit.pipeline.run.metrics import Metrics
from frostbit.pipeline.run.recipe import Recipe, to_toml
from frostbit.pipeline.training.batches import Batches, Changes
from frostbit.pipeline.training.divergence import DIVERGED, divergence, worst_layer
from frostbit.pipeline.training.loss import Teacher, loss_of
from frostbit.pipeline.training.optimizers import lr_factor, make_optimizer
from frostbit.pipeline.training.parallel import Ranks, distributed, synchronise

INTERVALS = 300
COMPILED_VARIANTS = 256
"""Each layer is compiled anew for every phase (continuous, mixed, binary) of the network."""


@dataclass(frozen=True)
class Setting:
    """How a recipe is run here; it does not change what is learnt (but for rounding).

    Attributes:
        device: where to train.
        ranks: this process among those that train together.
        teacher: whose answers are matched too, if there is one.
        compile_backend: of torch.compile (``inductor``); None runs as written.
        workers: processes that decode images on disk.
    """

    device: torch.device
    ranks: Ranks = field(default_factory=Ranks)
    teacher: Teacher | None = None
    compile_backend: str | None = None
    workers: int = 0


class Trainer:
    """A training run in progress.

    Args:
        recipe: settings.
        dataset: data; the training split is used here.
        setting: device, ranks and the like.

    Attributes:
        step, steps: done, and of the whole run; model: the network, not wrapped.
        history: one entry per interval.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset, setting: Setting) -> None:
        self.recipe, self.setting, self.device = recipe, setting, setting.device
        split = dataset.train.first(recipe.train_images)
        self.batches = Batches(
            split,
            recipe.batch,
            recipe.seed,
            Changes(recipe.shift, recipe.flip, recipe.crop, recipe.colour),
            setting.ranks,
            setting.workers,
        )
        self.step, self.steps = 0, recipe.epochs * self.batches.steps_per_epoch
        model = build_from(recipe, datasets.as_json(dataset)).to(self.device)
        if recipe.sync_batchnorm and setting.ranks.count > 1:
            synchronise(model)
        self.model: nn.Module = model
        model.to(memory_format=torch.channels_last)
        self.freezer = StoMPP(
            model,
            self.steps,
            method=recipe.method,
            ramp=recipe.ramp,
            refresh=recipe.refresh,
            seed=recipe.seed,
            warmup=recipe.warmup,
            settle=recipe.settle,
            overlap=recipe.overlap,
            activations=recipe.binarize == "both",
        )
        self.schedule = self.freezer.schedule
        self.optimizer, self.rates = make_optimizer(model, recipe)
        if setting.compile_backend is not None:
            torch._dynamo.config.recompile_limit = COMPILED_VARIANTS
            model.compile(backend=setting.compile_backend)
        method = METHODS[recipe.method]
        self.network = distributed(model, setting.ranks, self.device, unused=not method.ste)
        self.history: list[Metrics] = []
        self._losses: list[Tensor] = []
        self._correct: list[Tensor] = []
        self._signs = self._latent_signs()
        # elsewhere a look at each loss would wait for the device: once an interval has to do
        self._watched = self.device.type == "cpu" and setting.ranks.count == 1

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

    def run(self, after_step: Callable[[Trainer], None] = lambda trainer: None) -> None:
        """Train from ``self.step`` to the end; the freezer ends at step ``steps`` (all ones).

        Args:
            after_step: called after every step, for progress and checkpoints.

        Raises:
            UserError: if the loss becomes NaN or absurdly large; names the step and the layer.
        """
        interval = max(1, self.steps // INTERVALS)
        epoch, first = divmod(self.step, self.batches.steps_per_epoch)
        while self.step < self.steps:
            self.network.train()
            for images, labels in self.batches.epoch(epoch, first):
                shares = self.freezer.advance(self.step)
                loss, right = self._step(self.step, images, labels)
                self._losses.append(loss)
                self._correct.append(right)
                self.step += 1
                if len(self._losses) == interval or self.step == self.steps:
                    self._record(shares)
                after_step(self)
            epoch, first = epoch + 1, 0
        self.freezer.advance(self.steps)

    def _step(
        self, step: int, images: datasets.Images, labels: datasets.Labels
    ) -> tuple[Tensor, Tensor]:
        """One optimizer step; returns loss and number of right answers, still on the device."""
        # Dropout and the like: a function of (seed, step, rank), so that no generator is saved.
        ranks = self.setting.ranks
        torch.manual_seed((self.recipe.seed * self.steps + step) * ranks.count + ranks.rank)
        factor = lr_factor(self.recipe, step, self.steps)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._parts(images, labels)
        loss, right = torch.zeros((), device=self.device), torch.zeros((), device=self.device)
        for index, (pixels, target) in enumerate(parts):
            with ExitStack() as stack:
                if index + 1 < len(parts) and ranks.count > 1:
                    stack.enter_context(self.network.no_sync())  # type: ignore[operator]
                logits, part_loss = self._forward(pixels, target)
                value = part_loss.detach()
                if self._watched and not float(value) < DIVERGED:
                    raise self._diverged(step, float(value), pixels)
                torch.autograd.backward(part_loss * (len(target) / len(labels)))
            loss += part_loss.detach() * (len(target) / len(labels))
            right += (logits.detach().argmax(dim=1) == target).sum()
        if self.recipe.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
        with self.freezer.holding():
            self.optimizer.step()
        return loss, right

    def _parts(
        self, images: datasets.Images, labels: datasets.Labels
    ) -> list[tuple[Tensor, Tensor]]:
        """The batch on the device, cut into ``accumulate`` parts."""
        pixels = as_pixels(images, self.device)
        target = torch.from_numpy(labels).to(self.device, non_blocking=True)
        count = min(self.recipe.accumulate, len(labels))
        return list(zip(pixels.chunk(count), target.chunk(count), strict=True))

    def _forward(self, pixels: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and loss of one part; autocast leaves masters, masks and the loss in float32."""
        recipe, teacher = self.recipe, self.setting.teacher
        bf16 = recipe.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            logits: Tensor = self.network(pixels)
            wanted = None if teacher is None else teacher.answers(pixels)
        logits = logits.float()
        return logits, loss_of(recipe, logits, target, wanted)

    def _record(self, shares: list[float]) -> None:
        """Close an interval: check the losses, append to the history."""
        ranks = self.setting.ranks
        values = ranks.mean(torch.stack(self._losses)).cpu()
        bad = torch.nonzero(~(values < DIVERGED))  # NaN compares false
        if len(bad):
            at = self.step - len(values) + int(bad[0])
            raise self._diverged(at, float(values[bad[0]]), None)
        right = float(ranks.mean(torch.stack(self._correct).sum())) * ranks.count
        signs = self._latent_signs()
        self.history.append(
            Metrics(
                step=self.step,
                epoch=round(self.step / self.batches.steps_per_epoch, 4),
                loss=round(float(values.mean()), 6),
                accuracy=round(100 * right / (len(values) * self.batches.batch), 3),
                lr=self.optimizer.param_groups[0]["lr"],
                frozen=tuple(round(share, 6) for share in shares),
                flips=self._flips(signs),
            )
        )
        self._losses, self._correct, self._signs = [], [], signs

    def _diverged(self, step: int, loss: float, pixels: Tensor | None) -> Diverged:
        where = "" if pixels is None else worst_layer(self.model, pixels)
        early = step < self.batches.steps_per_epoch
        return divergence(loss, step, self.schedule.in_words(step), where, early)

    def _latent_signs(self) -> dict[str, Tensor]:
        """Signs of all binary latents as bool tensors, by module name."""
        return {name: layer.weight.detach() >= 0 for name, layer in self._weighted()}

    def _weighted(self) -> Iterator[tuple[str, Any]]:
        pairs = maskable(self.model)
        return ((name, m) for name, m in pairs if not isinstance(m, BinaryActivation))

    def _flips(self, signs: dict[str, Tensor]) -> tuple[float, ...]:
        """Share of changed signs of every layer since the last interval."""
        changed, entries = [0] * self.schedule.layers, [0] * self.schedule.layers
        for name, module in self._weighted():
            changed[module.layer] += int((signs[name] != self._signs[name]).sum())
            entries[module.layer] += signs[name].numel()
        return tuple(round(c / max(n, 1), 6) for c, n in zip(changed, entries, strict=True))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Tensors and JSON facts from which :meth:`restore` goes on, bit for bit."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": v for key, v in state.items() if v is not None}
        tensors |= {f"signs.{name}": value for name, value in self._signs.items()}
        if self._losses:
            tensors["interval.losses"] = torch.stack(self._losses)
            tensors["interval.correct"] = torch.stack(self._correct)
        return tensors, {"history": msgspec.to_builtins(self.history), **self.origin()}

    def origin(self) -> dict[str, Any]:
        """What must be the same when a run goes on: recipe and teacher."""
        teacher = self.setting.teacher
        return {
            "recipe": to_toml(self.recipe),
            "teacher": None if teacher is None else teacher.facts,
        }

    def restore(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Take the state that :meth:`state` gave after ``step`` steps.

        Raises:
            UserError: if it does not fit this network.
        """
        groups = _by_prefix({name: value.to(self.device) for name, value in tensors.items()})
        try:
            self.model.load_state_dict(groups["model"])
            self._signs = {name: groups["signs"][name] for name in self._signs}
        except (KeyError, RuntimeError) as error:
            raise UserError("the checkpoint does not fit the recipe's network") from error
        self._restore_optimizer(groups.get("optimizer", {}))
        interval = groups.get("interval", {})
        self._losses = list(interval.get("losses", ()))
        self._correct = list(interval.get("correct", ()))
        self.step = step
        self.history = msgspec.convert(facts["history"], list[Metrics])

    def _restore_optimizer(self, tensors: dict[str, Tensor]) -> None:
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        whole = self.optimizer.state_dict()
        whole["state"] = {}
        for name, value in tensors.items():
            index, _, key = name.partition(".")
            like = parameters[int(index)]
            if value.shape == like.shape:  # as the optimizer laid it out itself
                value = torch.empty_like(like).copy_(value)
            else:  # Adam counts its steps on the CPU
                value = value.cpu()
            whole["state"].setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict(whole)


def _by_prefix(tensors: dict[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    groups: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        prefix, _, rest = name.partition(".")
        groups.setdefault(prefix, {})[rest] = value
    return groups


def as_pixels(images: datasets.Images, device: torch.device) -> Tensor:
    """uint8 ``[N, H, W, C]`` -> float32 pixels ``[N, C, H, W]`` (0..255) on ``device``."""
    raw = torch.from_numpy(images)
    raw = raw.pin_memory() if device.type == "cuda" else raw  # copied while the GPU computes
    return raw.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
