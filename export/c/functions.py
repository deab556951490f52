"""The C functions of a generated file: text, what each needs, and the variants by number type.

All follow one pattern: gather what lies under the window at one output pixel into a patch,
padding included, then take dot products of the patch with each output channel's weights. A
patch of bits is packed without gaps, so a weight costs one bit whatever the channel count.

Maps are ``[H][W][C]``; bits are packed along C as in :mod:`frostbit.kernels.ir.bits`, in 32-bit
words.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from string import Template

from frostbit.export.c import text_binary, text_floats, text_maps


@dataclass(frozen=True)
class Kernel:
    """C source of one function, and the names of others that must stand before it."""

    text: str
    needs: tuple[str, ...] = ()


_DOT = Template("""\
static $total fb_dot_${x}_$w(const $x_type *x, const $w_type *w, int32_t count)
{
    $total sum = 0;
    int32_t i;
    for (i = 0; i < count; i++)
        sum += ($total)x[i] * ($total)w[i];
    return sum;
}
""")

_GATHER = Template("""\
/* Fills fb_values_$patch with what lies under the window at (y, x), one group's channels. */
static void fb_gather_$source(const $type *in, const fb_window *v$parameter, int32_t y, int32_t x,
                         int32_t group)
{
    const int32_t channels = v->in_channels / v->groups, first = group * channels;
    int32_t i, j, k, n = 0;
    for (i = 0; i < v->kernel_height; i++) {
        for (j = 0; j < v->kernel_width; j++) {
            const int32_t pixel = fb_tap(v, y, x, i, j);
            for (k = 0; k < channels; k++)
                fb_values_$patch[n++] = pixel < 0 ? $padding : $value;
        }
    }
}
""")

_CONV = Template("""\
/* Convolution with full-precision weights: scale * sum(weight * value) + add. */
static void fb_conv_${source}_$w(const $type *in, const fb_window *v$parameter,
                            const $w_type *weights, $scale_type, const float *add,
                            const float *residual, float *out, uint32_t *signs)
{
    const int32_t taps = fb_taps(v), outputs = v->out_channels / v->groups;
    int32_t y, x, k, pixel = 0;
    for (y = 0; y < v->out_height; y++) {
        for (x = 0; x < v->out_width; x++, pixel++) {
            for (k = 0; k < v->out_channels; k++) {
                if (k % outputs == 0)
                    fb_gather_$source(in, v$argument, y, x, k / outputs);
                fb_row[k] = (float)fb_dot_${patch}_$w(fb_values_$patch, weights + k * taps, taps)
                            * $scale + add[k];
            }
            fb_emit(fb_row, v->out_channels, pixel, residual, out, signs);
        }
    }
}
""")

_DENSE = Template("""\
/* Dense layer with full-precision weights. */
static void fb_dense_$w(const float *in, int32_t inputs, const $w_type *weights,
                     $scale_type, const float *add, int32_t outputs, float *out)
{
    int32_t k;
    for (k = 0; k < outputs; k++)
        out[k] = fb_dot_f32_$w(in, weights + k * inputs, inputs) * $scale + add[k];
}
""")

TYPES = {"f32": "float", "i16": "int16_t", "i8": "int8_t"}
PATCHES = {"u8": "i16", "bits": "i16", "f32": "f32"}
"""Number type of the patch of a full-precision convolution, by the kind of its input."""

_SOURCES = {
    "u8": {
        "type": "uint8_t", "padding": "pad[first + k]",
        "value": "in[pixel * v->in_channels + first + k]",
        "parameter": ", const uint8_t *pad", "argument": ", pad",
    },
    "bits": {
        "type": "uint32_t", "padding": "0", "parameter": "", "argument": "",
        "value": "1 - 2 * (int16_t)fb_bit(in + pixel * ((v->in_channels + 31) / 32), first + k)",
    },
    "f32": {
        "type": "float", "padding": "(v->zero_pad ? 0.0f : 1.0f)",
        "value": "in[pixel * v->in_channels + first + k]",
        "parameter": "", "argument": "",
    },
}  # fmt: skip


_GATHER_NEEDS = {"u8": ("window",), "bits": ("window", "bit"), "f32": ("window",)}


def _with_values() -> dict[str, Kernel]:
    """The kernels that exist once per type of input and weights."""
    made: dict[str, Kernel] = {}
    for x in ("f32", "i16"):
        for w, w_type in TYPES.items():
            total = "int32_t" if x == "i16" and w != "f32" else "float"
            text = _DOT.substitute(x=x, w=w, x_type=TYPES[x], w_type=w_type, total=total)
            made[f"dot_{x}_{w}"] = Kernel(text)
    for source, parts in _SOURCES.items():
        parts = {**parts, "source": source, "patch": PATCHES[source]}
        made[f"gather_{source}"] = Kernel(_GATHER.substitute(parts), _GATHER_NEEDS[source])
        for w in TYPES:
            text = _CONV.substitute(parts, **_weights(w))
            parts_of = ("taps", f"gather_{source}", f"dot_{PATCHES[source]}_{w}", "emit")
            made[f"conv_{source}_{w}"] = Kernel(text, parts_of)
    for w in TYPES:
        made[f"dense_{w}"] = Kernel(_DENSE.substitute(_weights(w)), (f"dot_f32_{w}",))
    return made


def _weights(w: str) -> dict[str, str]:
    """What depends on the weights' type: 8 bits have a scale per output channel."""
    scale_type, scale = (
        ("const float *scale", "scale[k]") if w == "i8" else ("float scale", "scale")
    )
    return {"w": w, "w_type": TYPES[w], "scale_type": scale_type, "scale": scale}


