"""Export a packed model from Python, and compare every bit of what the exports compute.

python examples/export_and_verify.py MODEL FOLDER
"""

import sys
from pathlib import Path

import numpy as np

import frostbit as fb

FORMATS = {"onnx": "model.onnx", "c": "model.c"}


def main(model: Path, folder: Path) -> bool:
    """Write the files, run them, print what differs; returns whether nothing does."""
    program = fb.read(model)
    for file in FORMATS.values():
        written = fb.export_model(program, folder / file)
        print(f"{written.path.name}: {written.bytes:,} bytes, {written.check}")

    images = np.random.default_rng(0).integers(0, 256, (64, *program.input_shape), dtype=np.uint8)
    found = fb.verify(program, images, formats=["bnn", *FORMATS], folder=folder)
    for each in found.report.comparisons:
        print(f"{each.name}: {each.sign_bits_differing} of {each.sign_bits_compared:,} bits differ")
    for absent in found.missing:
        print(f"{absent.name}: {absent.remedy}")
    print(f"parity {found.report.verdict}")
    return found.passed


if __name__ == "__main__":
    sys.exit(not main(Path(sys.argv[1]), Path(sys.argv[2])))
