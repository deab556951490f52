"""Which pictures of a folder are trained on: decided by what is in them, and kept in a list.

Without folders of its own for it, the first tenth of all possible SHA-256 hashes is for testing,
the second for validation, the rest for training; of few pictures at least one each. So adding a
picture moves no other one towards the test, and two files with the same bytes are on one side.

A run keeps the list of its pictures (``pictures.jsonl``). With it a folder that was changed since
is compared, and nothing that was trained on is tested on, wherever it lies now.
"""

from __future__ import annotations

import hashlib
import os
import stat
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from frostbit.pipeline import json_file
from frostbit.pipeline.console import Progress, shown
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import JsonError, Sha256

PARTS = ("train", "validation", "test", "unused")
LEARNT = ("train", "validation")
SHOWN = 3
"""Names in a line about changes."""
MAX_BYTES = 1 << 29
"""Of a run's list: some four million pictures."""
MAX_PATH = 1 << 14
"""Characters of a path: Linux takes 4,096 bytes, and an escaped one is four characters."""


@dataclass(frozen=True)
class Stamp:
    """What tells one content from another.

    Attributes:
        sha256: of the file, in hexadecimal.
        size: bytes.
        time: of the last change, nanoseconds; the same path, size and time are not read again.
    """

    sha256: str
    size: int
    time: int


@dataclass(frozen=True)
class Picture:
    """One line of a run's list: path relative to the data folder, part, content."""

    path: str
    part: str
    stamp: Stamp


def stamps(
    root: Path, paths: Sequence[str], known: Mapping[str, Stamp], bar: Progress = iter
) -> list[Stamp]:
    """The stamps of ``paths`` under ``root``, read where ``known`` has no fresh one.

    Raises:
        UserError: a file that cannot be read, or is none.
    """

    def stamp(path: str) -> Stamp:
        file, before = root / path, known.get(path)
        try:
            state = file.stat()
            if not stat.S_ISREG(state.st_mode):
                raise OSError("no regular file")
            if before and (before.size, before.time) == (state.st_size, state.st_mtime_ns):
                return before
            return Stamp(_sha256(file), state.st_size, state.st_mtime_ns)
        except OSError as error:
            reason = error.strerror or error
            raise UserError(f"cannot read picture '{file}' ({reason}); remove it") from error

    with ThreadPoolExecutor() as pool:
        done = pool.map(stamp, paths)
        return [next(done) for _ in bar(range(len(paths)))]


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while part := stream.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()


def divided(hashes: Iterable[str], held_out: Sequence[str]) -> dict[str, str]:
    """Part of every hash: a tenth for each of ``held_out`` in turn, the rest ``train``.

    A hash that is added never moves another one out of ``train``, nor back in ``held_out``.
    """
    order = sorted(set(hashes))
    parts, start = dict.fromkeys(order, "train"), 0
    for number, part in enumerate(held_out, 1):
        end = max(start + 1, bisect_left(order, f"{number * (1 << 32) // 10:08x}"))
        parts.update(dict.fromkeys(order[start:end], part))
        start = end
    return parts


@dataclass(frozen=True)
class Changes:
    """How a folder differs from a run's list.

    Attributes:
        paths: by what happened to them: ``added``, ``removed``, ``changed``, ``moved or copied``.
        trained_on: how many would be tested on now, had they not been trained on.
    """

    paths: Mapping[str, Sequence[str]]
    trained_on: int

    def __str__(self) -> str:
        """Counts and some names; "" if nothing changed."""
        texts = [f"{len(paths)} {what} ({_some(paths)})" for what, paths in self.paths.items()]
        if self.trained_on:
            texts.append(f"{self.trained_on} that were trained on are not tested on")
        return "; ".join(texts)


def _some(paths: Sequence[str]) -> str:
    """The first of them, as they may stand before a person."""
    return shown(", ".join(paths[:SHOWN])) + ", ..." * (len(paths) > SHOWN)


def compared(now: Sequence[Picture], known: Sequence[Picture]) -> tuple[list[Picture], Changes]:
    """``now`` with the parts that ``known`` gives them, and what changed between the two.

    A picture keeps its part by content, wherever it lies. One whose content changed stays out of
    the test if it was trained on before.
    """
    by_path = {each.path: each for each in known}
    strictest = sorted(known, key=lambda each: PARTS.index(each.part), reverse=True)
    by_content = {each.stamp.sha256: each.part for each in strictest}
    found: list[Picture] = []
    changes: dict[str, list[str]] = {}
    for each in now:
        part, what = _as_before(each, by_path.get(each.path), by_content.get(each.stamp.sha256))
        found.append(replace(each, part=part))
        if what:
            changes.setdefault(what, []).append(each.path)
    paths, contents = {each.path for each in now}, {each.stamp.sha256 for each in now}
    gone = [each for each in known if each.path not in paths and each.part != "unused"]
    removed = [each.path for each in gone if each.stamp.sha256 not in contents]
    if removed:
        changes["removed"] = removed
    trained_on = sum(
        then.part == "test" and each.part in LEARNT for then, each in zip(now, found, strict=True)
    )
    return found, Changes(changes, trained_on)


def _as_before(now: Picture, listed: Picture | None, by_content: str | None) -> tuple[str, str]:
    """The part of a picture by a run's list, and what happened to it ("" for nothing)."""
    if listed is not None and listed.stamp.sha256 == now.stamp.sha256:
        return listed.part, ""
    learnt = [part for part in (by_content, listed and listed.part) if part in LEARNT]
    part = learnt[0] if learnt else by_content or now.part
    if listed is not None:
        return part, "changed"
    return part, "added" if by_content is None else "moved or copied"


class _Row(Struct, array_like=True, forbid_unknown_fields=True):
    """A line of a run's list.

    Attributes:
        name: the path's bytes, where they are no UTF-8: JSON can hold no others in ``path``.
    """

    part: Annotated[str, Meta(pattern=f"^({'|'.join(PARTS)})$")]
    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
    time: Annotated[int, Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
    path: Annotated[str, Meta(max_length=MAX_PATH)]
    name: Annotated[bytes, Meta(max_length=MAX_PATH)] = b""


def to_lines(listed: Iterable[Picture]) -> bytes:
    """A run's list, a JSON array a line: part, SHA-256, bytes, time, path and the path's bytes."""
    return b"".join(msgspec.json.encode(_row(each)) + b"\n" for each in listed)


def _row(each: Picture) -> _Row:
    stamp, path = each.stamp, shown(each.path)
    name = os.fsencode(each.path) if path != each.path else b""
    return _Row(each.part, stamp.sha256, stamp.size, stamp.time, path, name)


def read_lines(path: Path) -> tuple[Picture, ...]:
    """The list that :func:`to_lines` wrote; empty if there is no such file.

    Raises:
        UserError: it cannot be read, or is no such list; names the line.
    """
    if not path.exists():
        return ()
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise JsonError(f"it is larger than {MAX_BYTES >> 20} MB")
        return tuple(_picture(*line) for line in enumerate(data.splitlines(), 1))
    except (OSError, JsonError) as error:
        raise UserError(
            f"cannot read the run's pictures, '{path}' ({error}); restore that file, or train again"
        ) from error


def _picture(number: int, line: bytes) -> Picture:
    try:
        row = json_file.parse(line, _Row)
    except JsonError as error:
        raise JsonError(f"line {number}: {error}") from error
    path = os.fsdecode(row.name) if row.name else row.path
    return Picture(path, row.part, Stamp(row.sha256, row.size, row.time))
