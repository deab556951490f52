"""Before step 0: what cannot be packed is refused in one line, and nothing of a run is left."""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch import nn

from frostbit.kernels.ir.file import load_program
from frostbit.kernels.ir.program import BinaryConv, Dense, Program
from frostbit.pipeline.cli.main import main
from frostbit.pipeline.data import datasets, inputs
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.experiments import grid
from frostbit.pipeline.lowering import pack as packing
from frostbit.pipeline.lowering.agreement import require_equal
from frostbit.pipeline.network.binary import maskable
from frostbit.pipeline.network.models import build_from
from frostbit.pipeline.run import checkpoint, recipe
from frostbit.pipeline.run.folder import read_run
from frostbit.pipeline.training import before
from frostbit.pipeline.training import train as training
from frostbit.pipeline.training.train import Options, train

NETS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, classes, tail=None, middle=None):
        super().__init__()
        self.stem, self.norm0, self.act = nn.Conv2d(1, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU()
        self.middle = middle or nn.Conv2d(8, 8, 3, 1, 1)
        self.norm1, self.pool = nn.BatchNorm2d(8), nn.AdaptiveAvgPool2d(1)
        self.head, self.tail = nn.Linear(8, classes), tail or (lambda net, y: net.logits(y))

    def logits(self, y):
        return self.head(torch.flatten(self.pool(y), 1))

    def forward(self, x):
        return self.tail(self, self.norm1(self.middle(self.act(self.norm0(self.stem(x))))))


def good(num_classes):
    return Net(num_classes)


def pair(num_classes):
    return Net(num_classes, lambda net, y: (net.logits(y), y))


def map_of_logits(num_classes):
    return Net(num_classes, lambda net, y: net.logits(y)[:, :, None])


def two_classes(num_classes):
    return Net(2)


def vectors(num_classes):
    parts = [nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 8)]
    return nn.Sequential(*parts, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, num_classes))


def ends_only(num_classes):
    return nn.Sequential(nn.Conv2d(1, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8, num_classes))


def thirds(num_classes):
    pool, conv = nn.AvgPool2d(3, 2), nn.Conv2d(8, 8, 3, 1, 1)
    middle = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU(), pool, conv)
    return Net(num_classes, middle=middle)


def mismatched(num_classes):
    return Net(num_classes, middle=nn.Conv2d(4, 8, 3))


