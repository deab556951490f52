"""The papers' full recipes run as they stand: one epoch on fixtures in the real formats."""

from pathlib import Path

import numpy as np
import pytest

from frostbit.pipeline.lowering.pack import pack
from frostbit.pipeline.run import recipe
from frostbit.pipeline.training.train import Options, train
from tests.pipeline.data.test_cifar import write10, write100
from tests.pipeline.data.test_folders import fill


def place(name: str, folder: Path) -> Path:
    """A small data set of the recipe's kind."""
    if "cifar100" in name:
        write100(folder)
    elif "cifar10" in name:
        write10(folder)
    else:
        fill(folder / "train", 6)
        fill(folder / "val", 2)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("paper-cifar10-resnet18", marks=pytest.mark.slow),
        pytest.param("paper-cifar100-resnet18", marks=pytest.mark.slow),
        pytest.param("paper-imagenet-resnet18", marks=pytest.mark.slow),
        "edge",
    ],
)
def test_one_epoch(name: str, tmp_path: Path) -> None:
    chosen = recipe.load(name, {"epochs": 1})
    options = Options(device="cpu", data_dir=place(name, tmp_path / "set"))
    result = train(chosen, tmp_path / "run", options)
    assert result is not None
    assert result.unfrozen == {}
    assert result.test_after is not None
    program = pack(tmp_path / "run")
    assert len(program.classes) == {"cifar10-": 10, "cifar100": 100}.get(name[6:14], 2)


@pytest.mark.parametrize("data", ["cifar10", "cifar100", "imagenet"])
def test_resnet50_differs_from_resnet18_in_the_model_only(data: str) -> None:
    small, large = (recipe.load(f"paper-{data}-resnet{n}") for n in (18, 50))
    assert recipe.differences(small, large) == ["name", "model"]
    assert small.method == "stompp"
    assert small.lr_binary == small.lr_other == 0.1
    assert (small.batch, small.optimizer, small.lr_schedule) == (256, "sgd", "constant")
    assert small.ramp == "cubic"
    assert np.isclose(small.refresh, 0.01)
