"""A row of the record says what there is to say, of files that lie here."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from frostbit.pipeline.console import silent
from tests.export.reading.foreign import FOLDER
from tests.zoo.__main__ import Kept, as_expected, table
from tests.zoo.networks import Network
from tests.zoo.results import agreement, row

BITS = Network("bits_one", "keras", "bits_one", (16, 16, 3), 0)


def test_a_network_that_is_read_agrees_with_its_source_and_its_maker(tmp_path: Path) -> None:
    found = row(BITS, FOLDER, 0, silent)
    assert found["compared"]["flips"] == 0
    assert found["compared"]["whole"] == found["compared"]["images"] == 4
    for side in ("answers_of_the_maker", "exported_again_in_lce"):
        assert (found[side]["within"], found[side]["images"]) == (4, 4)
    assert found["engine"]["passed"]
    assert as_expected(BITS, found)
    assert not as_expected(replace(BITS, refused="QUANTIZE"), found)
    assert table([found]).row_count == 1
    kept = Kept(tmp_path)
    kept.write(BITS, found)
    assert found.items() <= kept.read(BITS).items()
    assert kept.read(replace(BITS, seed=1)) is None
    assert kept.is_done(BITS, timed=False)
    assert not kept.is_done(BITS, timed=True)


def test_a_file_that_cannot_be_read_is_a_row_too(tmp_path: Path) -> None:
    (tmp_path / BITS.file).write_bytes((FOLDER / BITS.file).read_bytes()[:2000])
    found = row(BITS, tmp_path, 0, silent)
    assert BITS.file in found["refused"]
    assert str(tmp_path) not in found["refused"]
    assert not as_expected(BITS, found)
    assert as_expected(replace(BITS, refused=found["refused"]), found)


def test_answers_that_differ_are_counted_by_image() -> None:
    theirs = np.array([[0, 1, 2], [0, 2, 4], [0, 4, 8]], np.float32)
    ours = theirs + np.array([[0, 0, 0], [0, 0, 1], [0, 0, 1e-4]], np.float32)
    found = agreement(ours, theirs)
    assert (found.images, found.within) == (3, 2)
    assert found.largest == 0.25
