"""Which runtimes a benchmark gets: names a person may ask for, and how each is made.

Heavy packages are imported only when their runtime is asked for, so that
``pipeline bench --runtime engine`` needs no more than the base install.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from frostbit.export.errors import ExportError, LceError, RuntimeMissing
from frostbit.export.runtimes import EngineRuntime, ReferenceRuntime, Timed
from frostbit.kernels.ir.program import Program
from frostbit.kernels.machine import cpu
from frostbit.pipeline.errors import BadExport, UserError


@dataclass(frozen=True)
class Source:
    """Where the runtimes of one model come from.

    Attributes:
        program: the loaded ``model.bnn``.
        folder: folder of ``model.bnn``, where its exports are looked for; None if it has none.
        run: run folder with the settled weights; None if there is none.
        threads: threads for each runtime that has them.
    """

    program: Program
    folder: Path | None
    run: Path | None
    threads: int = 1

    def exported(self, name: str) -> bytes | None:
        """Bytes of ``model.onnx`` or ``model.tflite`` beside the model, None if absent."""
        path = None if self.folder is None else self.folder / name
        return path.read_bytes() if path is not None and path.is_file() else None


@dataclass(frozen=True)
class Missing:
    """A runtime that cannot run here, and what to do about it."""

    name: str
    remedy: str


def together(missing: Iterable[Missing]) -> str:
    """One line on runtimes that cannot run: those with the same remedy are named together."""
    names: dict[str, list[str]] = {}
    for each in missing:
        names.setdefault(each.remedy, []).append(each.name)
    return "; ".join(f"{', '.join(found)}: {remedy}" for remedy, found in names.items())


def _needs_extra(extra: str, error: ImportError) -> RuntimeMissing:
    return RuntimeMissing(f"{error.name} is not installed: pip install 'frostbit[{extra}]'")


def _engine(kernel: str) -> Callable[[Source], Timed]:
    def make(source: Source) -> Timed:
        if kernel and kernel not in cpu.available():
            raise RuntimeMissing(f"the micro-kernel {kernel} needs a CPU with AVX2")
        return EngineRuntime(source.program, source.threads, kernel)

    return make


def _reference(source: Source) -> Timed:
    return ReferenceRuntime(source.program)


@contextmanager
def _loading(source: Source, file: str) -> Iterator[bytes | None]:
    """Bytes of the export ``file``, None if absent; what is wrong with it begins with its path."""
    data = source.exported(file)
    try:
        yield data
    except (ExportError, LceError) as error:
        if data is None or source.folder is None:
            raise
        path = source.folder / file
        raise BadExport(f"'{path}': {error}; export it again with --force") from error


def _ort(level: str, form: str = "packed") -> Callable[[Source], Timed]:
    def make(source: Source) -> Timed:
        try:
            from frostbit.export.onnx.origin import require_export
            from frostbit.export.onnx.runtime import OrtRuntime
        except ImportError as error:
            raise _needs_extra("export", error) from error
        with _loading(source, ORT_FILES[form]) as data:
            if data is not None:
                require_export(data, source.program, form)
            return OrtRuntime(source.program, data, level, source.threads, form)

    return make


def _lce(kernel: str) -> Callable[[Source], Timed]:
    def make(source: Source) -> Timed:
        try:
            from frostbit.export.lce.runtime import LceRuntime
        except ImportError as error:
            raise _needs_extra("export", error) from error
        with _loading(source, "model.tflite") as data:
            return LceRuntime(source.program, kernel, data, threads=source.threads)

    return make


def _c(source: Source) -> Timed:
    from frostbit.export.c.runtime import CRuntime

    with _loading(source, "model.c") as data:
        return CRuntime(source.program, data)


def _web(source: Source) -> Timed:
    from frostbit.export.web.runtime import WebRuntime

    with _loading(source, "model.html") as data:
        return WebRuntime(source.program, data)


def _torch(source: Source) -> Timed:
    try:
        from frostbit.pipeline.lowering.pack import load_settled
        from frostbit.pipeline.lowering.settled_runtime import TorchRuntime
    except ImportError as error:
        raise _needs_extra("train", error) from error
    if source.run is None:
        raise UserError("random weights were not trained, so there is no settled module")
    height, width, channels = source.program.input_shape
    module = load_settled(source.run, expected_hash=source.program.settled_hash)
    return TorchRuntime(module, (channels, height, width), source.threads)


def _torch_program(source: Source) -> Timed:
    try:
        from frostbit.pipeline.parity.torch_program import TorchProgram
    except ImportError as error:
        raise _needs_extra("train", error) from error
    return TorchProgram(source.program, source.threads)


def _ort_twin(source: Source) -> Timed:
    try:
        from frostbit.export.onnx.float_twin import OrtTwin
    except ImportError as error:
        raise _needs_extra("export", error) from error
    return OrtTwin(source.program, source.threads)


def _ort_int8_twin(source: Source) -> Timed:
    try:
        from frostbit.export.onnx.int8_twin import OrtInt8Twin
    except ImportError as error:
        raise _needs_extra("export", error) from error
    return OrtInt8Twin(source.program, source.threads)


def _torch_twin(source: Source) -> Timed:
    try:
        from frostbit.pipeline.parity.torch_twin import TorchTwin
    except ImportError as error:
        raise _needs_extra("train", error) from error
    return TorchTwin(source.program, source.threads)


ORT_FILES = {
    "packed": "model.onnx",
    "int8": "model.int8.onnx",
    "float": "model.float.onnx",
    "qonnx": "model.qonnx",
}
ORT_LEVELS = ("all", "extended", "basic", "disabled")


def ort_names(form: str) -> dict[str, str]:
    """Names of the runtimes of one ONNX form, by optimization level."""
    parts = ["ort", *([form] if form != "packed" else [])]
    return {level: ":".join([*parts, *([level] if level != "all" else [])]) for level in ORT_LEVELS}


FACTORIES: dict[str, Callable[[Source], Timed]] = {
    "engine": _engine(""),
    **{f"engine:{kernel}": _engine(kernel) for kernel in cpu.KERNELS},
    **{name: _ort(level, form) for form in ORT_FILES for level, name in ort_names(form).items()},
    "c": _c,
    "web": _web,
    "lce:default": _lce("default"),
    "lce:indirect": _lce("indirect"),
    "lce:reference": _lce("reference"),
    "torch": _torch,
    "torch:program": _torch_program,
    "ort-fp32": _ort_twin,
    "ort-int8": _ort_int8_twin,
    "torch-fp32": _torch_twin,
    "reference": _reference,
}
ONE_THREAD = ("c", "web", "reference")
"""Runtimes that have one thread, whatever is asked for."""
PEERS = ("ort-fp32", "ort-int8", "torch-fp32", "lce:indirect")
"""What ``--peers`` adds: the same architecture at full precision and in int8, and LCE's best."""
DEFAULT = (
    "engine", "ort", "ort:int8", "lce:default", "lce:indirect", "torch",
    "ort-fp32", "ort-int8", "torch-fp32",
)  # fmt: skip


