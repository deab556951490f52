"""``pipeline export``: a packed model, or a standard network, for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from frostbit.pipeline.cli.options import EXISTING_FILE, FOLDER, out_options
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.kernels.ir.program import Program
    from frostbit.pipeline.parity.export import Choices


def _prefix(asked: str | None, formats: tuple[str, ...]) -> str:
    """How names in C begin; UserError if a person asked for it and for no C."""
    from frostbit.export.c.header import PREFIX, check_prefix

    if asked is not None and "c" not in formats:
        raise UserError("--prefix is about names in C: add --format c, or leave it out")
    prefix = PREFIX if asked is None else asked
    check_prefix(prefix)
    return prefix


def _engine_latency(folder: Path, program: Program) -> str:
    """The engine's latency in the bench.json of ``folder``; "" if there is none of ``program``."""
    from frostbit.kernels.ir.file import program_hash
    from frostbit.pipeline.bench import file as bench_file

    try:
        found = bench_file.of_model(folder / "bench.json", program_hash(program))
    except UserError:
        return ""
    return bench_file.engine_latency(found)


def export_model(
    model: Path,
    formats: tuple[str, ...] = (),
    out: Path | None = None,
    *,
    force: bool,
    no_check: bool = False,
    float_input: bool = False,
    licence: str = "",
    prefix: str | None = None,
) -> None:
    """Export a packed model, check the files and say what was written."""
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.parity.export import Choices, format_names, test_accuracy

    names = format_names(formats)
    program = load_program(model)
    accuracy = test_accuracy(model.parent, program)
    measured = _engine_latency(model.parent, program)
    choices = Choices(float_input, licence, accuracy, _prefix(prefix, names), measured)
    _export(program, names, out or model.parent, choices, force=force, checked=not no_check)


def export_synthetic(
    name: str,
    formats: tuple[str, ...],
    out: Path,
    *,
    force: bool,
    no_check: bool,
    float_input: bool = False,
    licence: str = "",
    prefix: str | None = None,
) -> None:
    """Write a standard network with random weights: model.bnn and the named formats."""
    from frostbit.export.synthetic.networks import synthetic
    from frostbit.kernels.ir.file import dumps
    from frostbit.pipeline.parity.export import KNOWN, Choices, format_names
    from frostbit.pipeline.run.folder import refuse_existing, write_bytes, writing

    names = format_names(formats)
    program = synthetic(name)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    choices = Choices(float_input, licence, prefix=_prefix(prefix, names))
    files = [file for each in names for file in KNOWN[each].files(choices)]
    for file in ("model.bnn", *files):
        refuse_existing(out / file, force)
    data = dumps(program)
    write_bytes(out / "model.bnn", data)
    terminal().print(f"wrote {out / 'model.bnn'} ({len(data):,} bytes)")
    _export(program, names, out, choices, force=force, checked=not no_check)


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


@click.command(name="export")
@click.argument("model", type=EXISTING_FILE, required=False)
@click.option(
    "--format",
    "--formats",
    "formats",
    multiple=True,
    help="onnx, lce, onnx-int8, onnx-float, qonnx, c, all of these, or web; commas or repeated "
    "[default: onnx,lce].",
)
@out_options(FOLDER, "Folder to write to [default: the model's].")
@click.option("--synthetic", help="Instead of MODEL: random weights, e.g. resnet18@224.")
@click.option("--float-input", is_flag=True, help="ONNX input float32 NCHW, not uint8 NHWC.")
@click.option("--licence", default="", help="Licence of the weights, for ONNX metadata.")
@click.option("--prefix", help="How names in the C file begin [default: frostbit].")
@click.option("--no-check", is_flag=True, help="Do not run the files in their runtimes.")
def export_command(
    model: Path | None, synthetic: str | None, out: Path | None, **options: Any
) -> None:
    """Export a packed model to other runtimes, and run each file there to check it.

    Example: pipeline export runs/digits/model.bnn --format onnx
    """
    if (model is None) == (synthetic is None):
        raise UserError("name either a model file or --synthetic NETWORK, as in --help")
    if model is not None:
        export_model(model, out=out, **options)
        return
    export_synthetic(str(synthetic), out=out or Path(str(synthetic)), **options)
