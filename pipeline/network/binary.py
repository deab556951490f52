"""The binary modules in one place, with :func:`binarize`, which makes a network of them."""

from frostbit.pipeline.network.binarize import binarize
from frostbit.pipeline.network.binary_layers import (
    BinaryActivation,
    BinaryConv2d,
    BinaryLinear,
    Maskable,
    maskable,
    number_layers,
    unfrozen_layers,
)
from frostbit.pipeline.network.gradients import sign
from frostbit.pipeline.network.pixel_layers import StemConv2d, StemLinear

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
