"""Files of other formats by their ending: what reads each, and what runs it to compare.

>>> imported = read_file("model.tflite")
>>> print(compare_file("model.tflite", imported).verdict)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from frostbit.export.inputs import Images, random_images
from frostbit.export.reading.compare import (
    Comparison,
    Source,
    compare,
    wanted,
)
from frostbit.export.reading.graph import Graph
from frostbit.export.reading.imported import Imported
from frostbit.export.reading.match import to_program
from frostbit.kernels.ir.limits import MAX_FILE_BYTES
from frostbit.kernels.ir.program import FormatError

IMAGES = 2
"""Random images that a network is compared on; a large one takes seconds for each."""


@dataclass(frozen=True)
class Format:
    """A format that can be read.

    Attributes:
        read: the graph of a file; raises FormatError and, naming a package, ImportError.
        run: the file in its own runtime, as a :class:`Source` for what was read from it; raises
            RuntimeMissing.
    """

    read: Callable[[Path], Graph]
    run: Callable[[Path, Imported], Source]


def _read_tflite(path: Path) -> Graph:
    from frostbit.export.reading.tflite.read import read_graph

    return read_graph(path.read_bytes())


def _run_tflite(path: Path, imported: Imported) -> Source:
    from frostbit.export.reading.tflite.runtime import LceSource

    return LceSource(path.read_bytes(), imported)


def _read_onnx(path: Path) -> Graph:
    from frostbit.export.reading.onnx.read import read_graph

    return read_graph(path.read_bytes(), path.parent).graph


def _run_onnx(path: Path, imported: Imported) -> Source:
    from frostbit.export.reading.onnx.read import read_graph
    from frostbit.export.reading.onnx.runtime import OnnxSource

    return OnnxSource(read_graph(path.read_bytes(), path.parent), wanted(imported))


_ONNX = Format(_read_onnx, _run_onnx)
FORMATS = {".tflite": Format(_read_tflite, _run_tflite), ".onnx": _ONNX, ".qonnx": _ONNX}
"""By ending, in lower case."""


def format_of(path: str | os.PathLike[str]) -> Format:
    """The format that the ending of ``path`` names; FormatError if it cannot be read."""
    ending = Path(path).suffix.lower()
    if ending not in FORMATS:
        known = ", ".join(FORMATS)
        raise FormatError(f"{path}: '{ending}' cannot be read, only {known} and packed models can")
    return FORMATS[ending]


def read_file(path: str | os.PathLike[str], logits: bool = False) -> Imported:
    """Read a network from a file of another format.

    Args:
        path: ends in one of :data:`FORMATS`.
        logits: leave out a final softmax.

    Raises:
        FormatError: another format, a damaged file, or something that no Program can say, by
            operator and layer; one line that begins with the path.
        ImportError: naming a package that is not installed.
        OSError: the file cannot be read.
    """
    form, file = format_of(path), Path(path)
    if file.stat().st_size > MAX_FILE_BYTES:
        raise FormatError(f"{path}: larger than {MAX_FILE_BYTES} bytes")
    try:
        return to_program(form.read(file), logits)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def compare_file(
    path: str | os.PathLike[str],
    imported: Imported,
    images: Images | None = None,
    count: int = IMAGES,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> Comparison:
    """Compare what was read with its file in the file's own runtime.

    Args:
        path: that :func:`read_file` read.
        imported: what it gave.
        images: ``[N, H, W, C]`` as the source takes them; None: random ones.
        count: of random images.
        progress: wraps the iterable of image numbers, e.g. a progress bar.

    Raises:
        SourceDiffers: a difference that rounding does not explain; the text names the layer.
        RuntimeMissing: the runtime is not installed; the text says how to install it.
        LceError: Larq Compute Engine refuses the file, crashes or hangs.
        ValueError: ``images`` do not fit the model.
    """
    if images is None:
        images = random_images(imported.program, 0, count)
    with closing(format_of(path).run(Path(path), imported)) as source:
        return compare(imported, source, images, progress)
