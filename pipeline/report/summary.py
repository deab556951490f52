"""``pipeline summary``: what a model file holds and costs, whatever its format.

The contents decide the format, not only the name: TFLite files have a mark, a .bnn begins with
the JSON header of safetensors, anything else is taken for ONNX if it is named so or begins like
one. The figures are those of :mod:`frostbit.export.summary`; here they become a table and lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.export.summary import Layer, Summary
    from frostbit.kernels.ir.exact import Exactness
    from frostbit.kernels.ir.program import Program

MAX_FILE_BYTES = 2 << 30
HEAD = 16
"""Bytes that tell a format."""
MOST_ROWS = 400
"""Layers in a table: a terminal needs a second for them, and nobody reads more."""
_READS = "summary reads .bnn, .onnx and .tflite files and run folders"


def layer_table(summary: Summary, title: str) -> Table:
    """One row per layer, totals last; a column for every precision that occurs, 1 and 32 always.

    Of more than :data:`MOST_ROWS` layers the first ones are shown; the totals are those of all.
    """
    parameter_bits, mac_bits = summary.parameter_bits, summary.mac_bits
    table = Table(title=title, title_justify="left")
    for name in ("layer", "op"):
        table.add_column(name)
    for name in ("in bits", "output", *(f"{bits}-bit" for bits in parameter_bits), "bytes"):
        table.add_column(name, justify="right")
    for bits in mac_bits:
        table.add_column(f"{bits}-bit MACs", justify="right")

    def counts(parameters: Mapping[int, int], size: int, macs: Mapping[int, int]) -> list[str]:
        numbers = [parameters.get(bits, 0) for bits in parameter_bits]
        numbers += [size, *(macs.get(bits, 0) for bits in mac_bits)]
        return [f"{number:,}" if number else "" for number in numbers]

    for layer in summary.layers[:MOST_ROWS]:
        table.add_row(
            layer.name, layer.op, *_in_and_out(layer),
            *counts(layer.parameters, layer.bytes, layer.macs),
        )  # fmt: skip
    if len(summary.layers) > MOST_ROWS:
        table.add_row(f"and {len(summary.layers) - MOST_ROWS:,} more layers")
    table.add_section()
    totals = counts(summary.parameters, summary.parameter_bytes, summary.macs)
    table.add_row("total", "", "", "", *totals)
    return table


def _in_and_out(layer: Layer) -> tuple[str, str]:
    width = "" if layer.input_bits is None else str(layer.input_bits)
    shape = "?" if layer.output is None else "x".join(str(size) for size in layer.output)
    return width, shape


def summary_lines(summary: Summary) -> list[str]:
    """What stands under the table: sizes, equivalents, MACs, and what was not counted."""
    counts = ", ".join(f"{count:,} {bits}-bit" for bits, count in summary.parameters.items())
    size = summary.parameter_bytes
    rest = summary.file_bytes - size
    lines = [
        f"{counts or 'no'} parameters",
        f"file {summary.file_bytes:,} bytes: parameters {size:,}, "
        f"graph, names and tables {max(rest, 0):,}",
        f"8-bit equivalent {summary.eight_bit_bytes:,} bytes (parameters above 8 bits in 8)",
        f"float equivalent {summary.float_bytes:,} bytes (all parameters in 32 bits), "
        f"{summary.float_bytes / max(summary.file_bytes, 1):.1f} times the file",
    ]
    share = summary.binary_share
    if share is None:
        lines.append("no multiply-accumulates")
    else:
        total = sum(summary.macs.values())
        lines.append(f"{total:,} MACs for one image, {100 * share:.1f} % of them binarized")
    return [*lines, *(f"note: {note}" for note in summary.notes)]


def _kind(path: Path, head: bytes) -> str:
    """Format of a file that begins with ``head``; UserError if it is none of ours."""
    if head[4:8] == b"TFL3":
        return "tflite"
    if head[8:9] == b"{":
        return "bnn"
    named = path.suffix.lower()[1:]
    if named in ("bnn", "onnx", "tflite"):
        return named
    if head[:1] == b"\x08":  # ir_version, the first field of ONNX
        return "onnx"
    raise UserError(f"'{path}' is no model that Frostbit knows; {_READS}")


def _head(path: Path) -> bytes:
    """The first bytes of a file; UserError if it cannot be read."""
    try:
        if not path.is_file():
            missing = "is not a file" if path.exists() else "does not exist"
            raise UserError(f"'{path}' {missing}; {_READS}")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise UserError(f"'{path}' has more than {MAX_FILE_BYTES:,} bytes; {_READS}")
        with path.open("rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from error


def _of_file(path: Path) -> Summary:
    """Summary of a model file; errors as of :func:`summarise`."""
    from frostbit.export.bounded import summarise_file
    from frostbit.export.errors import ExportError
    from frostbit.export.summary import summarise_program
    from frostbit.kernels.ir.file import load_program

    kind = _kind(path, _head(path))
    if kind == "bnn":
        return summarise_program(load_program(path), path.stat().st_size)
    try:
        return summarise_file(kind, path)
    except ImportError as error:
        raise UserError(
            f"this summary needs {error.name}: install it with pip install 'frostbit[export]'"
        ) from error
    except ExportError as error:
        raise ExportError(f"{path}: {error}") from error


def _of_run(folder: Path) -> Summary:
    """Summary of a run: its model.bnn if that is up to date, else packed in memory."""
    from frostbit.export.summary import summarise_program
    from frostbit.kernels.ir.file import dumps, load_program
    from frostbit.pipeline.run.folder import read_run

    run = read_run(folder)
    model = folder / "model.bnn"
    if model.is_file():
        program = load_program(model)
        if program.settled_hash == run.facts.get("settled_hash"):
            return summarise_program(program, model.stat().st_size)
    try:
        from frostbit.pipeline.lowering.pack import packed
    except ImportError as error:
        raise UserError(
            f"a run that is not packed needs {error.name}: pip install 'frostbit[train]', or name "
            "its model.bnn"
        ) from error
    program = packed(folder)
    return summarise_program(program, len(dumps(program)))


def summarise(path: Path) -> Summary:
    """Summary of a model file or run folder.

    Raises:
        UserError: missing or unreadable, unknown, or a package is not installed.
        FormatError, ExportError: damaged; the text begins with the path.
    """
    return _of_run(path) if path.is_dir() else _of_file(path)


def summary_of(path: Path) -> tuple[Table, list[str]]:
    """Table of the layers of a model file or run folder, and the lines under it.

    Raises:
        UserError, FormatError, ExportError: as :func:`summarise`.
    """
    found = summarise(path)
    return layer_table(found, f"{path.name or path}: {found.format}"), summary_lines(found)


def exactness_line(verdict: Exactness) -> str:
    """One sentence on what :mod:`frostbit.kernels.ir.exact` proves of a model."""
    if not verdict.has_signs:
        return "binary weights only: no sign bits; logits agree within 1e-4"
    if not verdict.body_exact:
        return f"not exact: float32 rounds at '{verdict.tightest}', runtimes may differ"
    head = "logits exact too" if verdict.head_exact else "logits within 1e-5"
    return (
        f"sign bits exact on every runtime: grid 2^-{verdict.exponent}, "
        f"largest value {verdict.bound:.1f}, {verdict.bits_left:.1f} bits left; {head}"
    )


def pack_table(program: Program, file_bytes: int) -> tuple[Table, list[str]]:
    """Per-layer table of ``program`` and the lines under it (totals, ratio, exactness)."""
    from frostbit.export.summary import summarise_program
    from frostbit.kernels.ir.exact import analyse

    found = summarise_program(program, file_bytes)
    counts, macs = found.parameters, sum(found.macs.values())
    full = sum(bits * count for bits, count in counts.items() if bits > 1) / 8
    shown = ", ".join(f"{counts.get(bits, 0):,} {bits}-bit" for bits in found.parameter_bits)
    lines = [
        f"{shown} parameters; {100 * (found.binary_share or 0):.1f} % of {macs:,} MACs are binary",
        f"file {file_bytes:,} bytes, fp32 state {found.float_bytes:,} bytes: "
        f"{found.float_bytes / file_bytes:.1f} times smaller; "
        f"{100 * full / file_bytes:.1f} % of the file is not binary weights",
        exactness_line(analyse(program)),
    ]
    return layer_table(found, "packed model"), lines
