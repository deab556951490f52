"""C text of the binary convolutions, of their packed patches and of their epilogues.

Maps are ``[H][W][C]``; bits are packed along C as in :mod:`frostbit.kernels.ir.bits`, in 32-bit
words. A patch holds the bits under the window at one output pixel, packed without gaps, so that a
weight costs one bit whatever the channel count. Static arrays (``fb_patch``, ``fb_mask``,
``fb_sums``, ``fb_row``) and the type ``fb_level`` are declared by :mod:`frostbit.export.c.convert`,
which knows their sizes.
"""

from string import Template

WINDOW = """\
/* Geometry of a layer: sizes of its maps, and the window that slides over the input. */
typedef struct {
    int32_t in_height, in_width, in_channels;
    int32_t out_height, out_width, out_channels;
    int32_t kernel_height, kernel_width, stride_y, stride_x;
    int32_t top, left, dilation_y, dilation_x;
    int32_t groups, zero_pad;
} fb_window;

/* Index of the input pixel under tap (i, j) of the window at output (y, x); -1 in the padding. */
static int32_t fb_tap(const fb_window *v, int32_t y, int32_t x, int32_t i, int32_t j)
{
    const int32_t row = y * v->stride_y + i * v->dilation_y - v->top;
    const int32_t column = x * v->stride_x + j * v->dilation_x - v->left;
    if (row < 0 || row >= v->in_height || column < 0 || column >= v->in_width)
        return -1;
    return row * v->in_width + column;
}
"""

BIT = """\
/* Bit `channel` of a packed pixel: 1 means -1, 0 means +1. */
static uint32_t fb_bit(const uint32_t *pixel, int32_t channel)
{
    return (pixel[channel / 32] >> (channel % 32)) & 1u;
}
"""

POPCOUNT = """\
/* Bits are counted in the machine's own words, by its instruction where it has one. */
#if UINTPTR_MAX > 0xffffffffu
typedef uint64_t fb_chunk;
#else
typedef uint32_t fb_chunk;
#endif

static int32_t fb_popcount(fb_chunk x)
{
#if defined(__GNUC__) && !defined(FROSTBIT_PORTABLE) \\
    && (defined(__POPCNT__) || defined(__aarch64__) || defined(__riscv_zbb))
    return (int32_t)__builtin_popcountll(x);
#else
    const fb_chunk ones = (fb_chunk)-1;
    x -= (x >> 1) & (ones / 3);
    x = (x & (ones / 5)) + ((x >> 2) & (ones / 5));
    x = (x + (x >> 4)) & (ones / 17);
    return (int32_t)((fb_chunk)(x * (ones / 255)) >> (8 * sizeof x - 8));
#endif
}

/* Number of bits in which two rows of words differ. */
static int32_t fb_mismatches(const uint32_t *a, const uint32_t *b, int32_t words)
{
    const int32_t step = (int32_t)(sizeof(fb_chunk) / sizeof *a);
    int32_t total = 0, i = 0;
    for (; i + step <= words; i += step) {
        fb_chunk p, q;
        memcpy(&p, a + i, sizeof p);
        memcpy(&q, b + i, sizeof q);
        total += fb_popcount(p ^ q);
    }
    for (; i < words; i++)
        total += fb_popcount(a[i] ^ b[i]);
    return total;
}
"""

TAPS = """\
/* Number of products in one sum of a convolution. */
static int32_t fb_taps(const fb_window *v)
{
    return v->kernel_height * v->kernel_width * (v->in_channels / v->groups);
}
"""

ROWS = """\
/* Words of a row that holds that many bits. */
static int32_t fb_row_words(const fb_window *v)
{
    return (fb_taps(v) + 31) / 32;
}
"""

