"""The binary modules in one place, with :func:`binarize`, which makes a network of them."""

from pipeline.convert import binarize
from pipeline.gradients import sign
from pipeline.masked import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Maskable,
    maskable,
    number_layers,
    unfrozen_layers,
)
from pipeline.stem import StemConv2d, StemLinear

__all__ = [
    "BinaryActivation",
    "BinaryConv2d",
    "BinaryLinear",
    "Maskable",
    "StemConv2d",
    "StemLinear",
    "binarize",
    "maskable",
    "number_layers",
    "sign",
    "unfrozen_layers",
]
