"""``pack`` of a network trained in one's own loop: the Program is the network, or it is refused."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import frostbit as fb
from frostbit.kernels.ir.file import dumps
from frostbit.pipeline.data import datasets
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering import own_network
from frostbit.pipeline.lowering import pack as pack_run
from frostbit.pipeline.lowering.settle import settle
from frostbit.pipeline.network.binary import BinaryActivation, BinaryConv2d, maskable
from frostbit.pipeline.run.folder import read_run

DIGITS = datasets.load("digits")
NAMES = tuple("0123456789")


def pixels(images: np.ndarray) -> Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


TRAIN = DIGITS.train.take(range(600))
PIXELS = pixels(TRAIN)
LABELS = torch.from_numpy(DIGITS.train.labels[:600])


def network(channels: int = 8) -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(),
        nn.Flatten(), nn.Linear(channels * 64, 10),
    )  # fmt: skip
    return fb.binarize(net, PIXELS[:1], mean=DIGITS.mean, std=DIGITS.std)


def trained(activations: bool = True, steps: int = 24, stop: int = 24) -> nn.Module:
    net = network()
    freezer = fb.StoMPP(net, steps, activations=activations)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
    for start in range(0, 25 * stop, 25):
        freezer.advance()
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(
            net(PIXELS[start : start + 25]), LABELS[start : start + 25]
        )
        loss.backward()
        with freezer.holding():
            optimizer.step()
    return net


@pytest.fixture(scope="module")
def net() -> nn.Module:
    return trained()


def test_the_engine_gives_the_modules_logits_bit_for_bit(
    net: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    monkeypatch.setattr(
        own_network, "settle", lambda *given: made.append(settle(*given)) or made[0]
    )
    before = {name: value.clone() for name, value in net.state_dict().items()}
    program = fb.pack(net, DataLoader(TensorDataset(PIXELS, LABELS), 64), NAMES)
    assert program.classes == NAMES
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    fb.save(program, tmp_path / "digits.bnn")
    test = DIGITS.test.take(range(len(DIGITS.test)))
    with torch.no_grad():
        expected = made[0].module(pixels(test)).numpy()
    found = fb.load(tmp_path / "digits.bnn").run(test)
    np.testing.assert_array_equal(found, expected)
    assert (found.argmax(axis=1) == DIGITS.test.labels).mean() > 0.3
    assert len(np.unique(found, axis=0)) > 100


def test_the_command_line_packs_the_same(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished run, packed by ``pipeline pack`` and as a network in hand: equal bytes.

    Settled once: BatchNorm's statistics depend, in their last bit, on strides that a file forgets.
    """
    settled = SimpleNamespace(module=pack_run.load_settled(trained))
    monkeypatch.setattr(own_network, "settle", lambda *_: settled)
    model = pack_run.network(read_run(trained))
    program = fb.pack(model, TRAIN, DIGITS.classes, dataset="digits")
    assert dumps(program) == dumps(pack_run.packed(trained))


def batches() -> Iterator[tuple[Tensor, Tensor]]:
    for start in range(0, 600, 100):
        yield PIXELS[start : start + 100], LABELS[start : start + 100]


def test_every_form_of_calibration_gives_the_same_bytes(net: nn.Module) -> None:
    forms = [
        PIXELS,
        PIXELS.to(torch.uint8),
        TRAIN,
        [TRAIN[:9], TRAIN[9:]],
        batches(),
        [[PIXELS, 1]],
    ]
    packed = {dumps(fb.pack(net, form)) for form in forms}  # type: ignore[arg-type]
    assert len(packed) == 1
    assert fb.pack(net, TRAIN).classes == NAMES


def test_the_first_images_count(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_network, "SETTLE_IMAGES", 150)

    def endless() -> Iterator[np.ndarray]:
        yield from (TRAIN[:100], TRAIN[100:200])
        raise AssertionError("asked for more")

    assert dumps(fb.pack(net, endless())) == dumps(fb.pack(net, TRAIN[:150]))
    assert dumps(fb.pack(net, TRAIN[:150])) != dumps(fb.pack(net, TRAIN[150:300]))


def test_what_is_left_is_refused_by_name_or_frozen() -> None:
    net = trained(stop=12)
    shares = [module.share for _, module in maskable(net)]
    assert any(0 < share < 1 for share in shares)
    with pytest.raises(UserError, match=r"not fully frozen: .*\d+ entries.*freeze=True"):
        fb.pack(net, TRAIN)
    program = fb.pack(net, TRAIN, freeze=True)
    assert [module.share for _, module in maskable(net)] == shares
    for _, module in maskable(net):
        module.freeze(1.0)
    assert dumps(fb.pack(net, TRAIN)) == dumps(program)


def test_weights_alone() -> None:
    net = trained(activations=False)
    with pytest.raises(UserError, match="not fully frozen"):
        fb.pack(net, TRAIN)
    program = fb.pack(net, TRAIN, activations=False)
    assert "Clip" in {type(op).__name__ for op in program.ops}
    half = next(module for _, module in maskable(net) if isinstance(module, BinaryActivation))
    half.freeze(0.5, torch.ones(half.entry_shape))
    with pytest.raises(UserError, match="partly frozen"):
        fb.pack(net, TRAIN, activations=False)


def test_a_program_that_differs_is_refused(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    other = copy.deepcopy(net)
    for _, module in maskable(other):
        if isinstance(module, BinaryConv2d):
            module.weight.detach().neg_()
    program = fb.pack(other, TRAIN)
    monkeypatch.setattr(own_network, "program_of", lambda *_: program)
    with pytest.raises(UserError, match="not the trained one"):
        fb.pack(net, TRAIN)


@pytest.mark.parametrize(
    ("calibration", "text"),
    [
        (PIXELS / 255, r"0\.\.1.*multiply by 255"),
        ((PIXELS - 77) / 96, "not normalised"),
        (PIXELS * float("nan"), "not normalised"),
        (PIXELS.long(), r"int64 \[600, 1, 8, 8\]"),
        (TRAIN.astype(np.float32), r"float32 \[600, 8, 8, 1\]"),
        (PIXELS[0], r"\[1, 8, 8\]"),
        ([], "at least two"),
        (TRAIN[:1], "at least two"),
        ([{"image": PIXELS}], "is dict"),
        ([PIXELS, PIXELS[:, :, :4]], "differ in size"),
    ],
)
def test_other_images_are_refused(net: nn.Module, calibration: object, text: str) -> None:
    with pytest.raises(UserError, match=text):
        fb.pack(net, calibration)  # type: ignore[arg-type]


def test_other_networks_and_names_are_refused(net: nn.Module) -> None:
    with pytest.raises(UserError, match="no binary layers"):
        fb.pack(nn.Linear(2, 2), TRAIN)
    with pytest.raises(UserError, match="one text"):
        fb.pack(net, TRAIN, "0123456789")
    with pytest.raises(fb.FormatError):
        fb.pack(net, TRAIN, NAMES[:9])
    spoilt = copy.deepcopy(net)
    with torch.no_grad():
        next(spoilt.parameters())[0] = float("nan")
    with pytest.raises(UserError, match=r"'0\.weight' has NaN"):
        fb.pack(spoilt, TRAIN)
