"""``python -m tests.reliability``: everything at full length, into ``docs/reliability.md``."""

from __future__ import annotations

import json
import platform
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from frostbit.pipeline import machine
from frostbit.pipeline.run.folder import write_bytes
from tests import ROOT
from tests.reliability import engines, fuzz, guard, interrupts, kills, mutations, networks

HEAD = """# Behaviour under fault

Written by `make reliability` on {cpu}, {system}, Python {python}
(`python -m tests.reliability --only PART` renews a row). The tests run shorter versions of all of
it (`tests/reliability/`).

| what | tried | result | time |
|---|---|---|---|
"""
TAIL = """
**Kills.** A training of the digits recipe (8 channels, 6 epochs, a checkpoint every 2 steps) gets
SIGKILL at random moments, every second one as soon as a checkpoint's temporary file is seen. The
same command with `--resume` follows, until one ends by itself. Survived means: trained and settled
weights, metrics and `model.bnn` have the bytes of the training that nobody killed, and nothing
half-written is left.

**Mutations** are drawn by Hypothesis. `model.bnn`: flipped bits, cuts, insertions, and edits of
header fields and weights whose checksum was made right again, so that they reach the checks behind
it. "Right" means loaded and equal to the original, or another valid model on which the engine
agrees with the NumPy reference: bit for bit where it is exact by proof, within the tolerance of
`verify` where only the head or nothing but real values is left. .tflite: flipped bits, cuts,
insertions, and numbers of its tables; "right" means that every layer equals the source's in Larq
Compute Engine, "refused" is by the reader or by it. ONNX and QONNX: the same, and changes of
operators, what they read, attributes, sizes and constants, beside ONNX Runtime or the qonnx
package; a sign of 0 is refused too. "Not exact" are edited models in
which float32 may round a value to the other side of a sign: there shape and finiteness count, and
models with more than 65,536 values in one map are planned and not run. Run folders: run.json,
recipe, metrics and weights are changed, checksums made right, and the run is packed. Every file
has {seconds:g} s of processor time and all of them together {megabytes} MB more than the process
had (RLIMIT_AS); one that needs more, or raises anything but our error of one line, fails the run.

**Networks** are drawn by Hypothesis out of `docs/what-converts.md`: structure, arguments and ways
to write them. Each is converted, its BatchNorm drawn, frozen, settled and packed. Before freezing
it must compute what the user's does (with clip as activation, so that no argument is lost), folded
what the frozen one does (both in float64, to 1e-9 of the largest logit), and packed, by the NumPy
reference and the engine, what the settled one does: all sign bits, and the logits. Its weights must
be such that a checkpoint can hold them. Anything that is refused fails the run, but for what only
the numbers spoil (`numerical`, see `docs/training.md`).

**Together.** Processes start on an empty shared cache folder, so that all compile at once; in
each, half of the threads share one engine and half have their own.

**Exceptions in the middle of a call.** A timer's handler raises at random moments of `run` (a
batch, one image), `time_steps` and `signs`, half of the time once more while the first exception
is on its way; then one image and a part of the batch are compared with the right logits. The time
from signal to exception is that of a batch of {large:,} images, which would take a minute.

**One engine.** A machine whose clock changes within the run moves the first of the two ratios; the
second compares with a fresh engine in turns, so both meet the same clock.

**Mutations of the code.** `make mutations` changes one constant or comparison at a time in
settling, the freezer and the picture of freezing, {mutations} in all, and runs the tests that own
the file: they notice every one.

Also tested: SIGTERM and Ctrl-C write a checkpoint (exit status 143 and 130), a full disk (a small
file system of its own) leaves the last good files, a damaged checkpoint gives way to the older
one, and a killed worker of `torchrun` is restarted and goes on from the checkpoint
(`tests/reliability/test_disk.py`, `tests/pipeline/training/test_resume.py`, `test_train.py`,
`test_elastic.py`).
"""


THREADS = (1, 2, 4)
PARTS = (
    "models", "tflite", "onnx", "networks", "recipes", "pictures", "runs", "kills", "together",
    "interrupts", "fork", "long",
)  # fmt: skip
PAGE, RECORD = ROOT / "docs" / "reliability.md", ROOT / "docs" / "reliability.json"


@dataclass(frozen=True)
class Sizes:
    """How often each part is done."""

    models: int
    tflite: int
    onnx: int
    others: int
    runs: int
    networks: int
    kills: int
    seconds: float
    interrupts: int
    inferences: int
    seed: int