KERNELS: dict[str, Kernel] = {
    "window": Kernel(text_binary.WINDOW),
    "bit": Kernel(text_binary.BIT),
    "popcount": Kernel(text_binary.POPCOUNT),
    "taps": Kernel(text_binary.TAPS, ("window",)),
    "rows": Kernel(text_binary.ROWS, ("taps",)),
    "gather_packed": Kernel(text_binary.GATHER_BITS, ("rows",)),
    "masked": Kernel(text_binary.MASKED, ("gather_packed", "popcount")),
    "accumulate": Kernel(
        text_binary.ACCUMULATE.substitute(inner=text_binary.PLAIN_INNER),
        ("gather_packed", "popcount"),
    ),
    "accumulate_masked": Kernel(
        text_binary.ACCUMULATE.substitute(inner=text_binary.MASKED_INNER), ("masked",)
    ),
    "emit": Kernel(text_binary.EMIT),
    "binary_threshold": Kernel(text_binary.THRESHOLD),
    "binary_affine": Kernel(
        text_binary.AFFINE.substitute(name="affine", remark="", limits="", clip=""), ("emit",)
    ),
    "binary_clipped": Kernel(
        text_binary.AFFINE.substitute(
            name="clipped",
            remark="; the sums from low to high",
            limits=" int32_t low, int32_t high,",
            clip=text_binary.LIMIT_SUMS,
        ),
        ("emit",),
    ),
    "clip": Kernel(text_maps.CLIP),
    "pointwise": Kernel(text_maps.POINTWISE, ("emit",)),
    "to_float": Kernel(text_maps.TO_FLOAT, ("bit",)),
    "max_f32": Kernel(text_maps.MAX_F32, ("window",)),
    "max_bits": Kernel(text_maps.MAX_BITS, ("window",)),
    "average": Kernel(text_maps.AVERAGE, ("window",)),
    "repeat": Kernel(text_maps.REPEAT),
    "join_f32": Kernel(text_maps.JOIN_F32),
    "join_bits": Kernel(text_maps.JOIN_BITS),
    "sum_f32": Kernel(text_maps.SUM_F32),
    "sum_bits": Kernel(text_maps.SUM_BITS, ("bit",)),
    "mul": Kernel(text_floats.MUL),
    "scale_u8": Kernel(text_floats.SCALE.substitute(source="u8", type="uint8_t")),
    "scale_f32": Kernel(text_floats.SCALE.substitute(source="f32", type="float")),
    "prelu": Kernel(text_floats.PRELU),
    "quantize": Kernel(text_floats.QUANTIZE),
    "sigmoid": Kernel(text_floats.SIGMOID),
    "softmax": Kernel(text_floats.SOFTMAX),
    "slice_f32": Kernel(text_floats.SLICE_F32),
    "slice_bits": Kernel(text_floats.SLICE_BITS, ("bit",)),
    "pad": Kernel(text_floats.PAD),
    "flatten_f32": Kernel(text_floats.FLATTEN_F32),
    "flatten_bits": Kernel(text_floats.FLATTEN_BITS, ("bit",)),
    **_with_values(),
    "binary_real": Kernel(text_binary.REAL, ("rows", "gather_f32", "emit")),
}


WITH_EXP = frozenset({"sigmoid", "softmax"})
"""Those that need ``math.h``."""


def source_of(wanted: Iterable[str]) -> str:
    """C text of the ``wanted`` kernels and all that they need, each once, in fixed order."""
    needed: set[str] = set()
    waiting = list(wanted)
    while waiting:
        name = waiting.pop()
        if name not in needed:
            needed.add(name)
            waiting += KERNELS[name].needs
    return "\n".join(kernel.text for name, kernel in KERNELS.items() if name in needed)
