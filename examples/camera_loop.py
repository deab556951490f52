"""The engine in a camera loop: every picture in a folder, its class and the latency.

python examples/camera_loop.py MODEL FOLDER

The base install is enough. A camera that gives arrays needs ``engine.run`` alone.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

import frostbit as fb


def frames(folder: Path, shape: tuple[int, int, int]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Names and pixels, uint8 [H, W, C], of the pictures in ``folder``; replace by your camera."""
    height, width, channels = shape
    for path in sorted(folder.iterdir()):
        with Image.open(path) as picture:
            colours = picture.convert("L" if channels == 1 else "RGB")
            fitted = ImageOps.fit(colours, (width, height), Image.Resampling.BILINEAR)
        yield path.name, np.asarray(fitted, np.uint8).reshape(shape)


def main(model: Path, folder: Path) -> None:
    """One line a frame."""
    engine = fb.load(model)
    engine.run(np.zeros((1, *engine.input_shape), np.uint8))  # the first run warms the caches
    for name, pixels in frames(folder, engine.input_shape):
        start = time.perf_counter()
        logits = engine.run(pixels[None])
        milliseconds = 1000 * (time.perf_counter() - start)
        print(f"{name}: {engine.classes[int(logits.argmax())]} ({milliseconds:.3f} ms)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
