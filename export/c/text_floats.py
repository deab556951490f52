"""C text of what imported networks have beside ours: maps of floats changed value by value, moved.

``expf`` is the only function of ``math.h`` that is used.
"""

from string import Template

MUL = """\
/* Product of two maps, or of one and a factor per channel. */
static void fb_mul(const float *in, int32_t pixels, int32_t channels, const float *by,
                   int32_t per_channel, float *out)
{
    int32_t p, k;
    for (p = 0; p < pixels; p++, in += channels, out += channels, by += per_channel ? 0 : channels)
        for (k = 0; k < channels; k++)
            out[k] = in[k] * by[k];
}
"""

SCALE = Template("""\
/* Factor and addend per channel. */
static void fb_scale_$source(const $type *in, int32_t pixels, int32_t channels, const float *mul,
                         const float *add, float *out)
{
    int32_t p, k;
    for (p = 0; p < pixels; p++, in += channels, out += channels)
        for (k = 0; k < channels; k++)
            out[k] = (float)in[k] * mul[k] + add[k];
}
""")

PRELU = """\
/* A slope per channel where negative. */
static void fb_prelu(const float *in, int32_t pixels, int32_t channels, const float *slope,
                     float *out)
{
    int32_t p, k;
    for (p = 0; p < pixels; p++, in += channels, out += channels)
        for (k = 0; k < channels; k++)
            out[k] = in[k] < 0.0f ? in[k] * slope[k] : in[k];
}
"""

QUANTIZE = """\
/* Whole number next to x, the even one at a half. */
static float fb_round(float x)
{
    int32_t whole;
    float rest;
    if (x <= -8388608.0f || x >= 8388608.0f)
        return x;
    whole = (int32_t)x;
    rest = x - (float)whole;
    if (rest > 0.5f || (rest == 0.5f && whole % 2 != 0))
        whole++;
    if (rest < -0.5f || (rest == -0.5f && whole % 2 != 0))
        whole--;
    return (float)whole;
}

/* Floats rounded to whole steps, from low to high of them. */
static void fb_quantize(const float *in, int32_t pixels, int32_t channels, float step, float low,
                        float high, float *out)
{
    int32_t i;
    for (i = 0; i < pixels * channels; i++) {
        const float steps = fb_round(in[i] / step);
        out[i] = (steps < low ? low : steps > high ? high : steps) * step;
    }
}
"""

SIGMOID = """\
/* 1 / (1 + exp(-x)). */
static void fb_sigmoid(const float *in, int32_t pixels, int32_t channels, float *out)
{
    int32_t i;
    for (i = 0; i < pixels * channels; i++) {
        const float power = expf(in[i] < 0.0f ? in[i] : -in[i]);
        out[i] = (in[i] < 0.0f ? power : 1.0f) / (1.0f + power);
    }
}
"""

SOFTMAX = """\
/* Shares of exp(x) in their sum. */
static void fb_softmax(const float *in, int32_t pixels, int32_t channels, float *out)
{
    float largest = in[0], sum = 0.0f;
    int32_t k;
    (void)pixels;
    for (k = 1; k < channels; k++)
        largest = in[k] > largest ? in[k] : largest;
    for (k = 0; k < channels; k++) {
        out[k] = expf(in[k] - largest);
        sum += out[k];
    }
    for (k = 0; k < channels; k++)
        out[k] /= sum;
}
"""

SLICE_F32 = """\
/* `count` channels from `start` on. */
static void fb_slice_f32(const float *in, int32_t pixels, int32_t channels, int32_t start,
                         int32_t count, float *out)
{
    int32_t p;
    for (p = 0, in += start; p < pixels; p++, in += channels, out += count)
        memcpy(out, in, (size_t)count * sizeof *out);
}
"""

SLICE_BITS = """\
/* The same of bits. */
static void fb_slice_bits(const uint32_t *in, int32_t pixels, int32_t channels, int32_t start,
                          int32_t count, uint32_t *out)
{
    const int32_t words = (count + 31) / 32;
    int32_t p, k;
    for (p = 0; p < pixels; p++, in += (channels + 31) / 32, out += words) {
        memset(out, 0, (size_t)words * sizeof *out);
        for (k = 0; k < count; k++)
            out[k / 32] |= fb_bit(in, start + k) << (k % 32);
    }
}
"""

PAD = """\
/* A map inside a larger one of zeros. */
static void fb_pad(const float *in, int32_t height, int32_t width, int32_t channels, int32_t top,
                   int32_t left, int32_t before, float *out, int32_t out_height,
                   int32_t out_width, int32_t out_channels)
{
    int32_t y, x, i;
    for (i = 0; i < out_height * out_width * out_channels; i++)
        out[i] = 0.0f;
    for (y = 0; y < height; y++)
        for (x = 0; x < width; x++, in += channels)
            memcpy(out + ((y + top) * out_width + x + left) * out_channels + before, in,
                   (size_t)channels * sizeof *out);
}
"""

FLATTEN_F32 = """\
/* All values of a map in their order. */
static void fb_flatten_f32(const float *in, int32_t pixels, int32_t channels, float *out)
{
    memcpy(out, in, (size_t)(pixels * channels) * sizeof *out);
}
"""

FLATTEN_BITS = """\
/* All bits of a map, packed without gaps. */
static void fb_flatten_bits(const uint32_t *in, int32_t pixels, int32_t channels, uint32_t *out)
{
    int32_t p, k, n = 0;
    memset(out, 0, (size_t)((pixels * channels + 31) / 32) * sizeof *out);
    for (p = 0; p < pixels; p++, in += (channels + 31) / 32)
        for (k = 0; k < channels; k++, n++)
            out[n / 32] |= fb_bit(in, k) << (n % 32);
}
"""
