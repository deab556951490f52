"""Convolutions: the loops over tiles, blocks and chunks around the micro-kernels and epilogues.

Every function takes the addresses of a ``row`` (see :mod:`frostbit.kernels.op_table`), of the
``arena`` and of the ``constants``, and returns nothing.
"""
# mypy: disable-error-code="no-untyped-def, no-untyped-call"
# reason: these bodies are typed by Numba, from int64 addresses alone

from __future__ import annotations

from frostbit.kernels import op_table as t
from frostbit.kernels.loops.parts import clear_pixels, own
from frostbit.kernels.loops.tile_epilogue import (
    affine_of,
    epilogue,
    limits_of,
    out_of,
    residual_of,
    switch_of,
)
from frostbit.kernels.machine.jit import inlined, inner
from frostbit.kernels.micro.floats import (
    GROUP_BYTES,
    dense_block,
    depthwise_tile,
    float_tile,
)
from frostbit.kernels.micro.fused import (
    HAS_FUSED,
    affine_int8,
    affine_int16,
    affine_two,
    affine_two_both,
    affine_two_from,
    affine_two_to,
    limited_two,
    switch_two,
    threshold_int8,
    threshold_int16,
    threshold_two,
)
from frostbit.kernels.micro.integers import int8_tile, int16_tile, lanes_tile
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
from frostbit.kernels.micro.operands import Parts, Taps, Tile
from frostbit.kernels.micro.quads import QUADS, quads_tile
from frostbit.kernels.micro.vector import BLOCK, LANES, clear, field, load_i32
from frostbit.kernels.micro.xnor import PIXEL_BYTES, TILE, grouped_tile, portable_tile, xnor_tile


@inlined
def taps_of(row, constants, block):
    """The taps of one block of output channels."""
    count = field(row, t.TAPS)
    weights = constants + field(row, t.WEIGHTS) + block * count * BLOCK
    return Taps(constants + field(row, t.OFFSETS), count, weights)


