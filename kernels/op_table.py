"""The op table: what the plan writes and the compiled interpreter reads.

One int64 row per step. What a step computes can be cut in parts: pixels (or rows of the map) from
BEGIN to END of the blocks from FIRST_BLOCK to END_BLOCK, which any thread can compute.

Addresses are byte offsets into the arena (activations, rewritten by every image) or into the
constants (weights and tables, written once); so one table serves any number of arenas. The arena
begins with a fixed head that every plan shares.
"""

from __future__ import annotations

# Step codes.
(
    CONVOLVE,
    ELEMENTWISE,
    WIDEN,
    SPREAD,
    REGROUP,
    SUM,
    MAX_F32,
    MAX_BITS,
    REPEAT,
    JOIN,
    SOFTMAX,
    DIFFERENCE,
) = range(12)

# What ELEMENTWISE does with its one or two maps.
SUMMED, PRODUCT, CLIPPED, SCALED, PRELU, QUANTIZED, SIGMOID = range(7)

# Micro-kernels of CONVOLVE: the first count bits, INT16 to LANES16 sum integers (weights of 16 or
# of 8 bits; QUADS with fewer products; LANES16 is depthwise), from FLOAT on they sum floats (DENSE:
# weights of 8 bits).
XNOR, PORTABLE, LOOKUP, GROUPED, INT16, INT8, QUADS, LANES16, FLOAT, DEPTHWISE, DENSE = range(11)

# What MUL says of the epilogues that have none.
THRESHOLD, SWITCH = -1, -2

# Kinds of a map that a step reads, or of floats that it writes. The first two are the image.
U8, F32_IMAGE, F32, BITS, I16 = range(5)

# Columns. "Distance" is in bytes.
(
    CODE,
    KIND,  # of the source
    SOURCE,  # arena: first tap of output (0, 0); origin of the map for all but CONVOLVE
    SOURCE_ROW,  # distance between rows
    SOURCE_PIXEL,  # distance between pixels
    SOURCE_BLOCK,  # distance between blocks of 32 channels
    RESIDUAL,  # arena: second operand (ZEROS, with distances 0, if there is none)
    RESIDUAL_KIND,
    RESIDUAL_PIXEL,
    RESIDUAL_BLOCK,
    OUT,  # arena: float32 or int16 output (SINK, with distances 0, if there is none)
    OUT_KIND,  # F32, or I16: multiples of 2**-EXPONENT, as of a residual of that kind
    OUT_ROW,
    OUT_PIXEL,
    OUT_BLOCK,
    BITS_OUT,  # arena: origin of the packed signs (BITS_SINK, distance 0, if there are none)
    BITS_BLOCK,
    CLEAR,  # arena: what to zero first (margins of a bits map, tail lanes)
    CLEAR_BYTES,
    PIXELS,  # output pixels
    BLOCKS,  # output blocks of 32 channels
    PIXEL_TABLE,  # constants: int32 [PIXELS rounded up to TILE][4], columns below
    MICRO,  # micro-kernel; of WIDEN: FLOAT, INT16 or INT8, for what it writes
    TAPS,  # tap words (of INT16 and INT8: two or four values; from LANES16 on: one) per output
    OFFSETS,  # constants: int32 [TAPS]
    WEIGHTS,  # constants: [BLOCKS][TAPS][32] uint32 or float32, int16 (LANES16) or int8 (DENSE);
    # LOOKUP: [BLOCKS][nibbles][32] uint8;
    # FLOAT and DEPTHWISE: [groups][TAPS][lanes of a group] float32
    TABLES,  # constants: the tables of LOOKUP; of QUADS int32 [10], where classes of taps begin
    NIBBLES,  # of LOOKUP, per output: 8 * TAPS rounded up to whole triples
    INDEX_BYTES,  # of LOOKUP: distance between the indices of two pairs
    IN_PAIRS,  # of LOOKUP: 1 if tap words lie side by side two by two
    START,  # constants: int32 [classes][BLOCKS * 32]: accumulator at a count of 0, or the limit
    MUL,  # constants: float32 [BLOCKS * 32]; THRESHOLD or SWITCH for those epilogues
    ADD,  # constants: float32 [BLOCKS * 32]
    HAS_LIMITS,  # whether an affine epilogue or a sum of floats has the four limits below
    LOW,  # of accumulators
    HIGH,
    LEAST,  # of results: the bits of a float32
    MOST,
    FUNCTION,  # of ELEMENTWISE; limits (of QUANTIZED in steps) in MUL and ADD, slopes in MUL
    SECOND,  # of DIFFERENCE: distance to what is taken off;
    # of SWITCH: distance from a limit for a residual of +1 to that for -1
    FLIPS,  # of SWITCH, constants: uint32 [BLOCKS], 1 where the sign is the other way round
    LANES,  # constants: int32 [BLOCKS][32], distance of each lane's group (GROUPED);
    # FLOAT and DEPTHWISE: int32 [groups], distance of the first input that a group reads
    HEIGHT,  # of the source map, for the steps below
    WIDTH,
    CHANNELS,  # of FLOAT and DEPTHWISE: of the result
    OUT_HEIGHT,
    OUT_WIDTH,
    KERNEL_H,
    KERNEL_W,
    STRIDE_H,
    STRIDE_W,
    TOP,
    LEFT,
    DILATION_H,
    DILATION_W,
    DIVISOR,  # of SUM (0: multiply by 2**EXPONENT); copies of REPEAT; group size of REGROUP;
    # of QUANTIZED: its step, the bits of a float32
    EXPONENT,  # of SUM; of the grid of I16
    PAD,  # constants: float32 [channels of a pixel], what WIDEN writes around the map
    PARTS,  # of JOIN: how many
    PART_TABLE,  # of JOIN, constants: int64 [PARTS][PART_COLUMNS], columns below
    SCRATCH,  # distance from the arena to the head that this thread may write
    BEGIN,  # what is computed: pixels, or rows of the map (of the result in WIDEN and pooling, of
    # the source in REGROUP and JOIN); of a convolution a multiple of TILE
    END,
    FIRST_BLOCK,  # blocks of the result, of convolutions and pooling; even
    END_BLOCK,
) = range(65)
COLUMNS = 65

# Columns of PART_TABLE: origin in the arena, distances, the first channel and how many, where that
# one is to go in its pixel, and how much further with every pixel.
PART_SOURCE, PART_ROW, PART_PIXEL, PART_FIRST, PART_CHANNELS, PART_AT, PART_STEP = range(7)
PART_COLUMNS = 7

# Columns of PIXEL_TABLE, in bytes: distances from SOURCE, into START, from BITS_OUT and from
# RESIDUAL. The first and last stand for bits (margins); float32 maps have none in ELEMENTWISE.
# FLOAT and DEPTHWISE have no START: there the second is the distance from OUT.
AT_SOURCE, AT_START, AT_BITS, AT_RESIDUAL = 0, 4, 8, 12
AT_OUT = AT_START

# The arena's head. What the fused kernels read or write has room for two blocks.
ZEROS = 0  # two blocks of zeros, never written
COUNTS = 256  # accumulators of one tile
SCRATCH_A = 768  # a block of bits as floats
SCRATCH_B = 896
SINK = 1024  # unwanted floats
BITS_SINK = 1280  # unwanted signs
ROW = 1344  # a row of the table, changed to a part of its step
HEAD_BYTES = ROW + -(-8 * COLUMNS // 64) * 64  # then the working memory of LOOKUP, if need be
