"""A name that is not known: the one that was meant, or all there are."""

import pytest

from frostbit.pipeline.errors import unknown


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("birel-8", "unknown model 'birel-8'; did you mean 'bireal-8'?"),
        ("BIREAL-8", "did you mean 'bireal-8'?"),
        ("vit", "unknown model 'vit'; there are bireal-8, plain-8"),
        ("a\nb", "unknown model 'a\\nb'; there are"),
    ],
)
def test_only_a_near_name_is_suggested(name: str, words: str) -> None:
    text = str(unknown("model", name, ["bireal-8", "plain-8"]))
    assert words in text
    assert text.isprintable()
