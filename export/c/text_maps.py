"""C text of everything that is no convolution: sums, pooling, conversion of maps ``[H][W][C]``."""

POINTWISE = """\
/* Sum of two maps (or one map alone), and its signs. */
static void fb_pointwise(const float *in, int32_t pixels, int32_t channels, const float *residual,
                         float *out, uint32_t *signs)
{
    int32_t p;
    for (p = 0; p < pixels; p++)
        fb_emit(in + p * channels, channels, p, residual, out, signs);
}
"""

CLIP = """\
/* Floats limited to low .. high. */
static void fb_clip(const float *in, int32_t pixels, int32_t channels, float low, float high,
                    float *out)
{
    int32_t i;
    for (i = 0; i < pixels * channels; i++)
        out[i] = in[i] < low ? low : in[i] > high ? high : in[i];
}
"""

TO_FLOAT = """\
/* Bits as floats +1 and -1. */
static void fb_to_float(const uint32_t *in, int32_t pixels, int32_t channels, float *out)
{
    int32_t p, k;
    for (p = 0; p < pixels; p++, in += (channels + 31) / 32)
        for (k = 0; k < channels; k++)
            *out++ = fb_bit(in, k) ? -1.0f : 1.0f;
}
"""

MAX_F32 = """\
/* Largest float under the window; padding never wins. */
static void fb_max_f32(const float *in, const fb_window *v, float *out)
{
    const int32_t channels = v->in_channels;
    int32_t y, x, i, j, k;
    for (y = 0; y < v->out_height; y++) {
        for (x = 0; x < v->out_width; x++, out += channels) {
            int32_t seen = 0;
            for (i = 0; i < v->kernel_height; i++) {
                for (j = 0; j < v->kernel_width; j++) {
                    const int32_t pixel = fb_tap(v, y, x, i, j);
                    for (k = 0; pixel >= 0 && k < channels; k++) {
                        const float value = in[pixel * channels + k];
                        if (!seen || value > out[k])
                            out[k] = value;
                    }
                    seen |= pixel >= 0;
                }
            }
        }
    }
}
"""

MAX_BITS = """\
/* Largest of the +-1 under the window (all bits 1 give -1); padding never wins. */
static void fb_max_bits(const uint32_t *in, const fb_window *v, uint32_t *out)
{
    const int32_t words = (v->in_channels + 31) / 32;
    int32_t y, x, i, j, k;
    for (y = 0; y < v->out_height; y++) {
        for (x = 0; x < v->out_width; x++, out += words) {
            memset(out, 0xff, (size_t)words * sizeof *out);
            for (i = 0; i < v->kernel_height; i++) {
                for (j = 0; j < v->kernel_width; j++) {
                    const int32_t pixel = fb_tap(v, y, x, i, j);
                    for (k = 0; pixel >= 0 && k < words; k++)
                        out[k] &= in[pixel * words + k];
                }
            }
        }
    }
}
"""

AVERAGE = """\
/* Mean over the window, padding counted as 0. */
static void fb_average(const float *in, const fb_window *v, float *out)
{
    const float area = (float)(v->kernel_height * v->kernel_width);
    const int32_t channels = v->in_channels;
    int32_t y, x, i, j, k;
    for (y = 0; y < v->out_height; y++) {
        for (x = 0; x < v->out_width; x++, out += channels) {
            for (k = 0; k < channels; k++)
                out[k] = 0.0f;
            for (i = 0; i < v->kernel_height; i++) {
                for (j = 0; j < v->kernel_width; j++) {
                    const int32_t pixel = fb_tap(v, y, x, i, j);
                    for (k = 0; pixel >= 0 && k < channels; k++)
                        out[k] += in[pixel * channels + k];
                }
            }
            for (k = 0; k < channels; k++)
                out[k] /= area;
        }
    }
}
"""

REPEAT = """\
/* Each pixel's channels side by side, `times` times. */
static void fb_repeat(const float *in, int32_t pixels, int32_t channels, int32_t times, float *out)
{
    int32_t p, i;
    for (p = 0; p < pixels; p++, in += channels)
        for (i = 0; i < times; i++, out += channels)
            memcpy(out, in, (size_t)channels * sizeof *out);
}
"""

JOIN_F32 = """\
/* Channels of one of several maps to their place in the joined map, whose channel `at` is first. */
static void fb_join_f32(const float *in, int32_t pixels, int32_t channels, float *out, int32_t at,
                        int32_t total)
{
    int32_t p;
    for (p = 0, out += at; p < pixels; p++, in += channels, out += total)
        memcpy(out, in, (size_t)channels * sizeof *out);
}
"""

JOIN_BITS = """\
/* The same of bits. Maps come in order, so a word that is begun holds what stood before. */
static void fb_join_bits(const uint32_t *in, int32_t pixels, int32_t channels, uint32_t *out,
                         int32_t at, int32_t total)
{
    const int32_t words = (channels + 31) / 32, shift = at % 32;
    int32_t p, k;
    for (p = 0, out += at / 32; p < pixels; p++, in += words, out += (total + 31) / 32) {
        uint32_t carry = shift ? out[0] : 0;
        for (k = 0; k < words; k++) {
            out[k] = carry | (in[k] << shift);
            carry = shift ? in[k] >> (32 - shift) : 0;
        }
        if (shift + channels > 32 * words)
            out[words] = carry;
    }
}
"""

SUM_F32 = """\
/* Sum of each channel over the map. */
static void fb_sum_f32(const float *in, int32_t pixels, int32_t channels, float *out)
{
    int32_t p, k;
    for (k = 0; k < channels; k++)
        out[k] = 0.0f;
    for (p = 0; p < pixels; p++, in += channels)
        for (k = 0; k < channels; k++)
            out[k] += in[k];
}
"""

SUM_BITS = """\
/* Sum of each channel's +-1 over the map. */
static void fb_sum_bits(const uint32_t *in, int32_t pixels, int32_t channels, float *out)
{
    int32_t p, k;
    for (k = 0; k < channels; k++)
        out[k] = 0.0f;
    for (p = 0; p < pixels; p++, in += (channels + 31) / 32)
        for (k = 0; k < channels; k++)
            out[k] += fb_bit(in, k) ? -1.0f : 1.0f;
}
"""
