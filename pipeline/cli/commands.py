"""The stages as the commands run them: call, print what came out. Heavy imports inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from frostbit.pipeline.cli.options import Failure, progress, terminal

if TYPE_CHECKING:
    from frostbit.kernels.ir.program import Program
    from frostbit.pipeline.parity.export import Choices
    from frostbit.pipeline.run.recipe import Recipe


def train_run(
    recipe: str | None,
    out: Path | None,
    resume: Path | None,
    settings: tuple[str, ...],
    compiled: bool,
    chosen: dict[str, Any],
    how: dict[str, Any],
) -> Path:
    """Train and print where the run is; returns the run folder.

    Args:
        recipe, out, resume, settings, compiled: as given on the command line.
        chosen: other fields of the recipe, None where not given.
        how: other fields of :class:`frostbit.pipeline.training.train.Options`.
    """
    named = {name: value for name, value in chosen.items() if value is not None}
    decided = _recipe(recipe, resume, {**_settings(settings), **named})
    try:
        from frostbit.pipeline.training.train import Options, train
    except ImportError as error:
        raise Failure(
            f"training needs {error.name}: install it with pip install 'frostbit[train]'"
        ) from error
    folder = out or resume or Path("runs") / _file_name(decided.name)
    if resume is not None and folder.resolve() != resume.resolve():
        raise Failure(f"--resume goes on in '{resume}' itself; leave out --out")
    console = terminal()
    from frostbit.pipeline.cli.tables import training_lines

    backend = "inductor" if compiled else None
    options = Options(resume=resume is not None, compile_backend=backend, **how)
    result = train(decided, folder, options, console)
    if result is not None:
        console.print(*training_lines(result), sep="\n")
    return folder


def _recipe(name: str | None, resume: Path | None, changes: dict[str, Any]) -> Recipe:
    """The recipe that is asked for; a resumed run keeps its own."""
    from frostbit.pipeline.run.recipe import differences, from_file, load, trust

    trust(changes.get("model", ""))
    asked = None
    if name is not None:
        asked = from_file(Path(name), changes) if name.endswith(".toml") else load(name, changes)
    saved = None if resume is None else resume / "recipe.toml"
    if saved is None or not saved.exists():
        if asked is None and resume is not None:
            raise Failure(f"'{resume}' holds no run yet: name its --recipe to start it there")
        if asked is None:
            raise Failure("name a recipe, e.g. --recipe digits, or a run with --resume RUN")
        return asked
    kept = from_file(saved, {})
    if asked is None and changes:
        asked = from_file(saved, changes)
    changed = differences(kept, asked or kept)
    if changed:
        raise Failure(f"a resumed run keeps its recipe, and {changed[0]} differs; leave it out")
    return kept


def _file_name(name: str) -> str:
    """A recipe's name as the name of its run folder: a file must not choose where to write."""
    if not name.isprintable() or name in ("", ".", "..") or set(name) & set("/\\:"):
        raise Failure(
            f"the recipe's name {name[:80]!a} is no name of a folder; give one with --out"
        )
    return name


