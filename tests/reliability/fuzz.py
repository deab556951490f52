"""Mutated files: each must load equal, be refused with our error, or be right all the same.

``model.bnn``: bit flips, truncations, insertions, and edits of header fields and arrays whose
checksum is made right again. What loads after such an edit is another valid model, and then the
engine must agree with the reference on it. .tflite: the same without checksums, and numbers of its
tables; what is read must equal what Larq Compute Engine makes of it. ONNX and QONNX: the same, and
changes of the graph, beside ONNX Runtime and the qonnx package. Recipes and pictures: our
error or a value. Run folders: our error, or a model that packs. Hypothesis draws the mutations.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import hypothesis
import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from frostbit.export.errors import LceError, SourceDiffers
from frostbit.export.inputs import random_images
from frostbit.export.lce.runtime import Worker
from frostbit.export.onnx import packed as onnx_packed
from frostbit.export.onnx import qonnx as onnx_qonnx
from frostbit.export.parity import allowed
from frostbit.export.reading.compare import compare, wanted
from frostbit.export.reading.imported import Imported
from frostbit.export.reading.match import to_program
from frostbit.export.reading.onnx.read import Read
from frostbit.export.reading.onnx.read import read_graph as read_onnx
from frostbit.export.reading.onnx.runtime import OnnxSource
from frostbit.export.reading.tflite.read import read_graph
from frostbit.export.reading.tflite.runtime import LceSource
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import file as model_file
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.program import FormatError, Program
from frostbit.kernels.ir.verify import infer_types
from frostbit.kernels.plan.plan import make_plan
from frostbit.pipeline.data import pictures
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.run import folder as run_folder
from frostbit.pipeline.run import metrics, recipe
from tests import nets
from tests.export.reading.foreign import FOLDER as FOREIGN
from tests.export.reading.foreign import TFLITE
from tests.kernels import programs
from tests.reliability import guard, mutate

WORDS = ["", "1e99", "-1", "nan", "true", "[]", "{}", "x" * 5000, "\0", "9" * 20, "9" * 5000, '"']
LARGE = 2**16
"""Elements of a value from which on a mutated model is planned and not run."""


@dataclass
class Fuzzed:
    """Counts of one kind of file; ``wrong`` must be 0.

    Attributes:
        tried: mutations.
        rejected: refused with our own error, one line.
        accepted: loaded, and equal to the original or, for another valid model, computed as the
            reference does.
        loose: of those, not exact by proof, so that only shape and finiteness were compared.
        wrong: answered differently.
        slowest: seconds of processor time of the slowest one.
        grown: megabytes by which the process grew.
    """

    tried: int = 0
    rejected: int = 0
    accepted: int = 0
    loose: int = 0
    wrong: int = 0
    slowest: float = 0.0
    grown: float = 0.0


def _run(
    count: int,
    seed: int,
    one: Callable[[Random, Fuzzed], bool],
    errors: tuple[type[Exception], ...],
) -> Fuzzed:
    """Run ``one`` (True: right, False: wrong, our error: refused) ``count`` times.

    Anything else that is raised, a hang, or memory beyond the limit is shrunk and reported by
    Hypothesis.
    """
    found, before = Fuzzed(), guard.peak_megabytes()

    @hypothesis.seed(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.randoms(use_true_random=False))
    def mutated(rng: Random) -> None:
        found.tried += 1
        start = time.process_time()
        right, refusal = True, ""
        try:
            with guard.short():
                right = one(rng, found)
        except errors as error:
            refusal = str(error)
        found.slowest = max(found.slowest, time.process_time() - start)
        found.rejected += bool(refusal)
        found.accepted += right and not refusal
        found.wrong += not right
        assert right, "a wrong answer"
        assert len(refusal.splitlines()) <= 1, f"more than one line: {refusal}"

    with guard.small():
        mutated()
    found.grown = guard.peak_megabytes() - before
    return found


def fuzz_models(count: int, seed: int = 0) -> Fuzzed:
    """Mutate small models of every op ``count`` times."""
    originals = [model_file.dumps(nets.every_op(i)) for i in range(4)]
    for data in originals:  # compiled before anything is limited
        agrees(model_file.loads(data), Fuzzed())

    def one(rng: Random, found: Fuzzed) -> bool:
        original = rng.choice(originals)
        data = rng.choice(mutate.MODEL)(original, rng)
        program = model_file.loads(data)
        return data == original or agrees(program, found)

    return _run(count, seed, one, (FormatError,))


def fuzz_tflite(count: int, seed: int = 0, compared: int = 1) -> Fuzzed:
    """Mutate small .tflite files; of those that are read every ``compared``-th also runs in LCE.

    Refused by the reader or by Larq Compute Engine, or computed alike by both.
    """
    originals = [(FOREIGN / f"{name}.tflite").read_bytes() for name in TFLITE]
    workers = [Worker(30.0)]

    def in_lce(data: bytes, imported: Imported) -> bool:
        try:
            source = LceSource(data, imported, workers[0])
            compare(imported, source, random_images(imported.program, 0, 1))
        except SourceDiffers:
            return False
        except LceError:  # its native code may have crashed on what it refuses
            workers[0].close()
            workers[0] = Worker(30.0)
            raise
        return True

    def one(rng: Random, found: Fuzzed) -> bool:
        data = rng.choice(mutate.TABLES)(rng.choice(originals), rng)
        imported = to_program(read_graph(data))
        return found.accepted % compared != 0 or in_lce(data, imported)

    try:
        return _run(count, seed, one, (FormatError, LceError))
    finally:
        workers[0].close()


def fuzz_onnx(count: int, seed: int = 0, compared: int = 1) -> Fuzzed:
    """Mutate small ONNX and QONNX files; of those read every ``compared``-th runs in its runtime.

    Refused by the reader, by the runtime, or since a sign is of 0, which one bit cannot say; or
    computed alike by both.
    """
    originals = [onnx_packed.convert(nets.every_op(i)) for i in range(2)]
    originals.append(onnx_qonnx.convert(nets.every_op()))
    originals += [each.read_bytes() for each in sorted(FOREIGN.glob("*.onnx"))]

    def in_its_runtime(read: Read) -> bool:
        imported = to_program(read.graph)
        found = OnnxSource(read, wanted(imported))
        try:
            compare(imported, found, random_images(imported.program, 0, 1))
        except SourceDiffers as error:
            if "one bit cannot say that" in str(error):
                raise FormatError(str(error)) from error
            return False
        return True

    def one(rng: Random, found: Fuzzed) -> bool:
        data = rng.choice(mutate.ONNX)(rng.choice(originals), rng)
        read = read_onnx(data)
        if found.accepted % compared:
            to_program(read.graph)
            return True
        return in_its_runtime(read)

    for data in originals:  # what the runtimes load is loaded before anything is limited
        assert in_its_runtime(read_onnx(data))
    return _run(count, seed, one, (FormatError,))


def agrees(program: Program, found: Fuzzed) -> bool:
    """Whether the engine computes what the reference does; huge models are only planned."""
    if max(math.prod(value.shape) for value in infer_types(program).values()) > LARGE:
        make_plan(program, "portable")
        return True
    verdict = analyse(program)
    images = programs.random_images(program, 2)
    values = reference.trace(program, images)
    expected, got = values[program.ops[-1].name][:, 0, 0], Engine(program).run(images)
    if verdict.body_exact or not verdict.has_signs:
        difference = np.abs(expected.astype(np.float64) - got).max(axis=1)
        return bool((difference <= allowed(program, values)).all())
    found.loose += 1  # float32 may round a value to the other side of a sign
    return got.shape == expected.shape and bool(np.isfinite(got).all())


def fuzz_recipes(count: int, seed: int = 0) -> Fuzzed:
    """Mutate the shipped recipes."""
    texts = [recipe.to_toml(recipe.load(name, {})) for name in ("digits", "edge", "paper")]

    def one(rng: Random, found: Fuzzed) -> bool:
        text = rng.choice(texts)
        lines = text.splitlines()
        at = rng.randrange(len(lines))
        if rng.randrange(2):
            key = lines[at].partition("=")[0]
            lines[at] = f"{key}= {rng.choice(WORDS)}"
            text = "\n".join(lines)
        else:
            text = mutate.flip(text.encode(), rng).decode("utf-8", "replace")
        made = recipe.from_toml(text, "a recipe")
        return recipe.from_toml(recipe.to_toml(made), "again") == made

    return _run(count, seed, one, (UserError,))


def fuzz_pictures(count: int, folder: Path, seed: int = 0) -> Fuzzed:
    """Mutate pictures of usual formats, and of modes that are converted."""
    pixels = np.random.default_rng(seed).integers(0, 256, (24, 31, 3), dtype=np.uint8)
    colour, exif = Image.fromarray(pixels), Image.Exif()
    exif[274] = 6
    wide = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    chosen = [(colour, ending) for ending in pictures.FORMATS]
    chosen += [(colour.convert(mode), "PNG") for mode in ("1", "P", "LA", "RGBA")]
    chosen += [(colour.convert("CMYK"), "JPEG"), (wide, "PNG"), (wide, "TIFF")]
    files = []
    for image, ending in chosen:
        buffer = io.BytesIO()
        image.save(buffer, ending, **({} if ending in ("BMP", "GIF", "PPM") else {"exif": exif}))
        files.append(buffer.getvalue())
    path = folder / "picture"

    def one(rng: Random, found: Fuzzed) -> bool:
        path.write_bytes(rng.choice(mutate.BLIND)(rng.choice(files), rng))
        shape = pictures.fitted(path, (16, 16, 3)).shape
        return shape == (16, 16, 3) and pictures.evaluated(path, (14, 9, 1)).shape == (14, 9, 1)

    return _run(count, seed, one, (UserError,))


def fuzz_runs(count: int, folder: Path, seed: int = 0) -> Fuzzed:
    """Mutate the files of a finished run, make run.json's checksums right again, pack it."""
    from frostbit.pipeline.lowering.pack import pack
    from frostbit.pipeline.training.train import Options, train

    small = {"epochs": 1, "width": 8, "model": "bireal-2", "train_images": 300}
    train(recipe.load("digits", small), folder / "run", Options(device="cpu"))
    original = model_file.dumps(pack(folder / "run"))
    copy = folder / "copy"

    def one(rng: Random, found: Fuzzed) -> bool:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder / "run", copy)
        _mutate_run(copy, rng)
        run = run_folder.read_run(copy)
        metrics.read(run.folder.metrics)
        data = model_file.dumps(pack(copy))
        return data == original or agrees(model_file.loads(data), found)

    return _run(count, seed, one, (UserError, FormatError))


def _mutate_run(copy: Path, rng: Random) -> None:
    facts = json.loads((copy / "run.json").read_text())
    name = rng.choice(["run.json", "run.json", *facts["sha256"]])
    path = copy / name
    if name == "run.json":
        if rng.randrange(4):
            mutate.change(facts, rng)
            path.write_text(json.dumps(facts))
        else:
            path.write_bytes(rng.choice(mutate.BLIND)(path.read_bytes(), rng))
        return
    path.write_bytes(rng.choice(mutate.BLIND)(path.read_bytes(), rng))
    facts["sha256"][name] = hashlib.sha256(path.read_bytes()).hexdigest()
    (copy / "run.json").write_text(json.dumps(facts))
