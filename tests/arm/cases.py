"""Programs, images and the results they must give on ARM: ``python -m tests.arm.cases FOLDER``.

Runs on x86, where the reference and every micro-kernel must agree first. The ARM side
(:mod:`tests.arm.check`) has only the base install, so what Hypothesis draws is written to files.
"""

from __future__ import annotations

import io
import shutil
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from hypothesis import given, settings

from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.file import load_program, save_program
from frostbit.kernels.ir.program import INPUT, Conv, Dense, Program, Window
from frostbit.kernels.machine import cpu
from frostbit.pipeline.data.inputs import Place, inputs_for
from frostbit.pipeline.device import bundle
from tests import RECORDS, nets
from tests.kernels.programs import Builder, exact_programs, random_images

IMAGES = 3
RANDOM = 12
TRAINED = RECORDS / "fashion-best.bnn"


def drawn_programs() -> list[Program]:
    """The same ``RANDOM`` Programs every time, spread over what Hypothesis draws."""
    found: list[Program] = []

    @settings(max_examples=20 * RANDOM, derandomize=True, database=None, deadline=None)
    @given(exact_programs())
    def collect(program: Program) -> None:
        found.append(program)

    collect()
    return found[:: len(found) // RANDOM][:RANDOM]


def whole_weights() -> Program:
    """A stem, a strided 1x1 and a depthwise convolution of bits, and a head: weights of 8 bits."""
    b = Builder((12, 12, 3), seed=8)

    def with_8_bits() -> None:
        op = b.ops[-1]
        assert isinstance(op, Conv | Dense)
        small = b.rng.integers(-127, 128, op.weights.shape)
        scale = (b.rng.integers(1, 4, len(small)) / 64).astype(np.float32)
        weights = small * scale.reshape(-1, *[1] * (small.ndim - 1))
        b.ops[-1] = replace(op, weights=weights.astype(np.float32), add=np.round(op.add))

    stem = b.conv(INPUT, 70, Window((7, 7), (2, 2), (3, 3, 3, 3)))
    with_8_bits()
    x = b.sign(stem)
    same = Window((3, 3), pads=(1, 1, 1, 1))
    y = b.conv(x, 70, same, 70)
    with_8_bits()
    z = b.conv(x, 70, Window((1, 1)))
    with_8_bits()
    b.finish(b.to_float(b.sign(b.add(y, z))))
    with_8_bits()
    return b.program()


def write_case(folder: Path, name: str, program: Program) -> None:
    """Write ``NAME.bnn`` and ``NAME.npz``: images, logits and every sign tensor."""
    images = random_images(program, IMAGES)
    values = reference.trace(program, images)
    logits = values[program.ops[-1].name][:, 0, 0]
    for kernel in cpu.available():
        found = Engine(program, kernel=kernel).run(images)
        np.testing.assert_array_equal(found, logits, f"{name} {kernel}")
    save_program(program, folder / f"{name}.bnn")
    signs = {f"sign:{n}": bits.pack(v) for n, v in values.items() if v.dtype == np.int8}
    np.savez(folder / f"{name}.npz", images=images, logits=logits, **signs)


def write_bundle(folder: Path, program: Program) -> None:
    """What a board gets, unpacked, its wheel in ``lib`` (there is no pip under emulation)."""
    inputs = inputs_for(program, Place(), 0, bundle.IMAGES)
    with zipfile.ZipFile(io.BytesIO(bundle.build(program, "fashion-best", inputs))) as archive:
        archive.extractall(folder)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as archive:
        archive.extractall(folder / "lib")


def main(folder: Path) -> None:
    """Write every case into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        shutil.rmtree(old) if old.is_dir() else old.unlink()
    write_case(folder, "every-op", nets.every_op())
    write_case(folder, "whole-weights", whole_weights())
    write_case(folder, "resnet18-32", synthetic("resnet18@32"))
    write_case(folder, "mobilenet-v2-32", synthetic("mobilenet_v2@32"))
    trained = load_program(TRAINED)
    write_case(folder, "fashion-best", trained)
    write_bundle(folder / "bundle", trained)
    for i, program in enumerate(drawn_programs()):
        write_case(folder, f"random-{i:02}", program)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