GATHER_BITS = """\
/* Appends `count` bits of `from`, from bit `at` on (ones if `from` is NULL), to the zeroed bits */
/* of `to`, from `end` on. */
static void fb_append(uint32_t *to, int32_t end, const uint32_t *from, int32_t at, int32_t count)
{
    while (count > 0) {
        const int32_t room = 32 - end % 32, there = 32 - at % 32;
        int32_t n = room < there ? room : there;
        uint32_t bits = from ? from[at / 32] >> (at % 32) : 0xffffffffu;
        n = n < count ? n : count;
        bits &= 0xffffffffu >> (32 - n);
        to[end / 32] |= bits << (end % 32);
        at += n;
        end += n;
        count -= n;
    }
}

/* Fills fb_patch with one group's bits under the window at (y, x), +1 in the padding. */
/* Returns how many of them lie inside the map. */
static int32_t fb_gather_packed(const uint32_t *in, const fb_window *v, int32_t y, int32_t x,
                                int32_t group)
{
    const int32_t channels = v->in_channels / v->groups, words = (v->in_channels + 31) / 32;
    int32_t i, j, end = 0, inside = 0;
    memset(fb_patch, 0, (size_t)fb_row_words(v) * sizeof *fb_patch);
    for (i = 0; i < v->kernel_height; i++) {
        for (j = 0; j < v->kernel_width; j++, end += channels) {
            const int32_t pixel = fb_tap(v, y, x, i, j);
            if (pixel >= 0) {
                fb_append(fb_patch, end, in + pixel * words, group * channels, channels);
                inside += channels;
            }
        }
    }
    return inside;
}
"""

MASKED = """\
/* Fills fb_mask: 1 for each bit of the patch at (y, x) that lies inside the map. */
static void fb_fill_mask(const fb_window *v, int32_t y, int32_t x)
{
    const int32_t channels = v->in_channels / v->groups;
    int32_t i, j, end = 0;
    memset(fb_mask, 0, (size_t)fb_row_words(v) * sizeof *fb_mask);
    for (i = 0; i < v->kernel_height; i++)
        for (j = 0; j < v->kernel_width; j++, end += channels)
            if (fb_tap(v, y, x, i, j) >= 0)
                fb_append(fb_mask, end, NULL, 0, channels);
}

/* Number of bits in which `weights` differ from the patch, padding not counted. */
static int32_t fb_mismatches_inside(const uint32_t *weights, int32_t words)
{
    const int32_t step = (int32_t)(sizeof(fb_chunk) / sizeof *weights);
    int32_t total = 0, i = 0;
    for (; i + step <= words; i += step) {
        fb_chunk p, q, mask;
        memcpy(&p, fb_patch + i, sizeof p);
        memcpy(&q, weights + i, sizeof q);
        memcpy(&mask, fb_mask + i, sizeof mask);
        total += fb_popcount((p ^ q) & mask);
    }
    for (; i < words; i++)
        total += fb_popcount((weights[i] ^ fb_patch[i]) & fb_mask[i]);
    return total;
}
"""

ACCUMULATE = Template("""\
/* Binary convolution at output (y, x): sums of +-1 products of all channels, into fb_sums. */
static void fb_accumulate(const uint32_t *in, const fb_window *v, const uint32_t *weights,
                          int32_t y, int32_t x)
{
    const int32_t taps = fb_taps(v), words = fb_row_words(v), outputs = v->out_channels / v->groups;
    int32_t group, k, *sum = fb_sums;
    for (group = 0; group < v->groups; group++) {
$inner    }
}
""")

PLAIN_INNER = """\
        (void)fb_gather_packed(in, v, y, x, group);
        for (k = 0; k < outputs; k++, weights += words)
            *sum++ = taps - 2 * fb_mismatches(weights, fb_patch, words);
"""

MASKED_INNER = """\
        const int32_t inside = fb_gather_packed(in, v, y, x, group);
        if (v->zero_pad && inside < taps) {
            fb_fill_mask(v, y, x);
            for (k = 0; k < outputs; k++, weights += words)
                *sum++ = inside - 2 * fb_mismatches_inside(weights, words);
        } else {
            for (k = 0; k < outputs; k++, weights += words)
                *sum++ = taps - 2 * fb_mismatches(weights, fb_patch, words);
        }
"""

