"""What ``pipeline import`` does: read, compare with the source, write, and say all of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from frostbit.export.errors import RuntimeMissing, SourceDiffers
from frostbit.export.foreign import IMAGES, compare_file, read_file
from frostbit.export.reading.imported import Imported
from frostbit.export.reading.pixels import taking_pixels
from frostbit.kernels.ir.file import save_program
from frostbit.kernels.ir.program import Preprocessing, Program
from frostbit.pipeline.console import Progress
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.parity.given_images import given_images, require_small
from frostbit.pipeline.run.folder import refuse_existing, require_writable

ENDING = ".bnn"
GIVEN = 16
"""Images of a person's own that are compared, unless another number is asked for."""
MAX_CLASSES_BYTES = 1 << 22
LISTED = 6
"""Restored layers that are named; the others are counted."""


@dataclass(frozen=True)
class Wishes:
    """What a person asked for; the fields are the command's options.

    Attributes:
        limits: what pixels 0 and 255 become.
        kind: ``float32`` or ``uint8``, what the written model takes; None: what the file does.
        classes: file with a name a line.
        inputs: file or folder of images to compare on; None: random ones.
        images: how many of them; None: the usual number.
    """

    logits: bool = False
    limits: tuple[float, float] | None = None
    kind: str | None = None
    classes: Path | None = None
    inputs: Path | None = None
    images: int | None = None
    no_compare: bool = False
    force: bool = False


def require_target(target: Path, force: bool) -> None:
    """UserError unless a model can be written to ``target``."""
    if target.suffix.lower() != ENDING:
        raise UserError(f"'{target}': a packed model's name ends in {ENDING}")
    refuse_existing(target, force)
    require_writable(target)


def read(file: Path, wishes: Wishes) -> Imported:
    """The network in ``file``, with names of classes and preprocessing as wished.

    Raises:
        UserError: a package is missing, ``--input uint8`` without preprocessing, or class names
            that do not fit.
        FormatError: it cannot be read; the text names operator and layer.
    """
    try:
        imported = read_file(file, wishes.logits)
    except ModuleNotFoundError as error:
        raise UserError(
            f"reading {file.suffix} needs {error.name}: pip install 'frostbit[export]'"
        ) from error
    program = imported.program
    if program.input_kind == "u8":
        _require_no_floats(file, wishes)
    elif wishes.limits is not None:
        channels = program.input_shape[2]
        program = replace(program, preprocessing=Preprocessing.of_range(*wishes.limits, channels))
    if _becomes_pixels(program, wishes) and program.preprocessing is None:
        raise UserError("--input uint8 needs to know what pixels become: give --range, e.g. -1..1")
    if wishes.classes is not None:
        program = replace(program, classes=_classes(wishes.classes, len(program.classes)))
    return replace(imported, program=program)


def _require_no_floats(file: Path, wishes: Wishes) -> None:
    """UserError if options for files that take floats were given."""
    for given, option in (
        (wishes.limits, "--range"),
        (wishes.kind == "float32", "--input float32"),
    ):
        if given:
            raise UserError(f"'{file}' takes uint8 pixels as they are: leave out {option}")


def _becomes_pixels(program: Program, wishes: Wishes) -> bool:
    """Whether a model of floats is to take pixels."""
    return wishes.kind == "uint8" and program.input_kind == "f32"


def _classes(path: Path, count: int) -> tuple[str, ...]:
    with path.open("rb") as stream:
        data = stream.read(MAX_CLASSES_BYTES)
    try:
        names = tuple(line.strip() for line in data.decode("utf-8-sig").splitlines())
    except UnicodeDecodeError as error:
        raise UserError(f"'{path}' is no text in UTF-8") from error
    if len(names) != count:
        raise UserError(f"'{path}' has {len(names)} lines, the model {count} classes")
    return names


def described(file: Path, imported: Imported) -> list[str]:
    """Lines on what was read."""
    program = imported.program
    height, width, channels = program.input_shape
    kind = "uint8" if program.input_kind == "u8" else "float32"
    lines = [
        f"{file.name}: {imported.source_kind}; takes {kind} [N, {height}, {width}, {channels}], "
        f"gives {len(program.classes)} numbers, {len(program.ops)} ops",
        *imported.notes,
    ]
    lines += [
        f"one bit restored: {each.layer}, {each.weights:,} weights, {each.bytes_before:,} -> "
        f"{each.bytes_after:,} bytes"
        for each in imported.restored[:LISTED]
    ]
    if len(imported.restored) > LISTED:
        rest = imported.restored[LISTED:]
        before = sum(each.bytes_before for each in rest)
        after = sum(each.bytes_after for each in rest)
        lines.append(f"and {len(rest)} layers more, {before:,} -> {after:,} bytes")
    return lines


def compared(file: Path, imported: Imported, wishes: Wishes, progress: Progress) -> str:
    """Run ``file`` beside what was read from it; one line on what was found.

    Raises:
        UserError: images that cannot be used, or a difference that rounding does not explain.
        LceError: the source's runtime refuses the file.
    """
    if wishes.no_compare:
        return "not compared with the source, as asked"
    images = None
    count = wishes.images or IMAGES
    if wishes.inputs is not None:
        images = given_images(wishes.inputs, imported.program, wishes.images or GIVEN)
    else:
        require_small(count, imported.program)
    try:
        return compare_file(file, imported, images, count, progress).verdict
    except RuntimeMissing as missing:
        return f"not compared with the source: {missing}"
    except SourceDiffers as error:
        raise UserError(f"'{file}': {error}; nothing is written: please report this") from error


def write(program: Program, target: Path, wishes: Wishes) -> int:
    """Write the model as wished; returns its bytes."""
    program = taking_pixels(program) if _becomes_pixels(program, wishes) else program
    return len(save_program(program, target))
