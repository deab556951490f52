"""The stages as the commands run them: call, print what came out. Heavy imports inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cli_options import Failure, progress, terminal

if TYPE_CHECKING:
    from kernels.program import Program
    from pipeline.bench import Bench
    from pipeline.exporting import Choices


def train_run(
    recipe: str,
    out: Path | None,
    data_dir: Path | None,
    force: bool,
    device: str,
    settings: tuple[str, ...] = (),
    **changes: Any,
) -> Path:
    """Train and print where the run is; returns the run folder."""
    from pipeline.recipe import load

    named = {name: value for name, value in changes.items() if value is not None}
    chosen = load(recipe, {**_settings(settings), **named})
    try:
        from pipeline.train import train
    except ImportError as error:
        raise Failure(
            f"training needs {error.name}: install it with pip install 'frostbit[train]'"
        ) from error
    folder = out or Path("runs") / recipe
    console = terminal()
    from pipeline.tables import training_lines

    result = train(chosen, folder, device=device, force=force, data_dir=data_dir, console=console)
    console.print(*training_lines(result), sep="\n")
    return folder


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
    from pipeline.exporting import refuse_existing

    path = out or run / "model.bnn"
    refuse_existing(path, force)
    try:
        from pipeline.pack import pack
    except ImportError as error:
        raise Failure(f"pack needs {error.name}: pip install 'frostbit[train]'") from error
    from kernels.container import dumps
    from pipeline.run_folder import write_bytes
    from pipeline.tables import pack_table

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
    from kernels.container import load_program
    from pipeline.exporting import Choices, format_names, test_accuracy

    names = format_names(formats)
    program = load_program(model)
    choices = Choices(float_input, licence, test_accuracy(model.parent, program))
    _export(program, names, out or model.parent, choices, force=force, checked=not no_check)


def export_synthetic(
    name: str, formats: tuple[str, ...], out: Path, *, force: bool, no_check: bool
) -> None:
    """Write a standard network with random weights: model.bnn and the named formats."""
    from export.synthetic import UnknownNetwork, synthetic
    from kernels.container import dumps
    from pipeline.exporting import Choices, format_names, refuse_existing
    from pipeline.run_folder import write_bytes, writing

    names = format_names(formats)
    try:
        program = synthetic(name)
    except UnknownNetwork as error:
        raise Failure(str(error)) from error
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    refuse_existing(out / "model.bnn", force)
    data = dumps(program)
    write_bytes(out / "model.bnn", data)
    terminal().print(f"wrote {out / 'model.bnn'} ({len(data):,} bytes)")
    _export(program, names, out, Choices(), force=force, checked=not no_check)


def _export(
    program: Program,
    names: tuple[str, ...],
    out: Path,
    choices: Choices,
    *,
    force: bool,
    checked: bool,
) -> None:
    from pipeline.exporting import export

    console = terminal()
    with console.status("exporting"):
        written = export(program, names, out, choices, force=force, checked=checked)
    for each in written:
        console.print(f"wrote {each.path} ({each.bytes:,} bytes); {each.check}")


def bench_model(
    model: Path,
    *,
    names: tuple[str, ...],
    run: Path | None,
    rounds: int,
    threads: int,
    seed: int | None,
    data_dir: Path | None,
    json_file: Path | None,
) -> Bench:
    """Measure, print the table, write the JSON."""
    from kernels.container import load_program
    from pipeline import bench, run_folder, runtimes
    from pipeline.tables import bench_table

    chosen = runtimes.check_names(names)
    program = load_program(model)
    console = terminal()
    inputs = bench.inputs_for(program, data_dir, seed or 0)
    if inputs.labels is None:
        console.print(f"accuracy: not measured, random images; {inputs.remedy}")
    source = runtimes.Source(program, model.parent, run or model.parent, threads)
    ready, missing = runtimes.make(chosen, source, asked=bool(names))
    try:
        found = bench.run(
            program,
            model,
            ready,
            inputs,
            rounds=rounds,
            threads=threads,
            seed=seed or 0,
            progress=progress(),
        )
    finally:
        for runtime in ready:
            runtime.close()
    table, lines = bench_table(found, missing)
    console.print(table)
    console.print(*lines, sep="\n")
    path = json_file or model.parent / "bench.json"
    run_folder.write_bytes(path, found.to_json().encode())
    console.print(f"wrote {path}")
    return found
