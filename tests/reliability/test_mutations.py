"""``make mutations`` still finds the places that it changes."""

from tests import ROOT
from tests.reliability.mutations import MUTATIONS


def test_every_mutation_has_its_place() -> None:
    texts = {area.file: (ROOT / area.file).read_text() for area, _, _ in MUTATIONS}
    assert [old for area, old, _ in MUTATIONS if texts[area.file].count(old) != 1] == []
