"""Stores the answers of the shipped model: ``python -m tests.figures.answers`` after it changed."""

from __future__ import annotations

import io

import numpy as np

from frostbit.kernels.ir import reference
from frostbit.kernels.ir.file import load_program, program_hash
from frostbit.pipeline.bench import shipped
from frostbit.pipeline.data.datasets import load
from frostbit.pipeline.run.folder import write_bytes

COUNT = 256


def main() -> None:
    """The first images of Fashion-MNIST's test set, their labels, and the reference's logits."""
    program = load_program(shipped.MODEL)
    test = load("fashion-mnist").test.first(COUNT)
    images = test.take(range(COUNT))
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        images=images,
        labels=test.labels,
        logits=reference.run(program, images),
        program_sha256=np.array(program_hash(program)),
    )
    write_bytes(shipped.ANSWERS, buffer.getvalue())


if __name__ == "__main__":
    main()
