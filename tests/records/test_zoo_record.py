"""The record of other people's networks: all of the list, each as the list says."""

import json
from typing import Any

from frostbit.export.lce.worker import KERNELS
from frostbit.export.reading.compare import ANSWERS_TOLERANCE
from tests import RECORDS, ROOT
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
        compared = row["compared"]
        assert compared["flips"] <= 1e-6 * compared["sign_bits"] + 1
        assert compared["whole"] > 0, row["network"]
        assert compared["answers"] <= ANSWERS_TOLERANCE
        assert row["answers_of_the_maker"]["within"] > 0, row["network"]


def test_the_engine_and_our_own_exports_are_what_was_read() -> None:
    for row in READ:
        assert row["engine"]["passed"]
        assert row["engine"]["images"] == row["compared"]["images"]
        again = row.get("exported_again_in_lce")
        assert (again is None) == (row["maker"] == "brevitas")
        assert again is None or again["within"] >= again["images"] - 1


def test_quicknet_is_read_in_no_time() -> None:
    assert ROWS["QuickNet"]["seconds_to_read"] < 3


def test_binary_layers_that_were_left_as_floats_are_stored_as_bits() -> None:
    assert ROWS["cifar_tutorial"]["layers_restored"] == 3
    assert ROWS["cifar_tutorial"]["bytes"] > 20 * ROWS["cifar_tutorial"]["model_bytes"]


def test_the_engine_was_timed_beside_every_kernel_of_lce() -> None:
    page = (ROOT / "docs" / "coming-from-larq.md").read_text()
    timed = [row for row in READ if row.get("milliseconds")]
    assert {"QuickNet", "BiRealNet", "BinaryResNetE18", "BinaryDenseNet28", "MeliusNet22"} <= {
        row["network"] for row in timed
    }
    for row in timed:
        times, ratio = row["milliseconds"], row["engine_over_best"]
        assert {name for name in times if name.startswith("lce:")} == {
            f"lce:{kernel}" for kernel in KERNELS
        }
        assert min(each["rounds"] for each in times.values()) >= 20
        shown = f"{ratio['value']:.1f} ({ratio['low']:.1f} to {ratio['high']:.1f})"
        assert f"| {row['network']} |" in page
        assert shown in page
