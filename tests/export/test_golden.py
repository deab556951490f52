"""The toy network's files and answers, byte for byte: a change belongs in the changelog."""

import hashlib
from collections.abc import Callable

import numpy as np
import pytest

from frostbit.export.c import convert as to_c
from frostbit.export.lce import convert as to_lce
from frostbit.export.onnx import int8 as to_onnx_int8
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx import qonnx as to_qonnx
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.file import dumps
from frostbit.kernels.ir.program import Program
from tests.nets import images, toy

WRITERS: dict[str, tuple[Callable[[Program], bytes], str]] = {
    "bnn": (dumps, "cb37dd195de4900d"),
    "onnx": (to_onnx.convert, "3a8d3466956d5c9c"),
    "int8.onnx": (to_onnx_int8.convert, "87eca180d4edab37"),
    "float.onnx": (lambda program: to_onnx.convert(program, packed=False), "923e9a62ea3e6cff"),
    "qonnx": (to_qonnx.convert, "8ea06213518882cd"),
    "tflite": (to_lce.convert, "6189dbcd380be067"),
    "c": (to_c.convert, "b24426ffb4ad4c93"),
}
LOGITS = [
    [18.18408203125, -2.767578125, 5.5498046875, 28.6240234375, 25.91455078125],
    [8.42041015625, -1.189453125, -4.82958984375, 24.23583984375, 17.7763671875],
]


@pytest.mark.parametrize("name", WRITERS)
def test_the_bytes_are_known(name: str) -> None:
    convert, expected = WRITERS[name]
    assert hashlib.sha256(convert(toy())).hexdigest()[:16] == expected


def test_the_logits_are_known() -> None:
    program = toy()
    assert np.array_equal(Engine(program).run(images(program, 2)), np.array(LOGITS, np.float32))
