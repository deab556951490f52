"""run.json of a run folder that may come from a stranger.

Checksums in run.json say that nothing was damaged, not that nothing was forged. So types, sizes and
names are checked here, once, before a network is built or a page is written from them.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Struct

from frostbit.kernels.ir.limits import check_name
from frostbit.kernels.ir.program import MAX_DIM, MAX_ELEMENTS
from frostbit.pipeline import json_file
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import Count, JsonError, Name, Number, Percent, Positive, Sha256

FORMAT_VERSION = 1
_Side = Annotated[int, Meta(ge=1, le=MAX_DIM)]


class _Dataset(Struct):
    """What a network is built for: name, shape, classes, normalisation."""

    name: Name
    image_shape: tuple[_Side, _Side, _Side]
    classes: Annotated[list[Name], Meta(min_length=1, max_length=1 << 16)]
    mean: list[Number]
    std: list[Positive]
    splits: dict[Name, Count] = {}

    def __post_init__(self) -> None:
        if math.prod(self.image_shape) > MAX_ELEMENTS:
            raise ValueError("image_shape is impossible")
        if not len(self.mean) == len(self.std) == self.image_shape[2]:
            raise ValueError("mean and std need a number a channel")
        for name in (self.name, *self.classes):
            check_name(name)


class _Accuracy(Struct):
    validation: Percent
    test_before_settling: Percent
    test_after_settling: Percent | None


class _Version(Struct):
    format_version: int


class _Run(Struct):
    dataset: _Dataset
    accuracy: _Accuracy
    parameters: Count
    steps: Count
    seconds: Annotated[float, Meta(ge=0, le=1e12)]
    unfrozen: dict[Name, Count]
    fully_frozen: bool
    sha256: dict[Name, Sha256]
    settled_hash: Name = ""
    device: Name = ""
    cpu: Name = ""

    def __post_init__(self) -> None:
        for name in (self.device, self.cpu, self.settled_hash):
            check_name(name)


def read(path: Path, again: str) -> dict[str, Any]:
    """The facts of a finished run; ``again`` is the remedy for what is wrong with them.

    Raises:
        UserError: no such file, another format version, or not what a run writes.
    """
    try:
        data = json_file.read_bytes(path)
        version = json_file.parse(data, _Version).format_version
        if version != FORMAT_VERSION:
            raise UserError(
                f"'{path.parent}' was written in run format {version}, this version reads "
                f"{FORMAT_VERSION}; {again}"
            )
        return json_file.document(data, _Run)
    except FileNotFoundError as error:
        raise UserError(f"'{path.parent}' holds no finished run (no run.json); {again}") from error
    except (OSError, JsonError) as error:
        raise UserError(f"'{path}' is damaged ({error}); {again}") from error
