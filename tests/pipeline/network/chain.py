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
from frostbit.kernels.ir.exact import grids
from frostbit.kernels.ir.verify import verify
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.fold_batchnorm import structure
from frostbit.pipeline.lowering.settle import reestimate_batchnorm, settle
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.network.binary import BinaryActivation, binarize, maskable
from tests.pipeline.network.user_nets import Drawn

STD = 0.25
IMAGES = 8


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
    _same_before_freezing(net, model, pixels, mean)
    for _, module in maskable(model):
        module.freeze(1.0)
    reestimate_batchnorm(model, pixels)
    folded = _same_when_folded(model, pixels)
    try:
        settled = settle(model, pixels)
    except UserError as error:
        if "too large for exact" in str(error) or "rounds to 0" in str(error):
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
    assert report.passed or not settled.report["head_exact"], report.comparisons
    # sums of the head cancel by up to this much: 4 units in the last place of their terms
    slack = 2.0**-22 * float(grids(program)[program.ops[-1].name].bound.max())
    for each in report.comparisons:
        assert each.sign_bits_differing == 0, each
        assert each.logits_max_rel_diff <= 1e-5 or each.logits_max_abs_diff <= slack, each
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
    torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def _same_when_folded(model: nn.Module, pixels: torch.Tensor) -> int:
    """Compares the images on which no value is 0 but for rounding before a sign; how many."""
    folded = structure(model, tuple(pixels.shape[1:])).double()
    plain = copy.deepcopy(model).double().eval()
    clear = torch.ones(len(pixels), dtype=torch.bool)

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        clear.logical_and_((inputs[0].abs() > 1e-4).flatten(1).all(dim=1))

    for module in plain.modules():
        if isinstance(module, BinaryActivation):
            module.register_forward_hook(note)
    torch.set_default_dtype(torch.float64)  # signs are made, not converted
    try:
        wanted, got = plain(pixels.double()), folded(pixels.double())
    finally:
        torch.set_default_dtype(torch.float32)
    scale = wanted.abs().max().clamp_min(1e-3)
    equal = ((got - wanted).abs() <= 3e-3 * scale).all(dim=1)
    assert bool(equal[clear].all()), (got, wanted)
    return int(clear.sum())
