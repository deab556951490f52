"""The list of the zoo is well formed; ``make test-zoo`` does the rest, with the network."""

import ast
import re
from collections import Counter

import numpy as np
import pytest

from tests.zoo.files import JOBS
from tests.zoo.images import images
from tests.zoo.made import HERE, SOURCES, recipe_hash
from tests.zoo.networks import NETWORKS, chosen

PIN = re.compile(r"^(?:#.*|[\w.-]+==[\w.+]+ \\|    --hash=sha256:[0-9a-f]{64}(?: \\)?)$")


def test_every_network_has_files_weights_and_a_maker_of_its_own() -> None:
    assert max(Counter(network.name for network in NETWORKS).values()) == 1
    assert max(Counter(network.seed for network in NETWORKS).values()) == 1
    assert len({recipe_hash(network) for network in NETWORKS}) == len(NETWORKS)
    served = [maker for job in JOBS for maker in job.makers]
    assert sorted(served) == sorted(SOURCES)
    assert {network.maker for network in NETWORKS} == set(SOURCES)
    assert chosen(()) == NETWORKS
    assert [network.name for network in chosen(("QuickNet",))] == ["QuickNet"]


def test_every_small_keras_model_is_on_the_list() -> None:
    tree = ast.parse((HERE / "keras_models.py").read_text())
    builders = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    assert {network.builder for network in NETWORKS if network.maker == "keras"} == builders
    assert {network.builder for network in NETWORKS if network.maker == "int8"} <= builders


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-brevitas.txt"])
def test_makers_are_pinned_by_hash(name: str) -> None:
    lines = (HERE / name).read_text().splitlines()
    assert [line for line in lines if not PIN.match(line)] == []


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_images_are_within_their_bounds_and_differ(network) -> None:
    few = images(network.seed, 2, network.shape, network.low, network.high)
    assert few.shape == (2, *network.shape)
    assert few.dtype == np.float32
    middle = (network.low + network.high) / 2
    assert network.low <= few.min() < middle < few.max() <= network.high
    assert np.abs(few[0] - few[1]).mean() > 0.1 * (network.high - network.low)