THRESHOLD = """\
/* Binary convolution to bits: +1 where the sum is at least the channel's level. */
static void fb_binary_threshold(const uint32_t *in, const fb_window *v, const uint32_t *weights,
                                const fb_level *level, uint32_t *out)
{
    const int32_t words = (v->out_channels + 31) / 32;
    int32_t y, x, k;
    for (y = 0; y < v->out_height; y++) {
        for (x = 0; x < v->out_width; x++, out += words) {
            fb_accumulate(in, v, weights, y, x);
            memset(out, 0, (size_t)words * sizeof *out);
            for (k = 0; k < v->out_channels; k++)
                out[k / 32] |= (uint32_t)(fb_sums[k] < level[k]) << (k % 32);
        }
    }
}
"""

EMIT = """\
/* Finishes one pixel: adds the residual, stores the floats and their signs, each if wanted. */
static void fb_emit(const float *row, int32_t channels, int32_t pixel, const float *residual,
                    float *out, uint32_t *signs)
{
    const int32_t at = pixel * channels;
    int32_t k;
    if (signs) {
        signs += pixel * ((channels + 31) / 32);
        memset(signs, 0, (size_t)((channels + 31) / 32) * sizeof *signs);
    }
    for (k = 0; k < channels; k++) {
        const float y = residual ? row[k] + residual[at + k] : row[k];
        if (out)
            out[at + k] = y;
        if (signs)
            signs[k / 32] |= (uint32_t)(y < 0.0f) << (k % 32);
    }
}
"""

AFFINE = Template("""\
/* Binary convolution to floats: mul * sum + add, plus a residual$remark; and their signs. */
static void fb_binary_$name(const uint32_t *in, const fb_window *v, const uint32_t *weights,
                             const float *mul, const float *add,$limits const float *residual,
                             float *out, uint32_t *signs)
{
    int32_t y, x, k, pixel = 0;
    for (y = 0; y < v->out_height; y++) {
        for (x = 0; x < v->out_width; x++, pixel++) {
            fb_accumulate(in, v, weights, y, x);
$clip            for (k = 0; k < v->out_channels; k++)
                fb_row[k] = mul[k] * (float)fb_sums[k] + add[k];
            fb_emit(fb_row, v->out_channels, pixel, residual, out, signs);
        }
    }
}
""")

LIMIT_SUMS = """\
            for (k = 0; k < v->out_channels; k++)
                fb_sums[k] = fb_sums[k] < low ? low : fb_sums[k] > high ? high : fb_sums[k];
"""

REAL = """\
/* Binary weights on floats: mul * sum(+-value) + add, plus a residual; and their signs. */
static void fb_binary_real(const float *in, const fb_window *v, const uint32_t *weights,
                           const float *mul, const float *add, const float *residual,
                           float *out, uint32_t *signs)
{
    const int32_t taps = fb_taps(v), words = fb_row_words(v), outputs = v->out_channels / v->groups;
    int32_t y, x, k, i, pixel = 0;
    for (y = 0; y < v->out_height; y++) {
        for (x = 0; x < v->out_width; x++, pixel++) {
            for (k = 0; k < v->out_channels; k++) {
                const uint32_t *row = weights + k * words;
                float sum = 0.0f;
                if (k % outputs == 0)
                    fb_gather_f32(in, v, y, x, k / outputs);
                for (i = 0; i < taps; i++)
                    sum += (row[i / 32] >> (i % 32)) & 1u ? -fb_values_f32[i] : fb_values_f32[i];
                fb_row[k] = mul[k] * sum + add[k];
            }
            fb_emit(fb_row, v->out_channels, pixel, residual, out, signs);
        }
    }
}
"""
