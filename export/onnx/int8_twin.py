"""``ort-int8``: the float32 twin quantized by ONNX Runtime's own static QDQ quantization.

Weights int8 per channel, activations uint8 (the form ONNX Runtime runs fastest on x86), ranges
calibrated on seeded random images. Like the float32 twin it can be timed and nothing else.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from frostbit.export.inputs import random_images
from frostbit.export.onnx.float_twin import onnx_twin
from frostbit.export.onnx.runtime import session, time_session
from frostbit.export.runtimes import Images, Milliseconds
from frostbit.kernels.ir.output import write_file
from frostbit.kernels.ir.program import INPUT, Program

CALIBRATION_IMAGES = 8


class _Pixels(CalibrationDataReader):  # type: ignore[misc]
    """Seeded random images, one image a time."""

    def __init__(self, program: Program) -> None:
        images = random_images(program, 0, CALIBRATION_IMAGES).transpose(0, 3, 1, 2)
        self._left: Iterator[NDArray[np.float32]] = iter(images[:, None].astype(np.float32))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next image by input name, None after the last."""
        image = next(self._left, None)
        return None if image is None else {INPUT: image}


@contextmanager
def _quiet() -> Iterator[None]:
    """ONNX Runtime's quantizer logs advice about models that are not ours to change."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def int8_twin(program: Program) -> bytes:
    """ONNX bytes of the statically quantized twin: input float32 ``[1, C, H, W]``."""
    with tempfile.TemporaryDirectory() as folder, _quiet():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        write_file(source, onnx_twin(program))
        quantize_static(
            source,
            target,
            _Pixels(program),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )
        return target.read_bytes()


class OrtInt8Twin:
    """``ort-int8``: the quantized twin in ONNX Runtime."""

    name = "ort-int8"

    def __init__(self, program: Program, threads: int = 1) -> None:
        model = int8_twin(program)
        self.size_bytes = len(model)
        self._session = session(model, "all", threads)

    def latency(self, image: Images, repeats: int) -> Milliseconds:
        pixels = np.ascontiguousarray(image.transpose(0, 3, 1, 2).astype(np.float32))
        return time_session(self._session, {INPUT: pixels}, repeats)

    def close(self) -> None:
        self._session = None