@inlined
def accumulate(row, source, constants, block, pixels, counts):
    """Run the micro-kernel on one tile: TILE pixels x one block of output channels."""
    tile, taps = Tile(source, pixels), taps_of(row, constants, block)
    if field(row, t.MICRO) == t.XNOR:
        xnor_tile(tile, taps, counts)
    elif field(row, t.MICRO) == t.INT16:
        int16_tile(tile, taps, counts)
    elif field(row, t.MICRO) == t.INT8:
        int8_tile(tile, taps, counts)
    elif field(row, t.MICRO) == t.LANES16:
        weights = constants + field(row, t.WEIGHTS) + block * taps.count * (BLOCK // 2)
        lanes = Taps(taps.offsets, taps.count, weights)
        lanes_tile(Tile(source + block * (BLOCK // 2), pixels), lanes, counts)
    elif field(row, t.MICRO) == t.PORTABLE:
        portable_tile(tile, taps, counts)
    else:
        grouped_tile(tile, taps, counts, constants + field(row, t.LANES) + block * BLOCK)


@inlined
def count_group(row, arena, constants, block, tiles):
    """Counts of ``tiles`` tiles and one or two blocks of output channels by table look-up."""
    stride, nibbles = field(row, t.INDEX_BYTES), field(row, t.NIBBLES)
    tables = constants + field(row, t.TABLES)
    counts = own(row, arena) + t.HEAD_BYTES
    both = block + 1 < field(row, t.END_BLOCK)
    clear(counts, COUNT_BYTES)
    for chunk in range(0, nibbles, CHUNK):
        triples = min(CHUNK, nibbles - chunk) // TRIPLE
        at_weights = constants + field(row, t.WEIGHTS) + (block * nibbles + chunk) * LANES
        weights = Parts(at_weights, nibbles * LANES)
        for tile in range(tiles):
            pairs = Parts(counts + COUNT_BYTES + tile * PAIRS * stride + 2 * chunk, stride)
            out = Parts(counts + tile * TILE_COUNTS, COUNT_BYTES // 2)
            if both:
                lookup_two(tables, pairs, weights, triples, out)
            else:
                lookup_one(tables, pairs, weights, triples, out)


@inner
def convolve_by_lookup(row, arena, constants):
    """Binary convolution by table look-up, with its fused epilogue."""
    clear_pixels(row, arena, constants)
    source, taps = arena + field(row, t.SOURCE), taps_of(row, constants, 0)
    stride, head, end = field(row, t.INDEX_BYTES), own(row, arena), field(row, t.END)
    counts, wide = head + t.HEAD_BYTES, head + t.COUNTS
    for group in range(field(row, t.BEGIN), end, GROUP * TILE):
        tiles = min(GROUP, (end - group + TILE - 1) // TILE)
        table = constants + field(row, t.PIXEL_TABLE) + group * PIXEL_BYTES
        for tile in range(tiles):
            entry = table + tile * TILE * PIXEL_BYTES
            pairs = Parts(counts + COUNT_BYTES + tile * PAIRS * stride, stride)
            if field(row, t.IN_PAIRS):
                index_by_two(Tile(source, entry), taps, pairs)
            else:
                index_by_one(Tile(source, entry), taps, pairs)
        for block in range(field(row, t.FIRST_BLOCK), field(row, t.END_BLOCK), 2):
            count_group(row, arena, constants, block, tiles)
            for half in range(min(2, field(row, t.END_BLOCK) - block)):
                for tile in range(tiles):
                    entry = table + tile * TILE * PIXEL_BYTES
                    widen_counts(counts + half * (COUNT_BYTES // 2) + tile * TILE_COUNTS, wide)
                    epilogue(row, arena, constants, block + half, group + tile * TILE, entry, wide)


@inlined
def fused_affine(row, tile, taps, affine, residual, out, bits):
    """The affine case of :func:`fused_tile`, by the kinds of residual and result."""
    exponent, limits = field(row, t.EXPONENT), limits_of(row)
    micro = field(row, t.MICRO)
    from_steps = field(row, t.RESIDUAL_KIND) == t.I16
    to_steps = field(row, t.OUT_KIND) == t.I16
    if micro == t.INT16:
        affine_int16(tile, taps, affine, residual, out, bits, exponent, limits)
    elif micro == t.INT8:
        affine_int8(tile, taps, affine, residual, out, bits, exponent, limits)
    elif field(row, t.HAS_LIMITS):
        limited_two(tile, taps, affine, residual, out, bits, exponent, limits)
    elif from_steps and to_steps:
        affine_two_both(tile, taps, affine, residual, out, bits, exponent, limits)
    elif from_steps:
        affine_two_from(tile, taps, affine, residual, out, bits, exponent, limits)
    elif to_steps:
        affine_two_to(tile, taps, affine, residual, out, bits, exponent, limits)
    else:
        affine_two(tile, taps, affine, residual, out, bits, exponent, limits)


@inlined
def fused_tile(row, arena, constants, block, first, entry):
    """A tile and two blocks of a convolution without groups, epilogue included."""
    tile, taps = Tile(arena + field(row, t.SOURCE), entry), taps_of(row, constants, block)
    bits = arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK)
    residual = residual_of(row, arena, block, first)
    out = out_of(row, arena, block, first)
    if field(row, t.MUL) == t.THRESHOLD:
        limits = constants + field(row, t.START) + block * BLOCK
        if field(row, t.MICRO) == t.INT16:
            threshold_int16(tile, taps, limits, bits)
        elif field(row, t.MICRO) == t.INT8:
            threshold_int8(tile, taps, limits, bits)
        else:
            threshold_two(tile, taps, limits, bits)
    elif field(row, t.MUL) == t.SWITCH:
        # a residual of bits: its places are in the pixel table
        at = arena + field(row, t.RESIDUAL) + block * field(row, t.RESIDUAL_BLOCK)
        switch_two(tile, taps, switch_of(row, constants, block), at, bits)
    else:
        fused_affine(row, tile, taps, affine_of(row, constants, block), residual, out, bits)


@inlined
def tiles(row, arena, constants, block, begin):
    """Tiles of one block from pixel ``begin`` on: micro-kernel, then epilogue."""
    source, counts = arena + field(row, t.SOURCE), own(row, arena) + t.COUNTS
    for first in range(begin, field(row, t.END), TILE):
        entry = constants + field(row, t.PIXEL_TABLE) + first * PIXEL_BYTES
        accumulate(row, source, constants, block, entry, counts)
        epilogue(row, arena, constants, block, first, entry, counts)


@inner
def convolve_fused(row, arena, constants):
    """Pairs of blocks of a convolution; returns the first block that is left.

    Sign bits of a pixel that fills up the last tile are written twice; floats have no such
    pixel, so the last part of a tile is left to the unfused kernels.
    """
    begin, end = field(row, t.BEGIN), field(row, t.END)
    whole = end if field(row, t.MUL) < 0 else end // TILE * TILE
    first_block, end_block = field(row, t.FIRST_BLOCK), field(row, t.END_BLOCK)
    for block in range(first_block, end_block - 1, 2):
        for first in range(begin, whole, TILE):
            entry = constants + field(row, t.PIXEL_TABLE) + first * PIXEL_BYTES
            fused_tile(row, arena, constants, block, first, entry)
        for one in range(2):
            tiles(row, arena, constants, block + one, whole)
    return end_block - (end_block - first_block) % 2


@inlined
def float_groups(row, arena, constants, block, within):
    """All tiles of one group of channels, ``within`` bytes from the start of its block.

    A group of spare lanes has no taps, so it becomes 0.
    """
    at = block * BLOCK + within
    count = field(row, t.TAPS)
    weights = constants + field(row, t.WEIGHTS) + at // 4 * count * 4
    taps = Taps(
        constants + field(row, t.OFFSETS), count if 4 * field(row, t.CHANNELS) > at else 0, weights
    )
    add, limits = constants + field(row, t.ADD) + at, limits_of(row)
    source = arena + field(row, t.SOURCE)
    source += load_i32(constants + field(row, t.LANES) + at // GROUP_BYTES * 4)
    out = arena + field(row, t.OUT) + block * field(row, t.OUT_BLOCK) + within
    bits = arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK) + within // LANES
    for first in range(field(row, t.BEGIN), field(row, t.END), TILE):
        entry = constants + field(row, t.PIXEL_TABLE) + first * PIXEL_BYTES
        if field(row, t.MICRO) == t.DEPTHWISE:
            depthwise_tile(Tile(source, entry), taps, add, limits, out, bits)
        else:
            float_tile(Tile(source, entry), taps, add, limits, out, bits)


@inner
def convolve_floats(row, arena, constants):
    """Convolution or dense layer of floats.

    Group after group of channels, so that the weights of one stay in the first-level cache.
    """
    clear_pixels(row, arena, constants)
    for block in range(field(row, t.FIRST_BLOCK), field(row, t.END_BLOCK)):
        for within in range(0, BLOCK, GROUP_BYTES):
            float_groups(row, arena, constants, block, within)


@inner
def convolve_quads(row, arena, constants):
    """Signs of a convolution of pixels, two quads of output pixels at a time.

    A part of an odd number of quads computes one more, whose signs another part writes too.
    """
    clear_pixels(row, arena, constants)
    source, ends = arena + field(row, t.SOURCE), constants + field(row, t.TABLES)
    for block in range(field(row, t.FIRST_BLOCK), field(row, t.END_BLOCK)):
        limits = constants + field(row, t.START) + block * BLOCK
        bits = arena + field(row, t.BITS_OUT) + block * field(row, t.BITS_BLOCK)
        for first in range(field(row, t.BEGIN), field(row, t.END), QUADS * TILE):
            entry = constants + field(row, t.PIXEL_TABLE) + first * PIXEL_BYTES
            quads_tile(source, entry, taps_of(row, constants, block), ends, limits, bits)


@inner
def dense(row, arena, constants):
    """Dense layer of floats with weights of 8 bits."""
    count = field(row, t.TAPS)
    for block in range(field(row, t.FIRST_BLOCK), field(row, t.END_BLOCK)):
        taps = Taps(0, count, constants + field(row, t.WEIGHTS) + block * count * LANES)
        scale = constants + field(row, t.MUL) + block * BLOCK
        add = constants + field(row, t.ADD) + block * BLOCK
        out = arena + field(row, t.OUT) + block * field(row, t.OUT_BLOCK)
        dense_block(arena + field(row, t.SOURCE), taps, scale, add, limits_of(row), out)


@inner
def convolve(row, arena, constants):
    """Convolution of bits or integers, with its epilogue."""
    clear_pixels(row, arena, constants)
    block = field(row, t.FIRST_BLOCK)
    micro = field(row, t.MICRO)
    is_sum = micro in (t.INT16, t.INT8) and not field(row, t.HAS_LIMITS)
    is_known = micro == t.XNOR or is_sum
    is_simple = field(row, t.MUL) < 0 or field(row, t.RESIDUAL_KIND) != t.BITS
    if HAS_FUSED and is_known and is_simple:
        block = convolve_fused(row, arena, constants)
    while block < field(row, t.END_BLOCK):
        tiles(row, arena, constants, block, field(row, t.BEGIN))
        block += 1
