"""Export: ``model.bnn`` -> one file per format, each run in its real runtime after writing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from frostbit.export.c.header import PREFIX, check_prefix, header
from frostbit.export.errors import RuntimeMissing
from frostbit.export.inputs import random_images
from frostbit.export.parity import ParityReport, compare
from frostbit.export.runtimes import Images, Runtime
from frostbit.export.sizes import bits_per_weight
from frostbit.export.summary import summarise_program
from frostbit.kernels.ir import html
from frostbit.kernels.ir.program import BinaryConv, Program
from frostbit.kernels.ir.verify import infer_types
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.parity.runtimes import chosen
from frostbit.pipeline.run import folder as run_folder

if TYPE_CHECKING:
    from frostbit.export.web.page import Setting

CHECK_IMAGES = 16
CHECK_SEED = 0


@dataclass(frozen=True)
class Choices:
    """What a person may choose of an exported file; formats that have no such thing ignore it.

    Attributes:
        float_input: ONNX files take float32 NCHW pixels instead of uint8 NHWC.
        licence: of the weights, written into ONNX metadata.
        accuracy: share of the test set, 0..1, written into ONNX metadata; None leaves it out.
        prefix: how the names in the C file begin, and what it is called if that is not the usual.
        engine: the engine's latency, for the page to show; "" if it was not measured.
    """

    float_input: bool = False
    licence: str = ""
    accuracy: float | None = None
    prefix: str = PREFIX
    engine: str = ""


@dataclass(frozen=True)
class Format:
    """One export format.

    Attributes:
        file: its name.
        convert: writes the bytes.
        runtime: makes its real runtime.
        remark: what to say of it.
        declare: writes declarations for other files, where the format has them.
    """

    file: str
    convert: Callable[[Program, Choices], bytes]
    runtime: Callable[[Program, bytes], Runtime]
    remark: Callable[[Program], str] = lambda program: ""
    declare: Callable[[Program, Choices], bytes] | None = None

    def files(self, choices: Choices) -> tuple[str, ...]:
        """Names of what is written."""
        if self.declare is None:
            return (self.file,)
        stem = Path(self.file).stem if choices.prefix == PREFIX else choices.prefix
        return f"{stem}{Path(self.file).suffix}", f"{stem}.h"


@dataclass(frozen=True)
class Exported:
    """A written file.

    Attributes:
        path: where it is.
        bytes: its size.
        bits: what a binary weight takes in it; None where the network has none, or in a page.
        check: what running it showed, or why it was not run.
    """

    path: Path
    bytes: int
    bits: float | None
    check: str

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        spent = [] if self.bits is None else [("bits a binary weight", f"{self.bits:.3f}")]
        rows = [("size", f"{self.bytes:,} bytes"), *spent, ("check", self.check)]
        return html.table(str(self.path), rows)


def _onnx(form: str) -> Callable[[Program, Choices], bytes]:
    def convert(program: Program, choices: Choices) -> bytes:
        from frostbit.export.onnx import runtime as ort_runtime
        from frostbit.export.onnx.graph import Options

        options = Options(choices.float_input, choices.licence, choices.accuracy)
        return ort_runtime.convert(program, form, options)

    return convert


def _ort(form: str) -> Callable[[Program, bytes], Runtime]:
    def make(program: Program, data: bytes) -> Runtime:
        from frostbit.export.onnx.runtime import OrtRuntime

        return OrtRuntime(program, data, form=form)

    return make


def _tflite(program: Program, choices: Choices) -> bytes:
    from frostbit.export.lce.convert import convert

    return convert(program)


def _lce(program: Program, data: bytes) -> Runtime:
    from frostbit.export.lce.runtime import LceRuntime

    return LceRuntime(program, "indirect", data)


def _c(program: Program, choices: Choices) -> bytes:
    from frostbit.export.c.convert import convert

    return convert(program, choices.prefix)


def _declared(program: Program, choices: Choices) -> bytes:
    return header(program, choices.prefix)


def _compiled(program: Program, data: bytes) -> Runtime:
    from frostbit.export.c.runtime import CRuntime

    return CRuntime(program, data)


def setting_of(program: Program, engine: str = "") -> Setting:
    """How the page of ``program`` brings pictures to its size: as :mod:`predict` does."""
    from frostbit.export.web.page import Setting
    from frostbit.pipeline.data import datasets, pictures

    photographs = program.dataset in datasets.ON_DISK
    margin = pictures.margin_for(program.input_shape[:2]) if photographs else None
    return Setting(margin, engine)


def _web(program: Program, choices: Choices) -> bytes:
    from frostbit.export.web.page import page

    try:
        return page(program, setting_of(program, choices.engine))
    except RuntimeMissing as error:
        raise UserError(str(error)) from error


def _browser(program: Program, data: bytes) -> Runtime:
    from frostbit.export.web.runtime import WebRuntime

    return WebRuntime(program, data)


def _not_compressed(program: Program) -> str:
    """What LCE keeps in 8 bits, if anything."""
    types = infer_types(program)
    count = sum(
        op.channels_out * op.taps
        for op in program.ops
        if isinstance(op, BinaryConv) and types[op.inputs[0]].kind == "f32"
    )
    return f"; LCE keeps {count:,} binary weights on real inputs in 8 bits" if count else ""


FORMATS = {
    "onnx": Format("model.onnx", _onnx("packed"), _ort("packed")),
    "lce": Format("model.tflite", _tflite, _lce, _not_compressed),
    "onnx-int8": Format("model.int8.onnx", _onnx("int8"), _ort("int8")),
    "onnx-float": Format("model.float.onnx", _onnx("float"), _ort("float")),
    "qonnx": Format("model.qonnx", _onnx("qonnx"), _ort("qonnx")),
    "c": Format("model.c", _c, _compiled, declare=_declared),
}
BY_NAME = {"web": Format("model.html", _web, _browser)}
"""What ``all`` leaves out: it needs a compiler."""
KNOWN = {**FORMATS, **BY_NAME}
DEFAULT = ("onnx", "lce")


def format_names(asked: Sequence[str]) -> tuple[str, ...]:
    """The formats that a person asked for (nothing: the usual two); UserError if unknown."""
    if not asked:
        return DEFAULT
    return chosen(asked, tuple(KNOWN), "format", every=tuple(FORMATS))


def test_accuracy(folder: Path, program: Program) -> float | None:
    """Share of the test set (0..1) that the run in ``folder`` measured for ``program``, if any."""
    if not program.settled_hash or not (folder / "run.json").is_file():
        return None
    facts = run_folder.read_run(folder).facts
    if facts.get("settled_hash") != program.settled_hash:
        return None
    return round(float(facts["accuracy"]["test_after_settling"]) / 100, 6)


def _converted(form: Format, program: Program, choices: Choices) -> bytes:
    try:
        return form.convert(program, choices)
    except ImportError as error:
        raise UserError(
            f"export needs {error.name}: install it with pip install 'frostbit[export]'"
        ) from error


def _verdict(report: ParityReport) -> str:
    each = report.comparisons[0]
    if not report.passed:
        raise UserError(
            f"{each.name} disagrees with the model: "
            f"{each.sign_bits_differing - each.sign_bits_rounded} of "
            f"{each.sign_bits_compared} sign bits differ, logits by "
            f"{each.logits_max_abs_diff:.3g}; please report this with the model file"
        )
    within = "" if report.promised else " (within the tolerance: the model is not exact)"
    return (
        f"ran in {each.name}: {each.sign_bits_compared:,} sign bits, "
        f"{each.sign_bits_differing} differ{within}, logits differ by at most "
        f"{each.logits_max_abs_diff:.2g}"
    )


def check(form: Format, program: Program, data: bytes) -> str:
    """Run ``data`` in its real runtime on seeded random images; UserError if it disagrees."""
    images = random_images(program, CHECK_SEED, CHECK_IMAGES)
    images[0] = 0
    try:
        return run_in_runtime(form, program, data, images)
    except RuntimeMissing as error:
        return f"not run: {error}"


def run_in_runtime(
    form: Format, program: Program, data: bytes, images: Images, *, must_vary: bool = True
) -> str:
    """Run ``data`` in its real runtime on ``images`` ``[N, H, W, C]``; returns what that showed.

    Raises:
        RuntimeMissing: it is not installed; names the remedy.
        UserError: it disagrees with the reference.
        ParityError: equal outputs for all images, if they must vary.
    """
    runtime = form.runtime(program, data)
    try:
        return _verdict(compare(program, [runtime], images, must_vary=must_vary))
    finally:
        runtime.close()


def export(
    program: Program,
    names: Sequence[str],
    out: Path,
    choices: Choices,
    *,
    force: bool,
    checked: bool,
) -> Iterator[Exported]:
    """Write ``program`` in the named formats into the folder ``out``, one file a step.

    Args:
        program: what to export.
        names: keys of :data:`KNOWN`.
        out: an existing folder.
        choices: see :class:`Choices`.
        force: overwrite files.
        checked: run every file in its runtime before it is written.

    Raises:
        UserError: a package is missing, a file exists, the folder cannot be written, or the
            runtime disagrees (the file is then not kept).
        ExportError: an op that the format cannot express, named, or a prefix that is none.
    """
    check_prefix(choices.prefix)
    forms = [KNOWN[name] for name in names]
    for form in forms:
        for file in form.files(choices):
            run_folder.refuse_existing(out / file, force)
            run_folder.require_writable(out / file)
    for form in forms:
        path = out / form.files(choices)[0]
        yield write_format(form, program, path, choices, checked=checked)


def write_format(
    form: Format, program: Program, path: Path, choices: Choices, *, checked: bool
) -> Exported:
    """Write ``program`` in one format to ``path``; arguments and errors as of :func:`export`."""
    data = _converted(form, program, choices)
    note = check(form, program, data) if checked else "not run"
    run_folder.write_bytes(path, data)
    if form.declare is not None:
        header = path.with_suffix(".h")
        run_folder.write_bytes(header, form.declare(program, choices))
        note = f"{note}; declared in {header.name}"
    is_page = form.file in {page.file for page in BY_NAME.values()}
    spent = None if is_page else bits_per_weight(form.file, data, program)
    return Exported(path, len(data), spent, note + form.remark(program))


def size_table(program: Program, written: Sequence[Exported]) -> Table:
    """Bytes of every file, how much smaller than the parameters in float32, bits a weight."""
    whole = summarise_program(program, 0).float_bytes
    table = Table(title=f"sizes; all parameters in float32: {whole:,} bytes", title_justify="left")
    table.add_column("file")
    for name in ("bytes", "times smaller", "bits a binary weight"):
        table.add_column(name, justify="right")
    for each in written:
        spent = "" if each.bits is None else f"{each.bits:.3f}"
        is_source = each.path.suffix == ".c"  # larger than what it compiles to
        ratio = "source" if is_source else f"{whole / each.bytes:.1f}"
        table.add_row(each.path.name, f"{each.bytes:,}", ratio, spent)
    return table
