"""Which pictures are trained on: stable, by content, and kept apart from the test for good."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frostbit.pipeline.data import contents
from frostbit.pipeline.data.contents import Picture, Stamp, compared, divided
from frostbit.pipeline.errors import UserError

HELD_OUT = [("test", "validation"), ("validation",)]
HASHES = st.sets(st.integers(0, (1 << 256) - 1).map("{:064x}".format), min_size=1, max_size=60)


@given(HASHES, HASHES, st.sampled_from(HELD_OUT))
def test_adding_pictures_moves_none_towards_the_test(
    first: set[str], more: set[str], held_out: tuple[str, ...]
) -> None:
    rank = {part: number for number, part in enumerate((*held_out, "train"))}
    before, after = divided(first, held_out), divided(first | more, held_out)
    assert all(rank[before[each]] <= rank[after[each]] for each in first)


@given(HASHES, st.sampled_from(HELD_OUT))
def test_something_is_held_out_of_few(hashes: set[str], held_out: tuple[str, ...]) -> None:
    found = divided(hashes, held_out)
    assert set(found) == hashes
    assert held_out[0] in found.values()


def test_a_tenth_each_is_held_out() -> None:
    hashes = [f"{number << 248 | number:064x}" for number in range(256)]
    found = list(divided(hashes, ("test", "validation")).values())
    assert [found.count(part) for part in contents.PARTS] == [204, 26, 26, 0]


def listed(path: str, part: str, content: int) -> Picture:
    return Picture(path, part, Stamp(f"{content:064x}", 10, content))


KNOWN = [
    listed("a/1", "train", 1), listed("a/2", "test", 2), listed("b/3", "validation", 3),
    listed("b/4", "unused", 4), listed("b/5", "train", 5),
]  # fmt: skip


def test_an_unchanged_folder_keeps_its_parts_and_has_nothing_to_say() -> None:
    now = [listed(each.path, "test", int(each.stamp.sha256, 16)) for each in KNOWN]
    found, changes = compared(now, KNOWN)
    assert [each.part for each in found] == ["train", "test", "validation", "unused", "train"]
    assert str(changes) == "3 that were trained on are not tested on"
    found, changes = compared([*KNOWN], KNOWN)
    assert str(changes) == ""


def test_what_changed_is_named_and_never_tested_if_it_was_trained_on() -> None:
    now = [
        listed("a/1", "test", 11),  # trained on, changed
        listed("a/2", "train", 2),  # still tested, whatever its hash would say
        listed("test/b/3", "test", 3),  # moved into the test
        listed("c/5", "test", 5),  # copied
        listed("b/5", "train", 5),
        listed("a/7", "test", 7),  # new
        listed("a/8", "train", 8),
        listed("b/4", "test", 1),  # overwritten by a copy of one that was trained on
    ]
    found, changes = compared(now, KNOWN)
    assert [each.path for each in found if each.part == "test"] == ["a/2", "a/7"]
    assert str(changes) == (
        "2 changed (a/1, b/4); 2 moved or copied (test/b/3, c/5); 2 added (a/7, a/8); "
        "4 that were trained on are not tested on"
    )
    _, changes = compared(KNOWN[1:], KNOWN)
    assert str(changes) == "1 removed (a/1)"


def test_a_list_comes_back_as_it_was_written(tmp_path: Path) -> None:
    names = [listed('a/"x"\n.png', "train", 1), listed("b/\udcff.png", "test", 2)]
    path = tmp_path / "pictures.jsonl"
    path.write_bytes(contents.to_lines(names))
    assert contents.read_lines(path) == tuple(names)
    assert contents.read_lines(tmp_path / "none") == ()


@pytest.mark.parametrize(
    "line",
    [
        b"{}", b"[", b"\xff", b'["train", "00", 1, 1, "a"]', b"[" * 100_000,
        b'["nowhere", "' + b"0" * 64 + b'", 1, 1, "a"]',
        b'["train", "' + b"0" * 64 + b'", 1.5, 1, "a"]',
        b'["train", "' + b"0" * 64 + b'", -1, 1, "a"]',
        b'["train", "' + b"0" * 64 + b'", 1, 1, "a", "YQ==", 1]',
        b'["train", "' + b"0" * 64 + b'", 1, 1, "\x1b"]',
        b'["train", "' + b"0" * 64 + b'", ' + b"9" * 5000 + b', 1, "a"]',
    ],
)  # fmt: skip
def test_a_damaged_list_is_refused(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "pictures.jsonl"
    path.write_bytes(contents.to_lines(KNOWN) + line + b"\n")
    with pytest.raises(
        UserError, match=rf"^cannot read .*pictures\.jsonl' \(line {len(KNOWN) + 1}: .*train again$"
    ):
        contents.read_lines(path)


def test_names_of_changed_pictures_are_shown_escaped() -> None:
    now = [*KNOWN, listed("a/\x1b[2J\u202e.png", "train", 99)]
    assert "a/\\x1b[2J\\u202e.png" in str(compared(now, KNOWN)[1])


def test_contents_are_read_again_only_if_size_or_time_changed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"one")
    (first,) = contents.stamps(tmp_path, ["a.png"], {})
    claimed = Stamp("0" * 64, first.size, first.time)
    assert contents.stamps(tmp_path, ["a.png"], {"a.png": claimed}) == [claimed]
    path.write_bytes(b"three")
    (second,) = contents.stamps(tmp_path, ["a.png"], {"a.png": claimed})
    assert second.sha256 not in (first.sha256, claimed.sha256)
    with pytest.raises(UserError, match=r"none\.png"):
        contents.stamps(tmp_path, ["none.png"], {})
