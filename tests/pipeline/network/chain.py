"""A user's network through the whole chain, each step compared with the one before.

1. The converted network, nothing frozen, computes what the user's does with clip(x, -1, 1) as
   activation: no argument was dropped.
2. Its settled form before rounding computes what the frozen network does.
3. The Program computes what the settled network does: all sign bits, and the logits; the engine
   what the reference does.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from frostbit.export.errors import ParityError
from frostbit.export.parity import compare
from frostbit.export.runtimes import EngineRuntime
from frostbit.kernels.ir.verify import verify
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.fold_batchnorm import structure
from frostbit.pipeline.lowering.settle import reestimate_batchnorm, settle
from frostbit.pipeline.lowering.settled_layers import SettledConv, SettledDense
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.network.binary import BinaryActivation, binarize, maskable
from frostbit.pipeline.run.folder import to_bytes
from tests.pipeline.network.user_nets import Drawn

STD = 0.25
IMAGES = 8
AS_NORMALISED = 1e-6
"""Share of the largest logit: the stem holds mean and std in float32, its user in float64 (at most
3e-8 was seen over 300 networks)."""
FOLDED = 1e-9
"""Share of the largest logit: both compute in float64 with the same numbers, in another order (at
most 2e-15 was seen over 300 networks). A value nearer to 0 than this may get either sign;
BatchNorm makes 0 exactly of a channel that is the same everywhere."""


@dataclass(frozen=True)
class Chained:
    """What came of one network.

    Attributes:
        unproved: why nothing was compared at the end (sums that cannot be exact, or a network that
            answers every image alike), or "".
        folded: images on which the folded network was compared.
        signs: sign bits compared.
        head_exact: whether logits had to be equal.
    """

    unproved: str
    folded: int
    signs: int
    head_exact: bool


def random_statistics(model: nn.Module) -> None:
    """BatchNorm as after training, with scales of both signs; weights that clip."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.2, 2.0)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias, std=0.5)


def mean_of(channels: int) -> tuple[float, ...]:
    """Whole pixels, so that padding is the same before and after normalising."""
    return tuple((100 + 20 * c) / 255 for c in range(channels))


@torch.no_grad()
def follow(net: Drawn, image: tuple[int, int, int], seed: int = 0) -> Chained:
    """Convert, settle and pack ``net``; AssertionError where two steps differ."""
    random_statistics(net)
    for parameter in net.parameters():
        parameter.clamp_(-1, 1)
    images = np.random.default_rng(seed).integers(0, 256, (IMAGES, *image), dtype=np.uint8)
    pixels = torch.from_numpy(images).float()
    mean, std = mean_of(image[0]), (STD,) * image[0]
    model = binarize(net, pixels[:1], mean=mean, std=std)
    to_bytes(model.state_dict())  # as a checkpoint: every tensor once
    _same_before_freezing(net, model, pixels, mean)
    for _, module in maskable(model):
        module.freeze(1.0)
    reestimate_batchnorm(model, pixels)
    folded = _same_when_folded(model, pixels)
    try:
        settled = settle(model, pixels)
    except UserError as error:
        if str(error).startswith("numerical"):
            return Chained(str(error), folded, 0, False)
        raise
    program = lower(settled.module, image)
    verify(program)
    runtimes = [TorchRuntime(settled.module, image), EngineRuntime(program)]
    try:
        report = compare(program, runtimes, images.transpose(0, 2, 3, 1).copy())
    except ParityError as error:
        if "the same logits" in str(error):
            return Chained(str(error), folded, 0, False)
        raise
    assert report.promised, report
    assert report.passed, report.comparisons
    signs = report.comparisons[0].sign_bits_compared
    return Chained("", folded, signs, settled.report["head_exact"])


def _same_before_freezing(
    net: Drawn, model: nn.Module, pixels: torch.Tensor, mean: tuple[float, ...]
) -> None:
    plain = copy.deepcopy(model).eval().double()
    for name, _ in maskable(plain):
        if name.startswith("sign_"):  # put before layers that would read real maps
            plain.add_submodule(name, nn.Identity())
    user = copy.deepcopy(net).eval().double()
    user.clips = True
    normalised = (pixels.double() / 255 - torch.tensor(mean).double().view(1, -1, 1, 1)) / STD
    wanted, got = user(normalised), plain(pixels.double())
    assert _furthest(got, wanted) < AS_NORMALISED


def _same_when_folded(model: nn.Module, pixels: torch.Tensor) -> int:
    """Compares the images on which no value is 0 but for rounding before a sign; how many."""
    folded = unrounded(structure(model, tuple(pixels.shape[1:])).double())
    plain = copy.deepcopy(model).double().eval()
    clear = torch.ones(len(pixels), dtype=torch.bool)

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        clear.logical_and_((inputs[0].abs() > FOLDED).flatten(1).all(dim=1))

    for module in plain.modules():
        if isinstance(module, BinaryActivation):
            module.register_forward_hook(note)
    wanted, got = plain(pixels.double()), folded(pixels.double())
    if bool(clear.any()):
        assert _furthest(got[clear], wanted[clear]) < FOLDED
    return int(clear.sum())


def unrounded(folded: nn.Module) -> nn.Module:
    """``folded`` with its numbers in float64, which it holds rounded to float32."""
    for module in folded.modules():
        if isinstance(module, (SettledConv, SettledDense)):
            module.weight, module.add = module.raw
        elif hasattr(module, "mul"):
            module.mul, module.add = module.raw
    return folded


def _furthest(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """Largest difference, relative to the largest logit."""
    return float((got - wanted).abs().max() / wanted.abs().max().clamp_min(1e-3))
