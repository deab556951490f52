"""What kernels are given: addresses and numbers, all int64, in groups that have names.

Jitted code makes them of its integers, and :func:`frostbit.kernels.micro.vector.emitted` hands them
on with LLVM's values as fields. Compiled, a group is nothing but its fields.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite.ir import Value


class Tile(NamedTuple):
    """Where the activations of a tile, ``TILE`` output pixels, lie.

    Attributes:
        source: address of the first tap of output pixel (0, 0).
        pixels: address of the tile's rows of the pixel table, int32 ``[TILE][4]``; column 0 is a
            pixel's distance from ``source`` in bytes.
    """

    source: Value
    pixels: Value


class Taps(NamedTuple):
    """What one block of output channels sums over.

    Attributes:
        offsets: address of int32 ``[count]``, each tap's distance from its pixel in bytes.
        count: taps of one output, in the unit of the kernel (words, values or pairs).
        weights: address of ``[count][32]`` weights.
    """

    offsets: Value
    count: Value
    weights: Value


class Parts(NamedTuple):
    """Equal parts of something.

    Attributes:
        address: of the first part.
        step: bytes from one to the next.
    """

    address: Value
    step: Value


class Affine(NamedTuple):
    """Addresses of a block's parameters.

    Attributes:
        start: int32 accumulators at 0 mismatches.
        mul, add: float32 factors and addends.
    """

    start: Value
    mul: Value
    add: Value


class Switch(NamedTuple):
    """Thresholds for either sign of a residual of bits.

    Attributes:
        limits: address of the int32 limits where the residual is +1.
        second: bytes from there to those for -1.
        flips: address of bits, 1 where the sign is the other way round.
    """

    limits: Value
    second: Value
    flips: Value


class Limits(NamedTuple):
    """Where an epilogue cuts off: ``clip(mul * clip(acc, low, high) + add + ..., least, most)``.

    Attributes:
        low, high: of accumulators.
        least, most: of results, the bits of a float32.
    """

    low: Value
    high: Value
    least: Value
    most: Value
