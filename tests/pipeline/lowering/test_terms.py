"""Heads whose large terms cancel, and what is said where float32 is to blame."""

import dataclasses
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from frostbit.export import parity
from frostbit.export.parity import LOGITS_TOLERANCE, TERMS_TOLERANCE, compare
from frostbit.export.runtimes import EngineRuntime, Images, Logits, ReferenceRuntime
from frostbit.export.terms import magnitudes
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import Dense, Program
from frostbit.pipeline.data.inputs import Inputs
from frostbit.pipeline.device import bundle, check
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.agreement import require_equal
from frostbit.pipeline.lowering.settle import settle
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime, pixels_of
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.network.binary import BinaryActivation, binarize, maskable

SHAPE = (1, 16, 16)


def alike() -> Images:
    """Images that differ in one pixel each, so that the head's features hardly vary."""
    images = np.random.default_rng(4).integers(0, 256, (1, 16, 16, 1), dtype=np.uint8)
    images = np.repeat(images, 8, axis=0)
    images[np.arange(8), np.arange(8), 3] ^= 16
    return images


def settled(activations: bool) -> torch.fx.GraphModule:
    """A network with BatchNorm behind its head: of signs, or with binary weights alone."""
    torch.manual_seed(4)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3, 1, 1), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4), nn.BatchNorm1d(4),
    )  # fmt: skip
    pixels = pixels_of(alike())
    model = binarize(net, pixels[:1], mean=(0.5,), std=(0.25,))
    for _, module in maskable(model):
        if activations or not isinstance(module, BinaryActivation):
            module.freeze(1.0)
    with torch.no_grad():
        return settle(model, pixels).module


class Moved(ReferenceRuntime):
    """The reference, its first logit moved by a share of the magnitudes of its terms."""

    name = "moved"

    def __init__(self, program: Program, share: float) -> None:
        super().__init__(program)
        self.program, self.share = program, share

    def logits(self, images: Images) -> Logits:
        values = reference.trace(self.program, images)
        found = super().logits(images).copy()
        terms = magnitudes(self.program, values)[self.program.ops[-1].name]
        found[:, 0] += self.share * terms.max(axis=(1, 2, 3))
        return found


def test_a_head_whose_terms_cancel_is_held_to_its_terms() -> None:
    """Its logits may lie 100 times further apart than 1e-5, and no further."""
    module = settled(activations=True)
    program, images = lower(module, SHAPE), alike()
    runtimes = [TorchRuntime(module, SHAPE), EngineRuntime(program)]
    runtimes += [Moved(program, share * TERMS_TOLERANCE) for share in (0.9, 1.1)]
    report = compare(program, runtimes, images)
    assert not report.head_exact
    assert [each.images_beyond for each in report.comparisons] == [0, 0, 0, 8]
    assert [report.keeps(each) for each in report.comparisons] == [True, True, True, False]
    assert report.comparisons[2].logits_max_rel_diff > 10 * LOGITS_TOLERANCE
    assert "on 8 images" in require_equal(program, module, images)


def test_a_board_is_held_to_the_same(tmp_path: Path) -> None:
    program, images = lower(settled(activations=True), SHAPE), alike()
    data = bundle.build(program, "toy", Inputs(images, None, ""))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(tmp_path)
    told = check.read_manifest(tmp_path)
    for share, right in ((0.9, True), (1.1, False)):
        moved = Moved(program, share * TERMS_TOLERANCE).logits(images)
        np.save(tmp_path / "logits.npy", moved)
        assert {each["equal"] for each in check.compare(program, tmp_path, told)} == {right}


def test_magnitudes_bound_their_sums() -> None:
    program = lower(settled(activations=True), SHAPE)
    values = reference.trace(program, alike())
    found = magnitudes(program, values)
    assert program.ops[-1].name in found
    for name, sums in found.items():
        assert (sums >= np.abs(values[name]) * (1 - 1e-6)).all()


def test_rounding_alone_is_called_numerical_and_a_lost_number_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = settled(activations=False)
    program, images = lower(module, SHAPE), alike()
    monkeypatch.setattr(parity, "REAL_TOLERANCE", 1e-7)
    with pytest.raises(UserError, match=r"^numerical: .* cancel at '.*larger eps"):
        require_equal(program, module, images)
    head = program.ops[-1]
    assert isinstance(head, Dense)
    wrong = dataclasses.replace(head, add=head.add + np.float32(0.5))
    altered = dataclasses.replace(program, ops=(*program.ops[:-1], wrong))
    with pytest.raises(UserError, match=r"^the packed network is not the trained one"):
        require_equal(altered, module, images)
