"""Summaries of files from outside, made in a process of its own with bounds on memory and time.

A file of a hundred bytes can ask for gigabytes: shape inference follows the entries of shapes that
are computed, parsers make large objects of small ones, chains of operators make maps of a thousand
axes. No list of such files is complete, so they are read where the operating system sets an end:

* processor time: ``RLIMIT_CPU``, and a clock in the parent for where that is missing;
* memory: ``RLIMIT_AS``, which Linux keeps. Elsewhere entries of shapes are never followed, which
  leaves nothing that grows faster than the file and the time allow.

A file that needs too much memory is read once more without following entries, which few networks
need, and then refused. The summary comes back as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from frostbit.export.errors import ExportError
from frostbit.export.summary import Layer, Summary

MEMORY = 1 << 29
"""Bytes that a reader may take, beside those for the file."""
COPIES = 8
"""How often the file may lie in memory: read, parsed (small messages grow), sorted, described."""
SECONDS, SECONDS_PER_MIB = 3, 5
"""Of processor time; 60,000 operators in 2 MiB take two on a desktop, eight on a small board."""
MOST_SECONDS = 60
PATIENCE = 5
"""Seconds on the clock for each of processor time: other programs run too."""
_FAILED = 1
_REFUSED, _UNFINISHED = 3, 4
"""Exit status of a reader that answers with an error, and of one that lacks memory."""
_OUT_OF_TIME = 24
"""SIGXCPU, the signal of RLIMIT_CPU, on Linux and macOS; Windows does not know its name."""
_HAS_MEMORY_LIMIT = sys.platform == "linux"
_START = (
    "import sys; sys.path[:] = sys.argv[1].split(chr(10)); "
    "from frostbit.export.bounded import child; child(*sys.argv[2:])"
)


class _Exceeded(Exception):
    """A reader was stopped by its bounds; ``in_time``: by that of memory."""

    def __init__(self, in_time: bool) -> None:
        super().__init__()
        self.in_time = in_time


def _seconds(size: int) -> int:
    """Processor time for a file of ``size`` bytes."""
    return min(MOST_SECONDS, SECONDS + SECONDS_PER_MIB * size // (1 << 20))


def _reader(kind: str, follow: bool) -> Callable[[bytes], Summary]:
    if kind == "onnx":
        from frostbit.export.onnx.summary import summarise_onnx

        return lambda data: summarise_onnx(data, follow=follow)
    from frostbit.export.lce.summary import summarise_tflite

    return summarise_tflite


def _bound(size: int) -> None:
    """Limit what this process may take from now on, as far as the system can."""
    try:
        import resource
    except ImportError:  # Windows: the parent's clock is left
        return
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime) + 1 + _seconds(size)
    limits = {resource.RLIMIT_CORE: 0, resource.RLIMIT_CPU: seconds}
    if _HAS_MEMORY_LIMIT:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + MEMORY + COPIES * size
    for which, limit in limits.items():
        most = resource.getrlimit(which)[1]
        limit = limit if most == resource.RLIM_INFINITY else min(limit, most)
        resource.setrlimit(which, (limit, most))


def child(kind: str, path: str, follow: str) -> None:
    """Print the summary of a file, or why there is none, as JSON. Ends the process."""
    answer: Mapping[str, object]
    status = 0
    gc.disable()  # nothing here makes cycles, and a search of all rows takes a third of the time
    try:
        summarise = _reader(kind, follow == "follow")
        _bound(os.path.getsize(path))
        answer = _to_json(summarise(Path(path).read_bytes()))
    except ImportError as error:
        answer, status = {"missing": error.name}, _REFUSED
    except ExportError as error:
        answer, status = {"error": str(error)}, _REFUSED
    except MemoryError:
        os._exit(_UNFINISHED)
    print(json.dumps(answer), flush=True)
    sys.exit(status)


def _to_json(summary: Summary) -> Mapping[str, object]:
    layers = [
        (
            each.name, each.op, each.input_bits, each.output, list(each.parameters.items()),
            each.bytes, list(each.macs.items()),
        )
        for each in summary.layers
    ]  # fmt: skip
    return {
        "format": summary.format,
        "file_bytes": summary.file_bytes,
        "layers": layers,
        "notes": summary.notes,
    }


def _of_json(text: bytes) -> Summary:
    found = json.loads(text)
    layers = tuple(
        Layer(
            name, op, bits, None if output is None else tuple(output), dict(parameters), size,
            dict(macs),
        )
        for name, op, bits, output, parameters, size, macs in found["layers"]
    )  # fmt: skip
    return Summary(found["format"], found["file_bytes"], layers, tuple(found["notes"]))


def _read(kind: str, path: Path, follow: bool) -> Summary:
    """One attempt in a process of its own."""
    command = [sys.executable, "-c", _START, "\n".join(sys.path), kind, str(path.absolute())]
    alone = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    try:
        done = subprocess.run(
            [*command, "follow" if follow else "plain"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            env={**os.environ, **alone},
            timeout=PATIENCE * (1 + _seconds(path.stat().st_size)),
        )
    except subprocess.TimeoutExpired as error:
        raise _Exceeded(in_time=False) from error
    if done.returncode == _REFUSED:
        found = json.loads(done.stdout)
        if "missing" in found:
            raise ModuleNotFoundError("a package is not installed", name=found["missing"])
        raise ExportError(found["error"])
    if done.returncode == _FAILED:
        raise RuntimeError(
            f"the reader of '{path}' failed:\n{done.stderr.decode(errors='replace')}"
        )
    if done.returncode:
        raise _Exceeded(in_time=done.returncode != -_OUT_OF_TIME)
    return _of_json(done.stdout)


def summarise_file(kind: str, path: Path) -> Summary:
    """Summary of a file from anywhere.

    Args:
        kind: ``onnx`` or ``tflite``.
        path: an existing file.

    Raises:
        ExportError: it is not of this kind, damaged, or takes more memory or time than a network
            of its size does.
        ImportError: naming a package that is not installed.
        OSError: it cannot be read.
    """
    for follow in (True, False) if kind == "onnx" and _HAS_MEMORY_LIMIT else (False,):
        try:
            return _read(kind, path, follow)
        except _Exceeded as error:
            if not error.in_time:
                break
    size = path.stat().st_size
    raise ExportError(
        f"reading it takes more than {(MEMORY + COPIES * size) >> 20:,} MiB of memory or "
        f"{_seconds(size)} s, far more than a network of {size:,} bytes needs; it is damaged, or "
        "made to do harm"
    )
