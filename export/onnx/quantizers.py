"""QONNX's operators that round values to few bits while they stay floats, as Brevitas writes them.

Source: ``qonnx/custom_op/general`` of fastmachinelearning/qonnx. Each passes on the shape of its
first input; the number of bits is a constant input.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from numpy.typing import NDArray

DOMAINS = {"qonnx.custom_op.general", "finn.custom_op.general", "onnx.brevitas"}
"""Where they were and are: today's name, and those of files of earlier years."""
MOST_BITS = 32
"""The values are float32."""
_WIDTHS = {"Quant": (3,), "IntQuant": (3,), "FloatQuant": (2, 3), "Trunc": (-1,)}
"""Which inputs state bits; of a float those of exponent and mantissa, beside its sign."""


def is_quantizer(node: onnx.NodeProto) -> bool:
    """Whether ``node`` is one of these, with an input to round."""
    known = node.op_type == "BipolarQuant" or node.op_type in _WIDTHS
    return known and node.domain in DOMAINS and len(node.input) > 0


def quantized_bits(node: onnx.NodeProto, values: Mapping[str, NDArray[np.generic]]) -> int | None:
    """Bits of what a quantizer makes; None where they are not known beforehand.

    Args:
        node: for which :func:`is_quantizer` holds.
        values: constants of the file by name.
    """
    if node.op_type == "BipolarQuant":
        return 1
    places = _WIDTHS[node.op_type]
    if len(node.input) <= max(places):
        return None
    bits = 1 if node.op_type == "FloatQuant" else 0
    for place in places:
        width = values.get(node.input[place])
        if width is None or width.size == 0 or width.dtype.kind not in "fiu":
            return None
        largest = float(width.max())
        if not 0 <= largest <= MOST_BITS:
            return None
        bits += math.ceil(largest)
    return bits if 1 <= bits <= MOST_BITS else None