def chosen(
    asked: Sequence[str], known: Sequence[str], what: str, every: Sequence[str] | None = None
) -> tuple[str, ...]:
    """``asked`` if all are known; ``every`` (or all known) for nothing; UserError with a hint.

    A text may hold several names between commas. ``all`` stands for ``every``.
    """
    every = known if every is None else every
    asked = [name.strip() for text in asked for name in text.split(",")]
    if not all(asked):
        raise UserError(f"a {what} without a name is asked for (known: {', '.join(known)})")
    for name in asked:
        if name not in known and name != "all":
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            raise UserError(f"unknown {what} '{name}'{hint} (known: {', '.join(known)})")
    named = [each for name in asked or ["all"] for each in (every if name == "all" else [name])]
    return tuple(dict.fromkeys(named))


def check_names(names: Sequence[str]) -> tuple[str, ...]:
    """The runtimes that a person asked for (``lce``: its two fast kernels), or the usual ones."""
    if not names:
        return DEFAULT
    names = chosen(names, (*FACTORIES, "lce"), "runtime")
    plain = [name for name in names if name != "lce"]
    if "engine" in plain:  # it is one of the others
        plain = [name for name in plain if name != f"engine:{cpu.chosen_kernel()}"]
    fast = ["lce:default", "lce:indirect"] if "lce" in names else []
    return tuple(dict.fromkeys([*plain, *fast]))


def make(
    names: Sequence[str], source: Source, asked: bool = True
) -> tuple[list[Timed], list[Missing]]:
    """Make the named runtimes; those that are not installed come back as :class:`Missing`.

    With ``asked=False`` (nobody named them) so does torch without the run that it comes from, and
    a format that cannot hold the model.

    Raises:
        BadExport: a file beside the model is damaged, or one of another network.
        UserError: a runtime was asked for by name and its run is absent or another.
        ExportError: a format was asked for by name and cannot hold the model.
    """
    ready: list[Timed] = []
    missing: list[Missing] = []
    for name in names:
        try:
            ready.append(FACTORIES[name](source))
        except RuntimeMissing as error:
            missing.append(Missing(name, str(error)))
        except (UserError, ExportError) as error:
            if asked or isinstance(error, BadExport):
                raise
            missing.append(Missing(name, str(error)))
    return ready, missing
