"""Convolutions: the loops over tiles, blocks and chunks around the micro-kernels and epilogues.

Every function takes the addresses of a ``row`` (see :mod:`frostbit.kernels.op_table`), of the
``arena`` and of the ``constants``, and returns nothing.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.tile_epilogue import epilogue
from frostbit.kernels.machine.jit import inlined, inner
from frostbit.kernels.micro.floats import depthwise_tile, float_tile, grouped_float_tile
from frostbit.kernels.micro.fused import (
    HAS_FUSED,
    affine_two,
    affine_two_both,
    affine_two_from,
    affine_two_to,
    integer_two,
    switch_two,
    threshold_two,
)
from frostbit.kernels.micro.integers import integer_tile
from frostbit.kernels.micro.lookup import (
    CHUNK,
    COUNT_BYTES,
    GROUP,
    PAIRS,
    TILE_COUNTS,
    TRIPLE,
    index_by_one,
    index_by_two,
    lookup_one,
    lookup_two,
    widen_counts,
)
from frostbit.kernels.micro.vector import BLOCK, LANES, clear, field
from frostbit.kernels.micro.xnor import PIXEL_BYTES, TILE, grouped_tile, portable_tile, xnor_tile


@inlined
def accumulate(row, source, constants, block, pixels, counts):
    """Run the micro-kernel on one tile: TILE pixels x one block of output channels."""
    taps = field(row, t.TAPS)
    offsets = constants + field(row, t.OFFSETS)
    weights = constants + field(row, t.WEIGHTS) + block * taps * BLOCK
    if field(row, t.MICRO) == t.XNOR:
        xnor_tile(source, pixels, offsets, taps, weights, counts)
    elif field(row, t.MICRO) == t.FLOAT:
        float_tile(source, pixels, offsets, taps, weights, counts)
    elif field(row, t.MICRO) == t.INTEGER:
        exponent = field(row, t.EXPONENT)
        integer_tile(source, pixels, offsets, taps, weights, counts, exponent)
    elif field(row, t.MICRO) == t.PORTABLE:
        portable_tile(source, pixels, offsets, taps, weights, counts)
    elif field(row, t.MICRO) == t.DEPTHWISE:
        depthwise_tile(source + block * BLOCK, pixels, offsets, taps, weights, counts)
    else:
        lanes = constants + field(row, t.LANES) + block * BLOCK
        if field(row, t.MICRO) == t.GROUPED:
            grouped_tile(source, pixels, offsets, taps, weights, counts, lanes)
        else:
            grouped_float_tile(source, pixels, offsets, taps, weights, counts, lanes)


@inlined
def count_group(row, arena, constants, block, tiles):
    """Counts of ``tiles`` tiles and one or two blocks of output channels by table look-up."""
    stride, nibbles = field(row, t.INDEX_BYTES), field(row, t.NIBBLES)
    tables = constants + field(row, t.TABLES)
    counts = arena + t.HEAD_BYTES
    both = block + 1 < field(row, t.BLOCKS)
    clear(counts, COUNT_BYTES)
    for chunk in range(0, nibbles, CHUNK):
        triples = min(CHUNK, nibbles - chunk) // TRIPLE
        weights = constants + field(row, t.WEIGHTS) + (block * nibbles + chunk) * LANES
        for tile in range(tiles):
            indices = counts + COUNT_BYTES + tile * PAIRS * stride + 2 * chunk
            out = counts + tile * TILE_COUNTS
            if both:
                lookup_two(
                    tables,
                    indices,
                    stride,
                    weights,
                    nibbles * LANES,
                    triples,
                    out,
                    COUNT_BYTES // 2,
                )
            else:
                lookup_one(
                    tables,
                    indices,
                    stride,
                    weights,
                    nibbles * LANES,
                    triples,
                    out,
                    COUNT_BYTES // 2,
                )


@inner
def convolve_by_lookup(row, arena, constants):
    """Binary convolution by table look-up, with its fused epilogue."""
    clear(arena + field(row, t.CLEAR), field(row, t.CLEAR_BYTES))
    source, offsets = arena + field(row, t.SOURCE), constants + field(row, t.OFFSETS)
    words, pixels = field(row, t.TAPS), field(row, t.PIXELS)
    stride, counts, wide = field(row, t.INDEX_BYTES), arena + t.HEAD_BYTES, arena + t.COUNTS
    for group in range(0, pixels, GROUP * TILE):
        tiles = min(GROUP, (pixels - group + TILE - 1) // TILE)
        table = constants + field(row, t.PIXEL_TABLE) + group * PIXEL_BYTES
        for tile in range(tiles):
            entry = table + tile * TILE * PIXEL_BYTES
            indices = counts + COUNT_BYTES + tile * PAIRS * stride
            if field(row, t.IN_PAIRS):
                index_by_two(source, entry, offsets, words, indices, stride)
            else:
                index_by_one(source, entry, offsets, words, indices, stride)
        for block in range(0, field(row, t.BLOCKS), 2):
            count_group(row, arena, constants, block, tiles)
            for half in range(min(2, field(row, t.BLOCKS) - block)):
                for tile in range(tiles):
                    entry = table + tile * TILE * PIXEL_BYTES
                    widen_counts(counts + half * (COUNT_BYTES // 2) + tile * TILE_COUNTS, wide)
                    epilogue(row, arena, constants, block + half, group + tile * TILE, entry, wide)


@inlined
def fused_affine(row, constants, block, entry, residual, first, out, bits, source, weights):
    """The affine case of :func:`fused_tile`, by the kinds of residual and result."""
    taps, offsets = field(row, t.TAPS), constants + field(row, t.OFFSETS)
    apart, exponent = taps * BLOCK, field(row, t.EXPONENT)
    start = constants + field(row, t.START) + block * BLOCK
    mul = constants + field(row, t.MUL) + block * BLOCK
    add = constants + field(row, t.ADD) + block * BLOCK
    residual_pixel, out_pixel = field(row, t.RESIDUAL_PIXEL), field(row, t.OUT_PIXEL)
    residual += first * residual_pixel
    from_steps = field(row, t.RESIDUAL_KIND) == t.I16
    to_steps = field(row, t.OUT_KIND) == t.I16
    if from_steps and to_steps:
        affine_two_both(
            source, entry, offsets, taps, weights, apart, start, mul, add, residual, residual_pixel,
            out, out_pixel, bits, exponent,
        )  # fmt: skip
    elif from_steps:
        affine_two_from(
            source, entry, offsets, taps, weights, apart, start, mul, add, residual, residual_pixel,
            out, out_pixel, bits, exponent,
        )  # fmt: skip
    elif to_steps:
        affine_two_to(
            source, entry, offsets, taps, weights, apart, start, mul, add, residual, residual_pixel,
            out, out_pixel, bits, exponent,
        )  # fmt: skip
    else:
        affine_two(
            source, entry, offsets, taps, weights, apart, start, mul, add, residual, residual_pixel,
            out, out_pixel, bits, exponent,
        )  # fmt: skip


@inlined
def fused_tile(row, arena, constants, block, first, entry):
    """A tile and two blocks of a convolution without groups, epilogue included."""
    taps, offsets = field(row, t.TAPS), constants + field(row, t.OFFSETS)
    source, apart = arena + field(row, t.SOURCE), taps * BLOCK
    weights = constants + field(row, t.WEIGHTS) + block * apart
    start = constants + field(row, t.START) + block * BLOCK
    bits = arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK)
    residual = arena + field(row, t.RESIDUAL) + block * field(row, t.RESIDUAL_BLOCK)
    out_pixel = field(row, t.OUT_PIXEL)
    out = arena + field(row, t.OUT) + block * field(row, t.OUT_BLOCK) + first * out_pixel
    if field(row, t.MICRO) == t.INTEGER:
        integer_two(
            source,
            entry,
            offsets,
            taps,
            weights,
            apart,
            field(row, t.EXPONENT),
            constants + field(row, t.ADD) + block * BLOCK,
            out,
            out_pixel,
            bits,
        )
    elif field(row, t.MUL) == t.THRESHOLD:
        threshold_two(source, entry, offsets, taps, weights, apart, start, bits)
    elif field(row, t.MUL) == t.SWITCH:
        flips = constants + field(row, t.FLIPS) + 4 * block
        second = field(row, t.SECOND)
        switch_two(
            source,
            entry,
            offsets,
            taps,
            weights,
            apart,
            start,
            second,
            flips,
            residual,
            bits,
        )
    else:
        fused_affine(row, constants, block, entry, residual, first, out, bits, source, weights)


@inlined
def tiles(row, arena, constants, block, begin):
    """Tiles of one block from pixel ``begin`` on: micro-kernel, then epilogue."""
    source, counts = arena + field(row, t.SOURCE), arena + t.COUNTS
    for first in range(begin, field(row, t.PIXELS), TILE):
        entry = constants + field(row, t.PIXEL_TABLE) + first * PIXEL_BYTES
        accumulate(row, source, constants, block, entry, counts)
        epilogue(row, arena, constants, block, first, entry, counts)


@inner
def convolve_fused(row, arena, constants):
    """Pairs of blocks of a convolution; returns how many blocks are done.

    Sign bits of a pixel that fills up the last tile are written twice; floats have no such
    pixel, so the last part of a tile is left to the unfused kernels.
    """
    pixels, blocks = field(row, t.PIXELS), field(row, t.BLOCKS)
    whole = pixels if field(row, t.MUL) < 0 else pixels // TILE * TILE
    for block in range(0, blocks - 1, 2):
        for first in range(0, whole, TILE):
            entry = constants + field(row, t.PIXEL_TABLE) + first * PIXEL_BYTES
            fused_tile(row, arena, constants, block, first, entry)
        for one in range(2):
            tiles(row, arena, constants, block + one, whole)
    return blocks // 2 * 2


@inner
def convolve(row, arena, constants):
    """Convolution or dense layer of bits or floats, with its fused epilogue."""
    clear(arena + field(row, t.CLEAR), field(row, t.CLEAR_BYTES))
    done = 0
    micro = field(row, t.MICRO)
    is_known = micro == t.XNOR or micro == t.INTEGER
    is_simple = field(row, t.MUL) < 0 or field(row, t.RESIDUAL_KIND) != t.BITS
    if HAS_FUSED and is_known and is_simple:
        done = convolve_fused(row, arena, constants)
    for block in range(done, field(row, t.BLOCKS)):
        tiles(row, arena, constants, block, 0)
