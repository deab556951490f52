"""The record of other people's networks: all of the list, each as the list says."""

import json
from typing import Any

from frostbit.export.lce.worker import KERNELS
from frostbit.export.reading.compare import ANSWERS_TOLERANCE
from tests import RECORDS
from tests.zoo.__main__ import as_expected
from tests.zoo.networks import NETWORKS, PYNQ, ZOO

RECORD: dict[str, Any] = json.loads((RECORDS / "2026-11-25-zoo.json").read_text())
ROWS = {row["network"]: row for row in RECORD["networks"]}
READ = [row for row in ROWS.values() if "compared" in row]


def test_the_whole_list_is_there_and_as_it_says() -> None:
    assert list(ROWS) == [network.name for network in NETWORKS]
    assert [
        network.name for network in NETWORKS if not as_expected(network, ROWS[network.name])
    ] == []
    assert {*ZOO, *PYNQ, "mnist_tutorial", "cifar_tutorial"} <= {row["network"] for row in READ}


def test_what_was_read_is_the_source() -> None:
    for row in READ:
        compared, engine = row["compared"], row["engine"]
        assert compared["flips"] <= 1e-6 * compared["sign_bits"] + 1
        assert compared["whole"] > 0, row["network"]
        assert compared["numbers"] <= ANSWERS_TOLERANCE
        assert engine["within"] == engine["images"] == compared["images"]
        assert row["answers_of_the_maker"]["within"] > 0, row["network"]


def test_quicknet_is_read_in_no_time() -> None:
    assert ROWS["QuickNet"]["seconds_to_read"] < 3


def test_binary_layers_that_were_left_as_floats_are_stored_as_bits() -> None:
    assert ROWS["cifar_tutorial"]["layers_restored"] == 3
    assert ROWS["cifar_tutorial"]["bytes"] > 20 * ROWS["cifar_tutorial"]["model_bytes"]


def test_the_engine_was_timed_beside_every_kernel_of_lce() -> None:
    for row in READ:
        times = row["milliseconds"]
        theirs = {f"lce:{kernel}" for kernel in KERNELS} if row["maker"] != "brevitas" else set()
        assert {name for name in times if not name.startswith("engine:")} == theirs
        assert len(times) == len(theirs) + 1
        assert min(each["rounds"] for each in times.values()) >= 20
