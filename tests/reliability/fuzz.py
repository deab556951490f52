"""Mutated files: each must load equal, be refused with our error, or be right all the same.

``model.bnn``: bit flips, truncations, insertions, and edits of header fields and arrays whose
checksum is made right again. What loads after such an edit is another valid model, and then the
engine must agree with the reference on it. Recipes and pictures: our error or a value.
"""

from __future__ import annotations

import hashlib
import io
import json
import resource
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kernels import container, reference
from kernels.engine import Engine
from kernels.exact import analyse
from kernels.program import FormatError, Program
from pipeline import pictures, recipe
from pipeline.errors import UserError
from tests import nets
from tests.kernels.programs import random_images

SECONDS = 2.0
MEGABYTES = 1024
"""By which the process may grow over all mutations."""
Rng = np.random.Generator
WORDS = ["", "1e99", "-1", "nan", "true", "[]", "{}", "x" * 5000, "\0", "99999999999999999999", '"']


@dataclass(frozen=True)
class Fuzzed:
    """Counts of one kind of file; ``wrong`` must be 0, or everything here raises before.

    Attributes:
        tried: mutations.
        rejected: refused with our own error, one line.
        accepted: loaded, and equal to the original or, for another valid model, computed as the
            reference does.
        wrong: answered differently.
        slowest: seconds of the slowest one.
        grown: megabytes by which the process grew.
    """

    tried: int
    rejected: int
    accepted: int
    wrong: int
    slowest: float
    grown: float


def _run(
    count: int, seed: int, one: Callable[[Rng], bool | None], errors: tuple[type[Exception], ...]
) -> Fuzzed:
    """Run ``one`` (True: right, False: wrong, our error: refused) ``count`` times."""
    rng = np.random.default_rng(seed)
    before = _megabytes()
    rejected = accepted = wrong = 0
    slowest = 0.0
    for _ in range(count):
        start = time.perf_counter()
        try:
            right = one(rng)
            accepted, wrong = accepted + bool(right), wrong + (not right)
        except errors as error:
            if "\n" in str(error).strip():
                raise AssertionError(f"more than one line: {error}") from error
            rejected += 1
        slowest = max(slowest, time.perf_counter() - start)
    return Fuzzed(count, rejected, accepted, wrong, slowest, _megabytes() - before)


def _megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# ---------------------------------------------------------------- model.bnn


def _flip(data: bytes, rng: Rng) -> bytes:
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        changed[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _cut(data: bytes, rng: Rng) -> bytes:
    first, last = sorted(int(i) for i in rng.integers(0, len(data), 2))
    return data[:first] + data[last:] if rng.integers(2) else data[:first]


def _insert(data: bytes, rng: Rng) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 64))) + data[at:]


def signed(header: dict[str, Any], body: bytes) -> bytes:
    """A file of ``header`` and ``body`` with a right checksum."""
    document = json.loads(header["__metadata__"]["frostbit"])
    document["sha256"] = "0" * 64
    header["__metadata__"]["frostbit"] = json.dumps(document, separators=(",", ":"))
    text = json.dumps(header, separators=(",", ":")).encode()
    data = struct.pack("<Q", len(text)) + text + body
    blank = b'\\"sha256\\":\\"' + b"0" * 64
    digest = hashlib.sha256(data).hexdigest().encode()
    return data.replace(blank, blank.replace(b"0" * 64, digest), 1)


def _edit(data: bytes, rng: Rng) -> bytes:
    """A header value or some bytes of the arrays changed, the checksum made right."""
    length = struct.unpack("<Q", data[:8])[0]
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
    if rng.integers(3) == 0:
        return signed(header, _flip(body, rng))
    document = json.loads(header["__metadata__"]["frostbit"])
    if rng.integers(3):
        _change(document, rng)
        header["__metadata__"]["frostbit"] = json.dumps(document)
    else:
        _change({k: v for k, v in header.items() if k != "__metadata__"}, rng)
    try:
        return signed(header, body)
    except (TypeError, ValueError, AttributeError):
        return json.dumps(header).encode()


def _change(value: Any, rng: Rng) -> None:
    """Change something inside ``value``, in place."""
    while True:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        if not keys:
            return
        key = keys[int(rng.integers(len(keys)))]
        if isinstance(value[key], (dict, list)) and value[key] and rng.integers(4):
            value = value[key]
            continue
        value[key] = _other(value[key], rng)
        return


def _other(old: Any, rng: Rng) -> Any:
    kind = int(rng.integers(5))
    if isinstance(old, int) and kind < 3:
        return int(old) + int(rng.choice([-1, 1, 2, 63, 2**16, 2**31, 2**63]))
    if isinstance(old, list) and kind < 3:
        return old[:-1] if rng.integers(2) else [*old, *old[:1]]
    others = [None, -1, 0, 2**40, 1e300, "", "conv0", [], {}, [[]], True, "x" * 300, old]
    return others[int(rng.integers(len(others)))]


MUTATIONS = (_flip, _cut, _insert, _edit, _edit, _edit)


def fuzz_models(count: int, seed: int = 0) -> Fuzzed:
    """Mutate small models of every op ``count`` times."""
    originals = [container.dumps(nets.every_op(i)) for i in range(4)]

    def one(rng: Rng) -> bool:
        original = originals[int(rng.integers(len(originals)))]
        data = MUTATIONS[int(rng.integers(len(MUTATIONS)))](original, rng)
        program = container.loads(data)
        return data == original or _agrees(program)

    return _run(count, seed, one, (FormatError,))


def _agrees(program: Program) -> bool:
    """Whether the engine computes what the reference does; huge models are only planned."""
    engine = Engine(program)
    if int(np.prod(program.input_shape)) > 2**16:
        return True
    verdict = analyse(program)
    images = random_images(program, 2)
    expected, got = reference.run(program, images), engine.run(images)
    if verdict.body_exact and verdict.head_exact:
        return bool(np.array_equal(expected, got))
    return got.shape == expected.shape


# ---------------------------------------------------------------- recipes and pictures


def fuzz_recipes(count: int, seed: int = 0) -> Fuzzed:
    """Mutate the shipped recipes."""
    texts = [recipe.to_toml(recipe.load(name, {})) for name in ("digits", "edge", "paper")]

    def one(rng: Rng) -> bool:
        text = texts[int(rng.integers(len(texts)))]
        lines = text.splitlines()
        at = int(rng.integers(len(lines)))
        if rng.integers(2):
            key = lines[at].partition("=")[0]
            lines[at] = f"{key}= {WORDS[int(rng.integers(len(WORDS)))]}"
            text = "\n".join(lines)
        else:
            text = _flip(text.encode(), rng).decode("utf-8", "replace")
        made = recipe.from_toml(text, "a recipe")
        return recipe.from_toml(recipe.to_toml(made), "again") == made

    return _run(count, seed, one, (UserError,))


def fuzz_pictures(count: int, folder: Path, seed: int = 0) -> Fuzzed:
    """Mutate pictures of usual formats."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    files = {}
    for ending in ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, ending)
        files[ending] = buffer.getvalue()
    names = list(files)
    path = folder / "picture"

    def one(rng: Rng) -> bool:
        data = files[names[int(rng.integers(len(names)))]]
        path.write_bytes((_flip, _cut, _insert)[int(rng.integers(3))](data, rng))
        shape = pictures.fitted(path, (16, 16, 3)).shape
        return shape == (16, 16, 3) and pictures.evaluated(path, 14).shape == (14, 14, 3)

    return _run(count, seed, one, (UserError,))
