"""What ``check.py`` of a bundle runs on the board; needs the base install only.

Every micro-kernel of the CPU must give the logits that the bundle brings. Only then is anything
measured, and under an emulator nothing is: ``--no-timing``.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import click
import numpy as np
from msgspec import Meta, Struct
from numpy.typing import NDArray

from frostbit.export.parity import LOGITS_TOLERANCE, REAL_TOLERANCE, allowed
from frostbit.export.rounding import follows
from frostbit.export.runtimes import Images, Logits
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import load_program, program_hash
from frostbit.kernels.ir.program import FormatError, Program
from frostbit.kernels.machine import cpu
from frostbit.pipeline import json_file
from frostbit.pipeline.bench.command import Wishes, bench_models, thread_counts
from frostbit.pipeline.console import shown
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.json_file import JsonError, Name, Sha256, Text

LARGEST = 2**26
"""Bytes of any file of a bundle."""


CHECKED = ("model.bnn", "images.npy", "logits.npy")
"""Files without whose hashes nothing is proved."""


class _MadeOn(Struct):
    cpu: Text


class Manifest(Struct):
    """What a bundle's maker says of it.

    Attributes:
        label: name of the model in tables.
        program_sha256: hash of its Program.
        tolerance: see :func:`tolerance_of`.
        images: how many there are to compare.
        made_on: the machine that made the bundle.
        sha256: of every file of the bundle but README.md and the manifest.
    """

    label: Text
    program_sha256: Sha256
    tolerance: Annotated[float, Meta(ge=0, le=REAL_TOLERANCE)]
    images: Annotated[int, Meta(ge=1, le=LARGEST)]
    made_on: _MadeOn
    sha256: dict[Name, Sha256]


def tolerance_of(program: Program) -> float:
    """Share of an image's largest logit by which runtimes may differ; 0 where the head is exact."""
    verdict = analyse(program)
    if verdict.head_exact:
        return 0.0
    exact = verdict.has_signs and verdict.body_exact
    return LOGITS_TOLERANCE if exact else REAL_TOLERANCE


def read_manifest(folder: Path) -> Manifest:
    """The bundle's manifest, after every file's hash was checked.

    Raises:
        UserError: a file is missing, too large, damaged or without a hash.
    """
    try:
        facts = json_file.parse(json_file.read_bytes(folder / "manifest.json"), Manifest)
        labels = ("labels.npy",) if (folder / "labels.npy").exists() else ()
        for name in (*CHECKED, *labels):
            if name not in facts.sha256:
                raise JsonError(f"its manifest has no hash of {name}")
        for name, expected in facts.sha256.items():
            if Path(name).name != name:
                raise UserError(f"the bundle names a file outside its folder: '{name}'")
            if hashlib.sha256(_small(folder / name)).hexdigest() != expected:
                raise UserError(f"'{folder / name}' is damaged; copy the bundle again")
    except (OSError, ValueError) as error:
        raise UserError(f"'{folder}' is no complete bundle ({error}); unpack it again") from error
    return facts


def _fits(facts: Manifest, program: Program) -> None:
    """UserError unless the manifest tells of this model, and promises what the model can keep."""
    if program_hash(program) != facts.program_sha256:
        raise UserError("manifest.json is of another model; make the bundle again")
    if facts.tolerance != tolerance_of(program):
        raise UserError(
            f"manifest.json allows a difference of {facts.tolerance:g}, this model needs "
            f"{tolerance_of(program):g}; make the bundle again"
        )


def _small(path: Path) -> bytes:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{path.name} is larger than {LARGEST >> 20} MB")
    return path.read_bytes()


def _array(folder: Path, name: str) -> NDArray[Any]:
    try:
        found = np.load(folder / f"{name}.npy", allow_pickle=False)
        if not isinstance(found, np.ndarray):  # NumPy's archives bear any name
            raise ValueError("an archive")
        return found
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"'{name}.npy' is damaged ({error}); copy the bundle again") from error


def _bundled(
    program: Program, folder: Path, facts: Manifest
) -> tuple[Images, Logits, NDArray[np.int64] | None]:
    """Images, the logits that the maker had of them, and labels if there are any."""
    images, expected = _array(folder, "images"), _array(folder, "logits")
    dtype = np.uint8 if program.input_kind == "u8" else np.float32
    if images.dtype != dtype or images.shape[1:] != program.input_shape:
        raise UserError("images.npy does not fit the model; make the bundle again")
    if len(images) != facts.images:
        raise UserError(
            f"images.npy holds {len(images)} images, the manifest names {facts.images}; make the "
            "bundle again"
        )
    if expected.shape != (len(images), len(program.classes)):
        raise UserError("logits.npy does not fit the model; make the bundle again")
    if expected.dtype != np.float32 or not np.isfinite(expected).all():
        raise UserError("logits.npy holds what no model gives; make the bundle again")
    labels = _array(folder, "labels") if (folder / "labels.npy").exists() else None
    if labels is not None and (labels.shape != (len(images),) or labels.dtype != np.int64):
        raise UserError("labels.npy does not fit the images; make the bundle again")
    return images, expected, labels


