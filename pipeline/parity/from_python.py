"""A Program in hand, rather than a file: export it, and compare everything that runs it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from frostbit.export.c.header import PREFIX, check_prefix
from frostbit.export.runtimes import Images
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.reference import check_images
from frostbit.pipeline.console import Progress
from frostbit.pipeline.data.inputs import Inputs
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.parity import verify as verifying
from frostbit.pipeline.parity.export import (
    KNOWN,
    Choices,
    Exported,
    Format,
    format_names,
    write_format,
)
from frostbit.pipeline.parity.runtimes import Source
from frostbit.pipeline.parity.verify import Verified


def export_model(
    program: Program,
    path: str | os.PathLike[str],
    *,
    format: str = "",
    float_input: bool = False,
    licence: str = "",
    accuracy: float | None = None,
    prefix: str = PREFIX,
    checked: bool = True,
) -> Exported:
    """Write ``program`` for another runtime, and run the file there before it is kept.

    Args:
        program: from :func:`frostbit.pack` or :func:`frostbit.read`.
        path: the file; one that is there is replaced. Without ``format`` its ending decides:
            ``.onnx``, ``.int8.onnx``, ``.float.onnx``, ``.qonnx``, ``.tflite`` (Larq Compute
            Engine), ``.c`` (a header is written beside it) or ``.html`` (needs clang and lld).
        format: ``onnx``, ``onnx-int8``, ``onnx-float``, ``qonnx``, ``lce``, ``c`` or ``web``.
        float_input: the ONNX file takes float32 ``[N, C, H, W]`` rather than uint8
            ``[N, H, W, C]``, pixels 0..255 either way; not of a model that takes floats anyway.
        licence: of the weights, for ONNX metadata.
        accuracy: share of the test set, 0..1, for ONNX metadata.
        prefix: how the names in a C file begin.
        checked: whether the file runs in its runtime, 16 seeded images, every sign bit compared.

    Returns:
        Path, size in bytes, and what running it showed (or why it could not run here).

    Raises:
        UserError: an unknown format or ending, a choice that it does not have, a missing package,
            a folder that cannot be written, or a runtime that disagrees (nothing is written then).
        ExportError: an op that the format cannot express, named, or a prefix that is none.

    Source: ``docs/exports.md`` lists what each format rewrites or refuses.
    """
    target = Path(path)
    form = _format_named(format) if format else _format_of(target)
    check_prefix(prefix)
    choices = Choices(float_input, licence, accuracy, prefix)
    if replace(choices, prefix=PREFIX) != Choices() and not form.file.endswith("onnx"):
        raise UserError(f"'{target}': float_input, licence and accuracy are of ONNX files only")
    if prefix != PREFIX and form.declare is None:
        raise UserError(f"'{target}': a prefix is of C files only")
    if accuracy is not None and not 0 <= accuracy <= 1:
        raise UserError(f"accuracy is {accuracy}; it is a share of the test set, 0 to 1")
    return write_format(form, program, target, choices, checked=checked)


def _format_named(name: str) -> Format:
    names = format_names((name,))
    if len(names) != 1:
        raise UserError(f"format '{name}' is more than one; one file has one")
    return KNOWN[names[0]]


def _format_of(path: Path) -> Format:
    """The format whose files end as ``path`` does; ``.int8.onnx`` goes before ``.onnx``."""
    endings = {form.file.removeprefix("model"): form for form in KNOWN.values()}
    for ending in sorted(endings, key=len, reverse=True):
        if path.name.lower().endswith(ending):
            return endings[ending]
    raise UserError(
        f"'{path}': its ending names no format; use one of {', '.join(endings)}, or give format="
    )


def verify(
    program: Program,
    images: Images,
    labels: NDArray[np.int64] | None = None,
    *,
    formats: Sequence[str] = (),
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = iter,
) -> Verified:
    """Run ``images`` through every runtime and setting, and compare every sign bit and logit.

    Args:
        program: the model.
        images: uint8 ``[N, H, W, C]``, pixels 0..255; float32 where an imported model takes those;
            N >= 2.
        labels: int64 ``[N]``, to count correct answers.
        formats: ``bnn`` (the engine's kernels), ``onnx``, ``onnx-int8``, ``onnx-float``, ``qonnx``,
            ``lce``, ``c``, ``torch`` (the Program in PyTorch's operators), ``web`` (the page in a
            browser). Without any: all but ``web``, and what is not installed is reported as
            missing.
        folder: where exports of this model lie, ``model.onnx`` and so on, to run those very files;
            what is not there is converted in memory.
        progress: wraps the iterable of batches, e.g. a progress bar.

    Returns:
        ``passed``; figures of every runtime in ``report.comparisons``; what could not run here, and
        what to do about it, in ``missing``.

    Raises:
        ValueError: images or labels of another shape or dtype.
        UserError: an unknown format, or nothing that was asked for can run here.
        ParityError: the comparison would prove nothing: fewer than two images, constant outputs.

    Source: the reference, :mod:`frostbit.kernels.ir.reference`, defines correct; bits must be
    equal, logits too where :mod:`frostbit.kernels.ir.exact` proves them; a network that is not
    exact, as an imported one, is compared as :mod:`frostbit.export.rounding` says.
    """
    check_images(images, program)
    if labels is not None and np.shape(labels) != (len(images),):
        raise ValueError(f"labels must be [{len(images)}], got {list(np.shape(labels))}")
    names = verifying.check_formats(formats)
    source = Source(program, None if folder is None else Path(folder), None)
    inputs = Inputs(images, labels, "")
    return verifying.verify(source, names, inputs, progress, asked=bool(formats))