def parts(sizes: Sizes, place: Path) -> dict[str, tuple[str, str, Callable[[], str]]]:
    """What, how often, and the function that does it, by the names of :data:`PARTS`."""
    many, seed = f"{sizes.others:,}", sizes.seed
    crowd = f"{engines.THREADS} threads x {engines.PROCESSES} processes at once"
    return {
        "models": (
            "mutated `model.bnn`",
            f"{sizes.models:,}",
            lambda: _fuzzed(fuzz.fuzz_models(sizes.models, seed)),
        ),
        "tflite": (
            "mutated .tflite files, read and run beside Larq Compute Engine",
            f"{sizes.tflite:,}",
            lambda: _fuzzed(fuzz.fuzz_tflite(sizes.tflite, seed)),
        ),
        "onnx": (
            "mutated ONNX and QONNX files, read and run beside ONNX Runtime or qonnx",
            f"{sizes.onnx:,}",
            lambda: _fuzzed(fuzz.fuzz_onnx(sizes.onnx, seed)),
        ),
        "networks": (
            "random networks of what converts",
            f"{sizes.networks:,}",
            lambda: networks.converted(sizes.networks, seed).row(),
        ),
        "recipes": (
            "mutated recipes",
            many,
            lambda: _fuzzed(fuzz.fuzz_recipes(sizes.others, seed)),
        ),
        "pictures": (
            "mutated pictures",
            many,
            lambda: _fuzzed(fuzz.fuzz_pictures(sizes.others, place, seed)),
        ),
        "runs": (
            "mutated run folders",
            f"{sizes.runs:,}",
            lambda: _fuzzed(fuzz.fuzz_runs(sizes.runs, place / "fuzz", seed)),
        ),
        "kills": (
            "SIGKILL while training",
            f"{sizes.kills}",
            lambda: _killed(place, sizes.kills, seed),
        ),
        "together": (crowd, f"{sizes.seconds:.0f} s", lambda: _crowd(place, sizes.seconds)),
        "interrupts": (
            "exceptions raised in the middle of a call, "
            f"{', '.join(map(str, THREADS[:-1]))} and {THREADS[-1]} threads",
            f"{sizes.interrupts:,} calls each",
            lambda: _interrupted(sizes.interrupts, seed),
        ),
        "fork": ("fork after use, 1 and 2 threads", "2", _forked),
        "long": (
            "one engine, one image at a time",
            f"{sizes.inferences:,}",
            lambda: _long(sizes.inferences),
        ),
    }


@click.command()
@click.option("--kills", default=30, show_default=True)
@click.option("--models", default=20_000, show_default=True, help="Mutated model.bnn.")
@click.option("--tflite", default=3_000, show_default=True, help="Mutated .tflite files.")
@click.option("--onnx", default=3_000, show_default=True, help="Mutated ONNX and QONNX files.")
@click.option("--others", default=2_000, show_default=True, help="Mutated recipes, and pictures.")
@click.option("--runs", default=500, show_default=True, help="Mutated run folders.")
@click.option("--networks", default=2_000, show_default=True, help="Random torch networks.")
@click.option("--seconds", default=60.0, show_default=True, help="Of many engines at once.")
@click.option("--interrupts", default=10_000, show_default=True, help="Calls, per threads.")
@click.option("--inferences", default=1_000_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--only", multiple=True, type=click.Choice(PARTS), help="Renew these rows [all].")
@click.option("--dry", is_flag=True, help="Write nothing.")
def main(only: tuple[str, ...], dry: bool, **numbers: Any) -> None:
    """Run everything; a row is written only if its part did not fail.

    Example: python -m tests.reliability --only kills --only long
    """
    with tempfile.TemporaryDirectory() as folder:
        known = parts(Sizes(**numbers), Path(folder))
        for name in only or PARTS:
            what, tried, run = known[name]
            start = time.monotonic()
            result = run()
            row = f"| {what} | {tried} | {result} | {time.monotonic() - start:.0f} s |"
            click.echo(row)
            if not dry:
                _write(name, row)


def _write(name: str, row: str) -> None:
    """Put a row into the record and write the page anew."""
    rows = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    rows[name] = row
    write_bytes(RECORD, (json.dumps(rows, indent=2) + "\n").encode())
    head = HEAD.format(
        cpu=machine.cpu_model(), system=platform.machine(), python=platform.python_version()
    )
    tail = TAIL.format(
        seconds=guard.SECONDS,
        megabytes=guard.MEGABYTES,
        large=interrupts.LARGE,
        mutations=len(mutations.MUTATIONS),
    )
    lines = [rows[each] for each in PARTS if each in rows]
    write_bytes(PAGE, (head + "\n".join(lines) + "\n" + tail).encode())


def _fuzzed(found: fuzz.Fuzzed) -> str:
    assert found.wrong == 0, found
    loose = f" ({found.loose:,} of them not exact)" if found.loose else ""
    return (
        f"{found.tried:,} tried: {found.rejected:,} refused, {found.accepted:,} right{loose}, "
        f"{found.wrong} wrong; slowest {found.slowest:.2f} s, memory +{found.grown:.0f} MB"
    )


def _killed(place: Path, count: int, seed: int) -> str:
    found = kills.survive(place / "kills", count, seed)
    assert found.equal == found.trainings, found
    return (
        f"{found.tried} of {found.tried} kills survived ({found.in_writing} while a checkpoint was "
        f"written); {found.equal} of {found.trainings} trainings ended with equal bytes"
    )


def _crowd(place: Path, seconds: float) -> str:
    found = engines.together(place / "cache", seconds)
    assert found.answers == 1, found
    return f"{found.inferences:,} inferences, one answer, no thread left over"


def _interrupted(calls: int, seed: int) -> str:
    found = [interrupts.interrupts(threads, calls, seed) for threads in THREADS]
    assert not any(each.wrong for each in found), found
    assert all(each.hit > calls / 20 for each in found), found
    slowest = max(max(each.waits) for each in found)
    return (
        f"{sum(each.hit for each in found):,} calls interrupted; of "
        f"{sum(each.answers for each in found):,} answers afterwards 0 wrong; the exception came "
        f"{1000 * slowest:.0f} ms after the signal at most"
    )


def _forked() -> str:
    found = engines.after_fork()
    assert found == "equal", found
    return found


def _long(count: int) -> str:
    found = engines.long_run(count)
    assert found.leak_mb < 1, found
    steady = [found.last_over_first, found.old_over_fresh]
    assert any(0.95 <= ratio <= 1.05 for ratio in steady), found
    return (
        f"memory {found.leak_mb:+.2f} MB, slope {found.slope_mb:+.2f} MB a million; median of the "
        f"last tenth over the first {steady[0]:.3f}, over a fresh engine's beside it "
        f"{steady[1]:.3f}"
    )


if __name__ == "__main__":
    main()
