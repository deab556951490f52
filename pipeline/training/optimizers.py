"""Optimizers and learning-rate schedules of a recipe."""

from __future__ import annotations

import math

import torch
from torch import nn

from frostbit.pipeline.network.binary import BinaryActivation, maskable
from frostbit.pipeline.run.recipe import Recipe

LOWEST = 0.005
"""A falling learning rate ends at this share of its start."""


def make_optimizer(
    model: nn.Module, recipe: Recipe
) -> tuple[torch.optim.Optimizer, tuple[float, ...]]:
    """The recipe's optimizer over two groups, binary latents and the rest, and their rates."""
    latents = [m.weight for _, m in maskable(model) if not isinstance(m, BinaryActivation)]
    ids = {id(weight) for weight in latents}
    others = [p for p in model.parameters() if id(p) not in ids]
    rates = (recipe.lr_binary, recipe.lr_other)
    groups = [
        {"params": params, "lr": rate}
        for params, rate in zip((latents, others), rates, strict=True)
    ]
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, foreach=True), rates
    return torch.optim.SGD(groups, momentum=0.9, foreach=True), rates


def lr_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Factor in (0, 1] on the learning rates at ``step`` of ``steps``."""
    done = step / steps
    if recipe.lr_schedule == "cosine":
        factor = 0.5 + 0.5 * math.cos(math.pi * done)
    elif recipe.lr_schedule == "flat-cosine" and done > recipe.lr_flat:
        fall = (done - recipe.lr_flat) / (1 - recipe.lr_flat)
        factor = 0.5 + 0.5 * math.cos(math.pi * fall)
    else:
        factor = 1.0
    rise = min(1.0, (step + 1) / recipe.lr_warmup_steps) if recipe.lr_warmup_steps else 1.0
    return max(factor, LOWEST) * rise
