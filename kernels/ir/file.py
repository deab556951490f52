"""``model.bnn``: a Program in a safetensors file, with a format version and a checksum.

Layout: the safetensors metadata has one key, ``frostbit``, holding a JSON object with the
format version, the ops (their arrays stand in the tensors ``<op name>/<field>``), the input
shape, data set, class names, the hash of the settled weights, and ``sha256``: the SHA-256 of
the whole file with those 64 digits replaced by zeros. So every bit of the file is covered.
Binary weights are stored without padding, one bit each: uint8 ``[O, ceil(K / 8)]``, the K taps
of an output channel in (kh, kw, I) order, least significant bit first; the loader makes words.
A window is ten integers: kernel, stride, pads, dilation. A number that has its op's default value
(one group of a full-precision convolution) is left out.
Nothing in it depends on time, machine or folder: the same Program gives the same bytes.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from frostbit.kernels.ir import bits, limits
from frostbit.kernels.ir.integer_weights import as_int8, from_int8
from frostbit.kernels.ir.limits import MAX_FILE_BYTES, check_name, check_names, read_header
from frostbit.kernels.ir.output import write_file
from frostbit.kernels.ir.program import (
    MAX_DIM,
    NO_BOUND,
    OP_TYPES,
    Affine,
    BinaryConv,
    Clip,
    Conv,
    Dense,
    FormatError,
    Op,
    Preprocessing,
    Program,
    Threshold,
    Window,
)
from frostbit.kernels.ir.verify import verify

FORMAT_VERSIONS = (1, 2, 3)
"""A file has the second if a reader of the first could take it for another model: where it takes
floats, or an op that the first knows has a limit of its own. It has the third if full-precision
weights are stored as int8 and a scale per output channel, which is wherever they fit."""
_AT_ONCE = 1 << 26
"""Bits that are widened to bytes at a time while weights are read."""
_KEY = "frostbit"
_BLANK = "0" * 64
Source = str | os.PathLike[str] | os.PathLike[bytes] | bytes | bytearray | memoryview | BinaryIO
"""Where a model can be read from."""
Tensor = NDArray[np.generic]
_EPILOGUES = {"threshold": Threshold, "affine": Affine}


def _rows_of_bits(op: BinaryConv) -> NDArray[np.uint8]:
    """The weights of ``op`` as stored: uint8 ``[O, ceil(K / 8)]``."""
    negative = bits.unpack(op.words, op.channels_in).reshape(op.channels_out, op.taps) < 0
    return np.packbits(negative, axis=1, bitorder="little")


def _words(rows: Tensor, window: Window, channels: int, what: str) -> bits.Words:
    """Inverse of :func:`_rows_of_bits`; checks sizes before it allocates."""
    sizes = (*window.kernel, channels)
    if min(sizes) < 1 or max(sizes) > MAX_DIM or rows.ndim != 2 or rows.dtype != np.uint8:
        raise FormatError(f"{what} has an impossible shape or dtype")
    taps = window.kernel[0] * window.kernel[1] * channels
    row = window.kernel[0] * window.kernel[1] * bits.words_for(channels)
    limits.check_words(len(rows), taps, row, what)
    if rows.shape[1] != -(-taps // 8):
        raise FormatError(f"{what} has {rows.shape[1]} bytes a row, expected {-(-taps // 8)}")
    words = np.empty((len(rows), *window.kernel, bits.words_for(channels)), np.uint64)
    step = max(1, _AT_ONCE // (row * bits.WORD_BITS))
    for start in range(0, len(rows), step):
        ones = np.unpackbits(rows[start : start + step].view(np.uint8), axis=1, bitorder="little")
        if ones[:, taps:].any():
            raise FormatError(f"{what} has bits set beyond its last weight")
        signs = np.negative(ones[:, :taps].view(np.int8))
        words[start : start + step] = bits.pack(signs.reshape(-1, *window.kernel, channels))
    return words


def _describe(owner: Any, prefix: str, tensors: dict[str, Tensor]) -> dict[str, object]:
    """JSON form of an op or epilogue; its arrays go into ``tensors`` under ``prefix/field``."""
    fields: dict[str, object] = {}
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name)
        if isinstance(owner, BinaryConv) and field.name == "words":
            tensors[f"{prefix}/words"] = _rows_of_bits(owner)
        elif isinstance(value, np.ndarray):
            tensors[f"{prefix}/{field.name}"] = np.ascontiguousarray(value)
            if field.name == "weights" and (found := as_int8(value)):
                # As bytes: older readers know no int8, and would not come to the version.
                tensors[f"{prefix}/weights"] = found[0].view(np.uint8)
                tensors[f"{prefix}/scale"] = found[1]
        elif isinstance(value, Window):
            fields[field.name] = [*value.kernel, *value.stride, *value.pads, *value.dilation]
        elif isinstance(value, (Threshold, Affine)):
            fields[field.name] = type(value).__name__.lower()
            fields.update(_describe(value, prefix, tensors))
        elif field.default is dataclasses.MISSING or value != field.default:
            fields[field.name] = value
    return fields


def format_version(program: Program) -> int:
    """The oldest of ``FORMAT_VERSIONS`` whose readers understand ``program`` or refuse it."""
    full = (op.weights for op in program.ops if isinstance(op, (Conv, Dense)))
    return 3 if any(as_int8(weights) for weights in full) else _version_of_floats(program)


def _version_of_floats(program: Program) -> int:
    """The version of a file whose full-precision weights are all stored as float32."""
    has_limits = any(
        (isinstance(op, Clip) and (op.low, op.high) != (-1.0, 1.0))
        or (
            isinstance(op, BinaryConv)
            and isinstance(op.epilogue, Affine)
            and op.epilogue.is_clipped
        )
        for op in program.ops
    )
    return 2 if has_limits or program.input_kind != "u8" else 1


def _input(program: Program) -> dict[str, object]:
    """What the header says of an input that is not pixels."""
    if program.input_kind == "u8":
        return {}
    known = program.preprocessing
    numbers = None if known is None else [known.mul, known.add]
    return {"input_kind": program.input_kind, "preprocessing": numbers}


def dumps(program: Program) -> bytes:
    """The bytes of ``model.bnn`` for a verified ``program``; raises FormatError if malformed."""
    verify(program)
    tensors: dict[str, Tensor] = {}
    ops = [{"op": type(op).__name__, **_describe(op, op.name, tensors)} for op in program.ops]
    document = {
        "format": format_version(program),
        "input_shape": program.input_shape,
        "dataset": program.dataset,
        "classes": program.classes,
        "settled_hash": program.settled_hash,
        "ops": ops,
        "sha256": _BLANK,
        **_input(program),
    }
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    blank = save_tensors(tensors, metadata={_KEY: text})
    digest = hashlib.sha256(blank).hexdigest()
    quoted = f'\\"sha256\\":\\"{_BLANK}\\"'.encode()
    if blank.count(quoted) != 1:
        raise FormatError("a name in the program collides with the checksum field")
    return blank.replace(quoted, quoted.replace(_BLANK.encode(), digest.encode()))


def _document(data: bytes) -> dict[str, object]:
    """Read and check the metadata: format version first, then the checksum over everything."""
    header = read_header(data)
    try:
        document = json.loads(header["__metadata__"][_KEY])
        version, digest = document["format"], document["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError("the file is not a Frostbit model or its header is damaged") from error
    if type(version) is not int or version not in FORMAT_VERSIONS:
        raise FormatError(
            f"the file has format version {str(version)[:20]!a}, this Frostbit reads "
            f"{FORMAT_VERSIONS[0]} to {FORMAT_VERSIONS[-1]}: "
            "install a newer one, or pack the run again with this one"
        )
    quoted = f'\\"sha256\\":\\"{digest}'.encode(errors="replace")
    at = data.find(quoted)
    if not isinstance(digest, str) or len(digest) != 64 or at < 0 or data.find(quoted, at + 1) >= 0:
        raise FormatError("the checksum is missing or damaged")
    at += len(quoted) - 64
    whole = memoryview(data)
    found = hashlib.sha256(whole[:at])
    found.update(_BLANK.encode())
    found.update(whole[at + 64 :])
    if found.hexdigest() != digest:
        raise FormatError("the checksum does not match: the file is damaged")
    if not isinstance(document, dict):
        raise FormatError("the header is not an object")
    return document


def _text(document: dict[str, object], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise FormatError(f"'{key}' must be text")
    return value


def _integers(value: object, count: int, what: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(type(item) is int for item in value)
    ):
        raise FormatError(f"{what} must be {count} integers")
    return tuple(value)


def _floats(value: object, count: int, what: str) -> tuple[float, ...]:
    if (
        not isinstance(value, list)
        or len(value) != count
        or not all(type(item) in (int, float) and abs(item) <= NO_BOUND for item in value)
    ):
        raise FormatError(f"{what} must be {count} numbers")
    return tuple(float(item) for item in value)


def _preprocessing(value: object, channels: int) -> Preprocessing | None:
    if value is None:
        return None
    if not isinstance(value, list) or len(value) != 2:
        raise FormatError("preprocessing must be factors and addends")
    what = "each half of preprocessing"
    return Preprocessing(*(_floats(half, channels, what) for half in value))


def _input_kind(document: dict[str, object]) -> Literal["u8", "f32"]:
    kind = document.get("input_kind", "u8")
    if kind not in ("u8", "f32"):
        raise FormatError("input_kind must be u8 or f32")
    return "f32" if kind == "f32" else "u8"


def _strings(value: object, what: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise FormatError(f"{what} must be a list of texts")
    for item in value:
        check_name(item)
    return tuple(value)


def _window(value: object, what: str) -> Window:
    n = _integers(value, 10, what)
    return Window((n[0], n[1]), (n[2], n[3]), (n[4], n[5], n[6], n[7]), (n[8], n[9]))


def _field(field: Any, prefix: str, entry: dict[str, Any], tensors: dict[str, Tensor]) -> Any:
    """One constructor argument of an op, from its JSON entry or its tensor."""
    name = field.name
    what = f"op '{prefix}' {name}"
    if name == "inputs":
        return _strings(entry.get(name), what)
    if name == "window":
        return _window(entry.get(name), what)
    if name == "epilogue":
        epilogue = _EPILOGUES.get(str(entry.get(name)))
        if epilogue is None:
            raise FormatError(f"{what} is unknown")
        inner = dataclasses.fields(epilogue)
        return epilogue(*(_field(part, prefix, entry, tensors) for part in inner))
    if field.default is not dataclasses.MISSING and name not in entry:
        return field.default
    if field.type == "int":
        return _integers([entry.get(name)], 1, what)[0]
    if field.type == "float":
        return _floats([entry.get(name)], 1, what)[0]
    if field.type.startswith("tuple[int"):
        return _integers(entry.get(name), field.type.count("int"), what)
    tensor = tensors.pop(f"{prefix}/{name}", None)
    if tensor is None:
        raise FormatError(f"{what} is missing")
    if name == "weights" and tensor.dtype == np.uint8:
        return from_int8(tensor.view(np.int8), tensors.pop(f"{prefix}/scale", None), what)
    return tensor


def _op(entry: object, tensors: dict[str, Tensor]) -> Op:
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
        raise FormatError("an op has no name")
    name = entry["name"]
    check_name(name)
    kind = OP_TYPES.get(str(entry.get("op")))
    if kind is None:
        raise FormatError(
            f"op '{name}': unknown op {str(entry.get('op'))[:80]!a}: it may need a newer Frostbit"
        )
    fields = [field for field in dataclasses.fields(kind) if field.name != "name"]
    allowed = {"op", "name", *(field.name for field in fields)}
    if "epilogue" in allowed:
        allowed |= {
            field.name for part in _EPILOGUES.values() for field in dataclasses.fields(part)
        }
    unknown = sorted(entry.keys() - allowed)
    if unknown:
        raise FormatError(f"op '{name}': unknown field {str(unknown[0])[:80]!a}")
    values = {field.name: _field(field, name, entry, tensors) for field in fields}
    if kind is BinaryConv:
        what = f"op '{name}' words"
        values["words"] = _words(values["words"], values["window"], values["channels_in"], what)
    return kind(name, **values)


def loads(data: bytes) -> Program:
    """Parse and verify the bytes of ``model.bnn``.

    Raises:
        FormatError: if anything is wrong: truncation, a flipped bit, another version, an op
            or a shape that does not fit.
    """
    document = _document(data)
    try:
        tensors = dict(load_tensors(data))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise FormatError("the tensors are damaged") from error
    has_int8 = any(name.endswith("/scale") for name in tensors)
    entries = document.get("ops")
    if not isinstance(entries, list):
        raise FormatError("'ops' must be a list")
    shape = _integers(document.get("input_shape"), 3, "input_shape")
    program = Program(
        input_shape=(shape[0], shape[1], shape[2]),
        ops=tuple(_op(entry, tensors) for entry in entries),
        dataset=_text(document, "dataset"),
        classes=_strings(document.get("classes"), "classes"),
        settled_hash=_text(document, "settled_hash"),
        input_kind=_input_kind(document),
        preprocessing=_preprocessing(document.get("preprocessing"), max(0, min(shape[2], MAX_DIM))),
    )
    if document["format"] != (3 if has_int8 else _version_of_floats(program)):
        raise FormatError(f"format version {document['format']} does not fit what the file holds")
    if tensors:
        raise FormatError(f"the file holds tensors that no op uses: {sorted(tensors)[:3]}")
    verify(program)
    check_names(program)
    return program


def save_program(program: Program, path: str | Path) -> bytes:
    """Write ``program`` to ``path`` (:func:`write_file`) and return the bytes."""
    data = dumps(program)
    write_file(Path(path), data)
    return data


def _stream_bytes(stream: BinaryIO) -> bytes:
    """What is left in ``stream``, or the first byte too many."""
    data = bytearray()
    while len(data) <= MAX_FILE_BYTES:
        part = stream.read(MAX_FILE_BYTES + 1 - len(data))  # a pipe gives what it has
        if not isinstance(part, (bytes, bytearray)):
            raise TypeError("the file is open as text: open it in binary mode, 'rb'")
        if not part:
            break
        data += part
    return bytes(data)


def _source_bytes(source: Source) -> tuple[bytes, str]:
    """The bytes of a model and what to call it in a message."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), "the bytes given"
    if isinstance(source, (str, os.PathLike)):
        path = os.fsdecode(source)
        with open(path, "rb") as stream:
            return _stream_bytes(stream), path
    if not callable(getattr(source, "read", None)):
        raise TypeError(
            "a model is given as a path, as its bytes or as a file open in binary mode, "
            f"not as {type(source).__name__}"
        )
    return _stream_bytes(source), str(getattr(source, "name", "the file given"))


def load_program(source: Source) -> Program:
    """Read ``model.bnn``: a path (text or path-like), its bytes, or a file open in binary mode.

    Raises:
        FormatError: if that is not an intact model; the message begins with the path.
        OSError: if it cannot be read.
        TypeError: if ``source`` is nothing of this.
    """
    data, what = _source_bytes(source)
    try:
        return loads(data)
    except FormatError as error:
        raise FormatError(f"{what}: {error}") from error


def program_hash(program: Program) -> str:
    """SHA-256 (hex) of the packed bytes of ``program``."""
    return hashlib.sha256(dumps(program)).hexdigest()