def _settings(texts: tuple[str, ...]) -> dict[str, str]:
    """``KEY=VALUE`` texts as a dictionary; the recipe checks names and values."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise Failure(f"--set takes KEY=VALUE, not '{text}'; e.g. --set width=48")
        found[key] = value
    return found


def pack_run(run: Path, out: Path | None, force: bool) -> Path:
    """Pack ``run``, print the table; returns the path of the model."""
    from frostbit.pipeline.parity.export import refuse_existing

    path = out or run / "model.bnn"
    refuse_existing(path, force)
    try:
        from frostbit.pipeline.lowering.pack import pack
    except ImportError as error:
        raise Failure(f"pack needs {error.name}: pip install 'frostbit[train]'") from error
    from frostbit.kernels.ir.file import dumps
    from frostbit.pipeline.cli.tables import pack_table
    from frostbit.pipeline.run.folder import write_bytes

    program = pack(run)
    data = dumps(program)
    write_bytes(path, data)
    table, lines = pack_table(program, len(data))
    console = terminal()
    console.print(table)
    console.print(*lines, sep="\n")
    console.print(f"wrote {path}")
    return path


def export_model(
    model: Path,
    formats: tuple[str, ...] = (),
    out: Path | None = None,
    *,
    force: bool,
    no_check: bool = False,
    float_input: bool = False,
    licence: str = "",
) -> None:
    """Export a packed model, check the files and say what was written."""
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.parity.export import Choices, format_names, test_accuracy

    names = format_names(formats)
    program = load_program(model)
    choices = Choices(float_input, licence, test_accuracy(model.parent, program))
    _export(program, names, out or model.parent, choices, force=force, checked=not no_check)


def _synthetic(name: str) -> Program:
    """The standard network ``name`` with random weights."""
    from frostbit.export.synthetic.networks import UnknownNetwork, synthetic

    try:
        return synthetic(name)
    except UnknownNetwork as error:
        raise Failure(str(error)) from error


def export_synthetic(
    name: str,
    formats: tuple[str, ...],
    out: Path,
    *,
    force: bool,
    no_check: bool,
    float_input: bool = False,
    licence: str = "",
) -> None:
    """Write a standard network with random weights: model.bnn and the named formats."""
    from frostbit.kernels.ir.file import dumps
    from frostbit.pipeline.parity.export import FORMATS, Choices, format_names, refuse_existing
    from frostbit.pipeline.run.folder import write_bytes, writing

    names = format_names(formats)
    program = _synthetic(name)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for file in ("model.bnn", *(FORMATS[each].file for each in names)):
        refuse_existing(out / file, force)
    data = dumps(program)
    write_bytes(out / "model.bnn", data)
    terminal().print(f"wrote {out / 'model.bnn'} ({len(data):,} bytes)")
    choices = Choices(float_input, licence)
    _export(program, names, out, choices, force=force, checked=not no_check)


def verify_model(
    model: Path | None,
    synthetic: str | None,
    formats: tuple[str, ...],
    run: Path | None,
    where: str | None,
    data_dir: Path | None,
    images: int | None,
    seed: int,
    json_file: Path | None,
) -> bool:
    """Compare everything that runs the model, print the table; returns whether all agrees.

    Args:
        model, synthetic: one of both: a packed model, or the name of a standard network.
        formats, run, where, data_dir, images, seed, json_file: as given on the command line.
    """
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.parity import runtimes
    from frostbit.pipeline.parity import verify as verifying
    from frostbit.pipeline.run import folder as run_folder

    names = verifying.check_formats(formats)
    if json_file is not None:
        run_folder.require_writable(json_file.parent)
    program = _synthetic(str(synthetic)) if model is None else load_program(model)
    inputs = verifying.choose_inputs(program, where, data_dir, images, seed)
    folder = None if model is None else model.parent
    source = runtimes.Source(program, folder, run or folder)
    asked = bool(formats) or run is not None
    found = verifying.verify(source, names, inputs, progress()("parity"), asked=asked)
    table, lines = verifying.verify_table(found)
    terminal().print(table, *lines, sep="\n")
    if json_file is not None:
        run_folder.write_bytes(json_file, found.to_json().encode())
        terminal().print(f"wrote {json_file}")
    return found.report.passed


def _export(
    program: Program,
    names: tuple[str, ...],
    out: Path,
    choices: Choices,
    *,
    force: bool,
    checked: bool,
) -> None:
    from frostbit.pipeline.parity.export import export, size_table

    console, written = terminal(), []
    made = export(program, names, out, choices, force=force, checked=checked)
    for _ in progress()("exporting")(range(len(names))):
        written.append(next(made))
        each = written[-1]
        console.print(f"wrote {each.path} ({each.bytes:,} bytes); {each.check}")
    console.print(size_table(program, written))


def warm_cache() -> None:
    """Compile the engine into Numba's cache folder, e.g. while an image is built."""
    import time

    import numpy as np

    from frostbit.export.synthetic.networks import synthetic
    from frostbit.kernels.engine import Engine
    from frostbit.kernels.machine.jit import cache_folder

    program = synthetic("resnet18@32")
    start = time.perf_counter()
    Engine(program).run(np.zeros((1, *program.input_shape), np.uint8))
    where = cache_folder() or "memory only: there is no folder to write to"
    terminal().print(f"engine ready after {time.perf_counter() - start:.1f} s; cache: {where}")


def run_experiment(name: str, out: Path | None, jobs: int | None, data_dir: Path | None) -> None:
    """Run a grid and print its means."""
    try:
        from frostbit.pipeline.experiments import grid as experiments_grid
        from frostbit.pipeline.training.reproducibility import thread_count
    except ImportError as error:
        raise Failure(
            f"experiments need {error.name}: install it with pip install 'frostbit[train]'"
        ) from error
    from frostbit.pipeline.cli.tables import experiment_table

    grid = experiments_grid.load(name)
    folder = out or Path("runs") / "experiments" / grid.name
    console = terminal()
    record = experiments_grid.run(grid, folder, jobs or thread_count(), data_dir, console)
    console.print(experiment_table(record))
    console.print(f"wrote {folder / grid.name}.json and .png")
