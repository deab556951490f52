"""``pipeline bench`` as the command runs it: make the runtimes, measure, print, write."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.export.runtimes import Images, Timed
    from frostbit.kernels.ir.program import Program
    from frostbit.pipeline.bench.measure import Bench, Model
    from frostbit.pipeline.bench.profiling import Profile
    from frostbit.pipeline.data.inputs import Inputs, Place
    from frostbit.pipeline.parity.runtimes import Missing


def thread_counts(text: str) -> tuple[int, ...]:
    """``1,2,4`` as numbers, ``auto`` as that of the cores; UserError if it is no such list."""
    from frostbit.kernels.machine.cpu import available_cores
    from frostbit.kernels.machine.threads import MOST

    words = [word.strip() for word in text.split(",")]
    words = [str(available_cores()) if word == "auto" else word for word in words]
    short = [word for word in words if len(word) < 5 and word.isascii() and word.isdecimal()]
    counts = tuple(map(int, short))
    if len(counts) != len(words) or not all(1 <= each <= MOST for each in counts):
        wanted = f"numbers from 1 to {MOST}, as in 1,2, or auto"
        raise UserError(f"--threads '{text[:40]}': write {wanted}")
    if len(set(counts)) != len(counts):
        raise UserError(f"--threads '{text[:40]}' names a number twice; name each once, as in 1,2")
    return counts


@dataclass(frozen=True)
class Wishes:
    """What a person asked of a benchmark; the fields are the command's options.

    Attributes:
        source: the file that the model was imported from.
        names: runtimes; none means the usual ones.
        run: run folder of the model, for torch; None: the model's own folder.
        threads: of every runtime that has threads; all of these numbers, in turns.
        pin: CPU to stay on; None leaves it to the system.
        estimates: with ``profile``: static estimates for other CPUs too.
        allowed: percent by which a runtime may be slower than ``baseline``.
    """

    names: tuple[str, ...] = ()
    run: Path | None = None
    rounds: int = 50
    threads: tuple[int, ...] = (1,)
    batch: int = 1
    seed: int = 0
    data_dir: Path | None = None
    skip_corrupt: bool = False
    pin: int | None = None
    json_file: Path | None = None
    markdown: Path | None = None
    profile: bool = False
    estimates: bool = False
    source: Path | None = None
    baseline: Path | None = None
    allowed: float = 5.0

    def place(self, model: Path) -> Place:
        """Where the data of ``model`` is."""
        from frostbit.pipeline.data.inputs import Place

        return Place(self.data_dir, self.skip_corrupt, self.run or model.parent)


def bench_models(files: Sequence[Path], wishes: Wishes) -> tuple[Bench, bool]:
    """Measure packed models side by side; returns the figures and whether all is well."""
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.bench.file import labels

    programs = [load_program(path) for path in files]
    return _bench(dict(zip(labels(files), zip(files, programs, strict=True), strict=True)), wishes)


def bench_synthetic(name: str, wishes: Wishes) -> tuple[Bench, bool]:
    """Measure a standard network with random weights; its model lives in a temporary folder."""
    from frostbit.export.synthetic.networks import synthetic
    from frostbit.kernels.ir.file import save_program

    program = synthetic(name)
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model.bnn"
        save_program(program, model)
        out = wishes.json_file or Path(f"{name}.json")
        return _bench({name: (model, program)}, replace(wishes, json_file=out))


def _bench(models: dict[str, tuple[Path, Program]], wishes: Wishes) -> tuple[Bench, bool]:
    from frostbit.pipeline.bench import baseline
    from frostbit.pipeline.bench import file as bench_file
    from frostbit.pipeline.bench import measure as bench
    from frostbit.pipeline.parity import runtimes

    names = runtimes.check_names(wishes.names)
    before = None if wishes.baseline is None else bench_file.read(wishes.baseline)
    _pin(wishes.pin)
    ready: list[Model] = []
    missing: list[Missing] = []
    try:
        for label, (path, program) in models.items():
            ready.append(_model(label, path, program, names, wishes, missing))
        if not any(model.entrants for model in ready):
            raise UserError(f"nothing can be measured: {runtimes.together(missing)}")
        found = bench.run(
            ready,
            rounds=wishes.rounds,
            seed=wishes.seed,
            batch=wishes.batch,
            progress=progress(),
        )
    finally:
        for model in ready:
            for entrant in model.entrants:
                entrant.runtime.close()
    if wishes.profile:
        found = replace(
            found, profile=_profiled(ready[0].program, ready[0].inputs.images[0], wishes)
        )
    well = found.passed
    _show(found, missing)
    if before is not None:
        verdicts, warning = baseline.compare(found, before, wishes.allowed)
        terminal().print(*([warning] if warning else []), *map(str, verdicts), sep="\n")
        compared = any(each.ratio is not None for each in verdicts)
        if not compared:
            terminal().print("FAILED: the baseline holds none of these models and runtimes")
        well = well and compared and not any(each.regressed for each in verdicts)
    _write(found, next(iter(models.values()))[0], len(models), wishes)
    return found, well


def _model(
    label: str,
    path: Path,
    program: Program,
    names: tuple[str, ...],
    wishes: Wishes,
    missing: list[Missing],
) -> Model:
    from frostbit.pipeline.bench import measure as bench
    from frostbit.pipeline.data.inputs import inputs_for
    from frostbit.pipeline.parity import runtimes

    inputs = inputs_for(program, wishes.place(path), wishes.seed, bars=progress())
    if inputs.labels is None:
        terminal().print(f"accuracy: not measured, random images; {inputs.remedy}")
    for note in inputs.notes:
        terminal().print(note)
    entrants: list[bench.Entrant] = []
    for threads in wishes.threads:
        source = runtimes.Source(program, path.parent, wishes.run or path.parent, threads)
        more = [name for name in names if not entrants or name not in runtimes.ONE_THREAD]
        made, absent = runtimes.make(more, source, asked=bool(wishes.names))
        missing += [each for each in absent if each not in missing]
        for each in [*made, *_sources(program, inputs, wishes, threads, missing)]:
            alone = each.name in runtimes.ONE_THREAD
            entrants.append(bench.Entrant(each, 1 if alone else threads))
    return bench.Model(label, path, program, tuple(entrants), inputs)


def _sources(
    program: Program, inputs: Inputs, wishes: Wishes, threads: int, missing: list[Missing]
) -> list[Timed]:
    """The runtimes of ``--source``."""
    if wishes.source is None:
        return []
    from frostbit.export.errors import RuntimeMissing
    from frostbit.pipeline.bench.source import source_runtimes
    from frostbit.pipeline.parity.runtimes import Missing

    try:
        found, line = source_runtimes(wishes.source, program, inputs.images, threads)
    except RuntimeMissing as error:
        absent = Missing(f"source {wishes.source.name}", str(error))
        missing += [absent] if absent not in missing else []
        return []
    if threads == wishes.threads[0]:
        terminal().print(line)
    return found


def _pin(cpu: int | None) -> None:
    """Keep this process, and what it starts, on one CPU."""
    if cpu is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        raise UserError("--pin needs Linux; leave it out")
    usable = sorted(os.sched_getaffinity(0))
    if cpu not in usable:
        raise UserError(f"there is no CPU {cpu} to pin to; this process may use {usable}")
    os.sched_setaffinity(0, {cpu})


def _show(found: Bench, missing: list[Missing]) -> None:
    from frostbit.pipeline.bench.table import bench_table

    tables, lines = bench_table(found, missing)
    console = terminal()
    for table in tables:
        console.print(table)
    console.print(*lines, sep="\n")


def _write(found: Bench, first: Path, count: int, wishes: Wishes) -> None:
    from frostbit.pipeline.bench.table import bench_markdown
    from frostbit.pipeline.run import folder as run_folder

    beside = first.parent / "bench.json" if count == 1 else Path("bench.json")
    written = {wishes.json_file or beside: found.to_json()}
    if wishes.markdown is not None:
        written[wishes.markdown] = bench_markdown(found)
    for path, text in written.items():
        run_folder.write_bytes(path, text.encode())
        terminal().print(f"wrote {path}")


def _profiled(program: Program, image: Images, wishes: Wishes) -> dict[str, object]:
    """Print where the engine's time goes; returns it for the JSON."""
    from frostbit.kernels.engine import Engine
    from frostbit.pipeline.bench import profiling

    console = terminal()
    with console.status("profiling"):
        found = profiling.measure(Engine(program), image, wishes.rounds)
    table, lines = profiling.table(found)
    console.print(table)
    console.print(*lines, sep="\n")
    document = found.to_json()
    if wishes.estimates:
        document["static_estimates"] = _estimated(found)
    return document


def _estimated(found: Profile) -> list[dict[str, object]]:
    """Print what the counting loop would take on other CPUs; returns it for the JSON."""
    from frostbit.pipeline.bench import static_estimate

    console = terminal()
    try:
        with console.status("static estimates"):
            estimates = static_estimate.estimates(found.kernel)
    except static_estimate.EstimateMissing as error:
        console.print(f"static estimates: {error}")
        return []
    macs = sum(line.step.binary_macs for line in found.lines)
    rates = [line.macs_per_cycle or 0.0 for line in found.lines if line.step.binary_macs]
    console.print(static_estimate.table(estimates, macs, max(rates, default=0.0)))
    return static_estimate.to_json(estimates)
