"""What training minimises: cross-entropy, label smoothing, and a teacher's answers."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from frostbit.pipeline.run.recipe import Recipe


@dataclass(frozen=True)
class Teacher:
    """A network to distil from.

    Attributes:
        module: in evaluation mode, on the device of the training.
        facts: what run.json and checkpoints say of it.
    """

    module: nn.Module
    facts: dict[str, str]

    @torch.no_grad()
    def answers(self, pixels: Tensor) -> Tensor:
        """Logits ``[N, classes]``, float32, without gradient."""
        logits: Tensor = self.module(pixels)
        return logits.float()


def loss_of(recipe: Recipe, logits: Tensor, target: Tensor, wanted: Tensor | None) -> Tensor:
    """The loss of one batch.

    With a teacher: ``(1 - distil) * cross-entropy + distil * T**2 * cross-entropy(teacher)``,
    both sides softened by the temperature T (Hinton et al., arXiv 1503.02531, section 2).

    Args:
        recipe: smoothing, weight of the teacher, temperature.
        logits: float32 ``[N, classes]``.
        target: int64 ``[N]``.
        wanted: the teacher's logits, None without one.
    """
    loss = F.cross_entropy(logits, target, label_smoothing=recipe.label_smoothing)
    if wanted is None:
        return loss
    soft = torch.softmax(wanted / recipe.temperature, dim=1)
    matching = F.cross_entropy(logits / recipe.temperature, soft) * recipe.temperature**2
    return (1 - recipe.distil) * loss + recipe.distil * matching
