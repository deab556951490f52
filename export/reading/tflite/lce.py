"""What each of Larq Compute Engine's operators becomes in the graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from frostbit.export.lce.graph import LCE_WORD_BITS, lce_words, to_words
from frostbit.export.lce.tflite_reader import INT32
from frostbit.export.reading.graph import BitConv, Identity, MaxPool, Sign
from frostbit.export.reading.tflite.call import Call
from frostbit.export.reading.tflite.options import ACTIVATIONS
from frostbit.kernels.ir.program import NO_LIMIT, Affine, Threshold, Window

_LIMITS = {
    "none": (-NO_LIMIT, NO_LIMIT),
    "RELU": (0, NO_LIMIT),
    "RELU_N1_TO_1": (-1, 1),
    "RELU6": (0, 6),
}
"""What a fused activation makes of the accumulator, before multiplier and bias."""


def keeps_words(call: Call, channels: int) -> None:
    """FormatError where words of ``channels`` signs do not follow each other without a gap."""
    if channels % LCE_WORD_BITS:
        raise call.refused(
            f"moves packed signs of {channels} channels, no multiple of {LCE_WORD_BITS}"
        )


def _quantize(call: Call) -> None:
    x = call.value(0)
    call.give(Sign(name=call.name, inputs=(x,), layer=call.layer))


def _dequantize(call: Call) -> None:
    x = call.value(0, packed=True)
    call.give(Identity(name=call.name, inputs=(x,), layer=call.layer))


def _max_pool(call: Call) -> None:
    x = call.value(0, packed=True)
    kernel = (call.integer("filter_height"), call.integer("filter_width"))
    window = call.window(kernel, call.shape(x))
    call.give(MaxPool(name=call.name, inputs=(x,), layer=call.layer, window=window))


def _groups(call: Call, filter_words: int, channels: int) -> int:
    """Number of groups; of several, each must fill its words."""
    stated, words = call.integer("channels_in"), lce_words(channels)
    if stated != channels:
        raise call.refused(f"reads {channels} channels as {stated}")
    groups = words // filter_words if filter_words else 0
    if groups < 1 or filter_words * groups != words or channels % groups:
        raise call.refused(f"weights of {filter_words} words on {words}")
    if groups > 1:
        keeps_words(call, channels // groups)
    return groups


def _threshold(call: Call, outputs: int, taps: int) -> Threshold:
    """+1 where at most ``threshold`` of the ``taps`` signs differ."""
    found = call.constant(4)
    if found.dtype != np.int32 or found.shape != (outputs,):
        raise call.refused(f"thresholds {found.dtype} {list(found.shape)}, not int32 [{outputs}]")
    level = taps - 2 * found.astype(np.int64)
    return Threshold(np.clip(level, -taps, taps + 1).astype(np.int32))


def _affine(call: Call, outputs: int) -> Affine:
    activation = ACTIVATIONS.get(call.integer("fused_activation_function"), "unknown")
    if activation not in _LIMITS:
        raise call.refused(f"the fused activation {activation} cannot be read")
    return Affine(call.floats(2, outputs), call.floats(3, outputs), *_LIMITS[activation])


def _conv(call: Call) -> None:
    x = call.value(0, packed=True)
    size, packed = call.shape(x), call.constant(1)
    if packed.dtype != np.int32 or packed.ndim != 4 or not packed.size:
        raise call.refused(f"weights {packed.dtype} {list(packed.shape)}, not int32 of four axes")
    outputs, height, width, words = packed.shape
    groups = _groups(call, words, size[2])
    window = call.window((height, width), size)
    pad_value = call.integer("pad_values")
    if pad_value not in (0, 1):
        raise call.refused(f"pad_values {pad_value}")
    gives_bits = call.source.tensor(call.operator.outputs[0]).type == INT32
    taps = height * width * (size[2] // groups)
    _check_epilogue(call, gives_bits, window, pad_value)
    call.give(
        BitConv(
            name=call.name, inputs=(x,), layer=call.layer, window=window, words=to_words(packed),
            channels_in=size[2] // groups, groups=groups, pad_value=pad_value,
            epilogue=_threshold(call, outputs, taps) if gives_bits else _affine(call, outputs),
        )
    )  # fmt: skip


def _check_epilogue(call: Call, gives_bits: bool, window: Window, pad_value: int) -> None:
    """FormatError of what LCE leaves undefined: parameters that it would not use, zero pads."""
    if gives_bits and (call.index(2) >= 0 or call.index(3) >= 0 or call.index(4) < 0):
        raise call.refused("gives signs and has a multiplier, or no threshold")
    if not gives_bits and call.index(4) >= 0:
        raise call.refused("gives numbers and has a threshold")
    activation = call.integer("fused_activation_function")  # in the thresholds, of signs
    if pad_value == 0 and any(window.pads) and (gives_bits or activation):
        raise call.refused("pads with zeros before signs or a fused activation, as LCE cannot")


LCE_RULES: dict[str, tuple[Callable[[Call], None], int, int]] = {
    "LceBMaxPool2d": (_max_pool, 1, 1),
    "LceBconv2d": (_conv, 5, 5),
    "LceDequantize": (_dequantize, 1, 1),
    "LceQuantize": (_quantize, 1, 1),
}
"""By operator: its rule, and the fewest and most inputs that it has."""