def compare(program: Program, folder: Path, facts: Manifest) -> list[dict[str, Any]]:
    """Run the bundle's images with every micro-kernel; one result each.

    Where float32 rounds, large terms that cancel may put logits further apart: then both must be
    as near to the reference here as ``verify`` asks. And a sign next to its threshold may fall
    otherwise: then the logits must be those of the reference that goes on with it, and the
    reference here that of the maker.

    Raises:
        UserError: the arrays do not fit the model.
    """
    images, expected, labels = _bundled(program, folder, facts)
    found, exact = [], analyse(program).body_exact
    for kernel in cpu.available():
        logits = Engine(program, kernel=kernel).run(images)
        well = _close(logits, expected, facts.tolerance)
        other = ~well
        if other.any() and exact:
            well[other] = _near(program, images[other], logits[other], expected[other])
        elif other.any():
            well[other] = _led(program, kernel, images[other], logits[other], facts.tolerance)
            ours = reference.run(program, images[other])
            well[other] &= _close(ours, expected[other], facts.tolerance)
        accuracy = None
        if labels is not None:
            accuracy = 100 * float((logits.argmax(axis=1) == labels).mean())
        found.append(
            {
                "kernel": kernel,
                "images": len(images),
                "logits_max_abs_diff": float(np.abs(logits - expected).max()),
                "equal": bool(well.all()),
                "constant": bool((logits == logits[0]).all() and len(images) > 1),
                "accuracy": accuracy,
            }
        )
    return found


def _close(logits: Logits, expected: Logits, tolerance: float) -> NDArray[np.bool_]:
    """Which rows are equal up to ``tolerance`` of their largest, ``[N]``."""
    apart = np.abs(logits.astype(np.float64) - expected)
    largest = np.abs(expected).max(axis=1, keepdims=True)
    return np.asarray((apart <= tolerance * largest).all(axis=1))


def _near(program: Program, images: Images, logits: Logits, expected: Logits) -> NDArray[np.bool_]:
    """Which rows of both are within what ``verify`` allows of the reference's, ``[N]``."""
    values = reference.trace(program, images)
    ours, most = values[program.ops[-1].name][:, 0, 0].astype(np.float64), allowed(program, values)
    apart = (np.abs(each - ours).max(axis=1) for each in (logits, expected))
    return np.asarray(np.logical_and.reduce([each <= most for each in apart]))


def _led(
    program: Program, kernel: str, images: Images, logits: Logits, tolerance: float
) -> NDArray[np.bool_]:
    """Which logits are those of the reference that goes on with the engine's signs, ``[N]``."""
    signs = Engine(program, kernel=kernel, keep=True).signs(images)
    return follows(program, images, signs, logits, tolerance)


def report(each: dict[str, Any], tolerance: float) -> str:
    """One line on one micro-kernel."""
    if each["constant"]:
        return f"engine:{each['kernel']}: FAILED, all images give the same logits"
    if not each["equal"]:
        return f"engine:{each['kernel']}: DIFFERS by up to {each['logits_max_abs_diff']:.3g}"
    how = "equal bit for bit" if tolerance == 0 else f"within {tolerance:g}"
    score = "" if each["accuracy"] is None else f", {each['accuracy']:.2f} % right"
    return f"engine:{each['kernel']}: {each['images']} images, logits {how}{score}"


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=50, show_default=True)
@click.option("--threads", metavar="N[,N...]", default="1", show_default=True)
@click.option("--pin", type=click.IntRange(0), metavar="CPU", help="Stay on this CPU.")
@click.option("--no-timing", is_flag=True, help="Only compare, e.g. under an emulator.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the result.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=Path(),
    help="The unpacked bundle.",
)
def main(
    rounds: int,
    threads: str,
    pin: int | None,
    no_timing: bool,
    json_file: Path | None,
    folder: Path,
) -> None:
    """Compare this board with the machine that made the bundle, then measure it.

    Example: python check.py --json result.json
    """
    try:
        names = tuple(f"engine:{kernel}" for kernel in cpu.available())
        wishes = Wishes(
            names=names, rounds=rounds, threads=thread_counts(threads), pin=pin,
            json_file=folder / "bench.json",
        )  # fmt: skip
        well = _main(folder, None if no_timing else wishes, json_file)
    except (UserError, FormatError) as error:
        raise click.ClickException(shown(str(error))) from error
    if not well:
        sys.exit(1)


def _main(folder: Path, wishes: Wishes | None, json_file: Path | None) -> bool:
    """Compare, and measure as in ``wishes``, if any; write everything to ``json_file``."""
    facts = read_manifest(folder)
    program = load_program(folder / "model.bnn")
    _fits(facts, program)
    results = compare(program, folder, facts)
    title = f"{facts.label} on {platform.machine()}, made on {facts.made_on.cpu}"
    click.echo(shown(title))
    for each in results:
        click.echo(report(each, facts.tolerance))
    well = all(each["equal"] and not each["constant"] for each in results)
    document: dict[str, Any] = {"label": facts.label, "passed": well, "kernels": results}
    if well and wishes is not None:
        document["bench"] = _measured(folder, wishes)
    if json_file is not None:
        from frostbit.pipeline.run.folder import write_bytes

        write_bytes(json_file, (json.dumps(document, indent=2) + "\n").encode())
    return well


def _measured(folder: Path, wishes: Wishes) -> dict[str, Any]:
    """Latency as ``pipeline bench`` gives it."""
    from frostbit.pipeline.bench import file as bench_file

    bench_models([folder / "model.bnn"], wishes)
    return bench_file.read(folder / "bench.json")