def zeros(num_classes):
    net = Net(num_classes)
    nn.init.zeros_(net.head.weight)
    nn.init.zeros_(net.norm1.weight)
    return net
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of a module in the current folder that nobody has trusted yet."""
    (tmp_path / "own_nets_3.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_nets_3", raising=False)
    monkeypatch.setattr(recipe, "_TRUSTED", set())
    monkeypatch.delenv(recipe.TRUST_VARIABLE, raising=False)
    return "own_nets_3"


def quick(**changes: Any) -> recipe.Recipe:
    return recipe.load("digits", {"epochs": 1, "batch": 100, "warmup": 0.1, **changes})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "pair": ({}, "must return one tensor [N, classes], not a tuple"),
    "two_classes": ({}, "[2, 2] for 2 images of 10 classes"),
    "vectors": ({"batch": 1}, "set batch to at least 2"),
    "vectors ": ({"batch": 5, "accumulate": 4}, "set batch to at least 2"),
    "ends_only": ({}, "nothing to binarize"),
    "mismatched": ({}, "expected input"),
    "good": ({"keep": "middle"}, "nothing to binarize"),
}


@pytest.mark.parametrize("case", sorted(REFUSED))
def test_what_cannot_end_is_refused_and_leaves_nothing(mine: str, case: str) -> None:
    changes, words = REFUSED[case]
    out = Path("run")
    with pytest.raises(UserError) as refusal:
        train(quick(model=f"{mine}:{case.strip()}", **changes), out)
    assert str(refusal.value).startswith("refused before training: ")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert not out.exists()


def test_a_refused_training_does_not_touch_the_run_that_was_there(mine: str, trained: Path) -> None:
    import shutil

    out = Path(shutil.copytree(trained, "run"))
    with pytest.raises(UserError, match="refused before training"):
        train(quick(model=f"{mine}:pair"), out, Options(force=True))
    assert read_run(out).facts == read_run(trained).facts


@pytest.mark.parametrize("name", ["good", "zeros", "vectors", "thirds"])
def test_good_networks_pass_even_if_they_start_with_zeros(mine: str, name: str) -> None:
    assert before.require_packable(quick(model=f"{mine}:{name}"), datasets.load("digits")) == ()


def test_a_float_network_needs_logits_and_no_packing(mine: str) -> None:
    digits = datasets.load("digits")
    assert before.require_packable(quick(model=f"{mine}:thirds", method="float"), digits) == ()
    with pytest.raises(UserError, match="refused before training: the network must return one"):
        before.require_packable(quick(model=f"{mine}:pair", method="float"), digits)


def test_every_constant_parameter_is_moved_off_its_value(mine: str) -> None:
    model = build_from(quick(model=f"{mine}:zeros"), datasets.as_json(datasets.load("digits")))
    before._freeze(model, activations=True)
    assert all(parameter.unique().numel() > 1 for parameter in model.parameters())
    assert all(module.share == 1 for _, module in maskable(model))


def altered(program: Program, kind: str) -> Program:
    """``program`` with one number changed."""
    ops = list(program.ops)
    if kind == "head":
        head = ops[-1]
        assert isinstance(head, Dense)
        ops[-1] = dataclasses.replace(head, add=head.add + np.float32(0.5))
    else:
        at = next(i for i, op in enumerate(ops) if isinstance(op, BinaryConv))
        conv = ops[at]
        assert isinstance(conv, BinaryConv)
        ops[at] = dataclasses.replace(conv, words=conv.words ^ np.uint64(1))
    return dataclasses.replace(program, ops=tuple(ops))


@pytest.mark.parametrize("kind", ["head", "weights"])
def test_a_program_that_is_not_the_network_is_refused_before_and_after(
    kind: str, monkeypatch: pytest.MonkeyPatch, trained: Path, tmp_path: Path
) -> None:
    """A number that is lost while lowering is seen on the untrained network, and by pack."""
    honest = packing.program_of
    for module in (before, packing):
        monkeypatch.setattr(module, "program_of", lambda *given: altered(honest(*given), kind))
    with pytest.raises(UserError, match=r"refused before training: .* is not the trained one"):
        train(quick(), tmp_path / "run")
    with pytest.raises(UserError, match="the packed network is not the trained one") as refusal:
        packing.pack(trained)
    assert ("0 of" in str(refusal.value)) == (kind == "head")


def test_pack_says_on_which_images_it_compared(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    program = packing.pack(trained, say=said.append)
    assert "on 64 images, of digits" in said[0]

    def absent(*given: Any, **named: Any) -> None:
        raise UserError("there is no such set here")

    monkeypatch.setattr(inputs.datasets, "load", absent)
    assert packing.pack(trained, say=said.append).settled_hash == program.settled_hash
    assert "64 images, drawn at random; there is no such set here" in said[1]


def test_the_comparison_takes_images_whose_answers_are_all_the_same(trained: Path) -> None:
    module = packing.load_settled(trained)
    images = np.zeros((3, 8, 8, 1), np.uint8)
    assert "equal to the trained network" in require_equal(packing.packed(trained), module, images)


def test_what_fails_at_the_end_keeps_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, settle = tmp_path / "run", training.settle

    def too_large(model: nn.Module, pixels: torch.Tensor, *options: object) -> None:
        raise UserError("the sums at 'stem' are too large")

    monkeypatch.setattr(training, "settle", too_large)
    with pytest.raises(UserError, match=r"too large; all 11 steps are done .* --resume '") as end:
        train(quick(), out)
    assert str(out) in str(end.value)
    kept, _ = checkpoint.newest(out / "checkpoints")
    assert kept is not None
    assert kept.step == 11
    monkeypatch.setattr(training, "settle", settle)
    result = train(quick(), out, Options(resume=True))
    assert result is not None
    assert result.test_after is not None


def test_an_export_that_is_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*given: Any) -> None:
        raise ImportError("no", name="onnx")

    forms = {**before.FORMATS, "onnx": dataclasses.replace(before.FORMATS["onnx"], convert=absent)}
    monkeypatch.setattr(before, "FORMATS", forms)
    notes = before.require_packable(quick(model="bireal-2"), datasets.load("digits"))
    assert "export to onnx was not checked: onnx is not installed" in notes


# ---------------------------------------------------------------- commands for own networks


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_every_command_takes_an_own_network_as_its_message_says(mine: str) -> None:
    made = invoke(
        "train", "--recipe", "digits", "--model", f"{mine}:good", "--epochs", 1,
        "--set", "batch=100", "-o", "run",
    )  # fmt: skip
    assert made.exit_code == 0, made.output
    recipe._TRUSTED.clear()  # the next command is another process
    later = {
        "pack": ["run"],
        "verify": ["run/model.bnn", "--formats", "torch", "--images", 4],
        "bench": ["run/model.bnn", "--runtime", "torch", "--rounds", 1],
        "train": ["--resume", "run"],
    }
    for command, arguments in later.items():
        refused = invoke(command, *arguments)
        assert refused.exit_code == 2, command
        assert "--trust" in refused.output, command
        done = invoke(command, *arguments, "--trust")
        assert done.exit_code == 0, done.output
        assert recipe.ANY_CODE not in recipe._TRUSTED, "trust ends with the command"
    assert "equal to the trained network" in invoke("pack", "run", "--trust", "--force").output
    assert load_program(Path("run/model.bnn")).dataset == "digits"
    for command, argument in (("report", "run"), ("summary", "run")):
        assert invoke(command, argument, "--trust").exit_code == 0, command


def test_an_experiment_is_refused_before_its_first_run(mine: str) -> None:
    Path("own.toml").write_text(
        f'title = "own"\nrecipe = "digits"\n[[runs]]\nmodel = ["bireal-2", "{mine}:pair"]\n'
    )
    refused = invoke("experiment", "own.toml", "-o", "out")
    assert refused.exit_code == 2
    assert "--trust" in refused.output
    with recipe.trusting(), pytest.raises(UserError, match="refused before training"):
        grid.run(grid.load("own.toml"), Path("out"), 1, None, None)
    assert not Path("out").exists()
