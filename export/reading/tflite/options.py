"""Options of TFLite's operators by name; one that is not known here is refused, never dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from frostbit.export.lce.tflite_reader import Operator, custom_options
from frostbit.export.reading.graph import refused

ACTIVATIONS = {0: "none", 1: "RELU", 2: "RELU_N1_TO_1", 3: "RELU6", 4: "TANH", 5: "SIGN_BIT"}
SAME, VALID = 0, 1

_INT8, _INT32, _BOOL, _FLOAT = "<b", "<i", "<?", "<f"


@dataclass(frozen=True)
class _Field:
    """Place in the table, kind of number, and what an absent one means."""

    slot: int
    kind: str
    default: int = 0


_ACTIVATION_FIRST = {"fused_activation_function": _Field(0, _INT8)}
_SUM = {**_ACTIVATION_FIRST, "pot_scale_int16": _Field(1, _BOOL)}
_WINDOW = {
    "padding": _Field(0, _INT8),
    "stride_w": _Field(1, _INT32),
    "stride_h": _Field(2, _INT32),
}
_CONV = {
    **_WINDOW,
    "fused_activation_function": _Field(3, _INT8),
    "dilation_w_factor": _Field(4, _INT32, 1),
    "dilation_h_factor": _Field(5, _INT32, 1),
    "quantized_bias_type": _Field(6, _INT8),
}
_DEPTHWISE = {
    **_WINDOW,
    "depth_multiplier": _Field(3, _INT32),
    "fused_activation_function": _Field(4, _INT8),
    "dilation_w_factor": _Field(5, _INT32, 1),
    "dilation_h_factor": _Field(6, _INT32, 1),
}
_POOL = {
    **_WINDOW,
    "filter_width": _Field(3, _INT32),
    "filter_height": _Field(4, _INT32),
    "fused_activation_function": _Field(5, _INT8),
}
_DENSE = {
    **_ACTIVATION_FIRST,
    "weights_format": _Field(1, _INT8),
    "keep_num_dims": _Field(2, _BOOL),
    "asymmetric_quantize_inputs": _Field(3, _BOOL),
    "quantized_bias_type": _Field(4, _INT8),
}
_CONCATENATION = {"axis": _Field(0, _INT32), "fused_activation_function": _Field(1, _INT8)}
_REDUCER = {"keep_dims": _Field(0, _BOOL)}
_SPLIT = {"num_splits": _Field(0, _INT32)}
_MASKS = (
    "begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask", "offset",
)  # fmt: skip
_SHAPE = {"shape": _Field(0, "")}

BUILTIN: dict[str, tuple[int, Mapping[str, _Field]]] = {
    "ABS": (78, {}),
    "ADD": (11, _SUM),
    "AVERAGE_POOL_2D": (5, _POOL),
    "CONCATENATION": (10, _CONCATENATION),
    "CONV_2D": (1, _CONV),
    "DEPTHWISE_CONV_2D": (2, _DEPTHWISE),
    "DEQUANTIZE": (38, {}),
    "DIV": (29, _ACTIVATION_FIRST),
    "EXPAND_DIMS": (52, {}),
    "FULLY_CONNECTED": (8, _DENSE),
    "LEAKY_RELU": (75, {"alpha": _Field(0, _FLOAT)}),
    "LOGISTIC": (0, {}),
    "MAXIMUM": (39, {}),
    "MAX_POOL_2D": (5, _POOL),
    "MEAN": (27, _REDUCER),
    "MINIMUM": (39, {}),
    "MUL": (21, _ACTIVATION_FIRST),
    "NEG": (42, {}),
    "PAD": (22, {}),
    "PADV2": (43, {}),
    "PRELU": (0, {}),
    "REDUCE_MAX": (27, _REDUCER),
    "RELU": (0, {}),
    "RELU6": (0, {}),
    "RELU_N1_TO_1": (0, {}),
    "RESHAPE": (17, _SHAPE),
    "SLICE": (48, {}),
    "SOFTMAX": (9, {"beta": _Field(0, _FLOAT)}),
    "SPLIT": (35, _SPLIT),
    "SPLIT_V": (79, _SPLIT),
    "SQUEEZE": (30, _SHAPE),
    "STRIDED_SLICE": (32, {name: _Field(slot, _INT32) for slot, name in enumerate(_MASKS)}),
    "SUB": (28, _SUM),
    "SUM": (27, _REDUCER),
    "TRANSPOSE": (26, {}),
}
"""Of the operators that can be read: which options table they have, and its fields."""

_LCE_CONV = (
    "channels_in", "dilation_height_factor", "dilation_width_factor", "fused_activation_function",
    "pad_values", "padding", "stride_height", "stride_width",
)  # fmt: skip
LCE: dict[str, tuple[str, ...]] = {
    "LceQuantize": (),
    "LceDequantize": (),
    "LceBconv2d": _LCE_CONV,
    "LceBMaxPool2d": ("filter_height", "filter_width", "padding", "stride_height", "stride_width"),
}
"""The options of Larq Compute Engine's operators, all of them stated."""


def is_known(operator: Operator) -> bool:
    """Whether an operator of this name can be read at all."""
    return operator.name in (LCE if operator.is_custom else BUILTIN)


def options(operator: Operator, layer: str) -> dict[str, float]:
    """Every option of ``operator`` by name, absent ones as their default.

    Raises:
        FormatError: another table, an option that is not known here, or one that is missing.
        ExportError: the file is damaged.
    """
    if operator.is_custom:
        return _lce(operator, layer)
    kind, fields = BUILTIN[operator.name]
    table = operator.options
    if table is None:
        if any(field.kind not in ("", _BOOL) for field in fields.values()):
            raise refused(layer, "has no options")
        return {name: field.default for name, field in fields.items()}
    if kind and operator.options_type != kind:
        raise refused(layer, f"has options of kind {operator.options_type}, not {kind}")
    unknown = table.fields() - {field.slot for field in fields.values()}
    if unknown:
        raise refused(layer, f"has an option that is not known (number {min(unknown)})")
    found: dict[str, float] = {}
    for name, field in fields.items():
        if field.kind == _FLOAT:
            found[name] = table.real(field.slot)
        elif field.kind:
            found[name] = table.number(field.slot, field.kind, field.default)
    return found


def _lce(operator: Operator, layer: str) -> dict[str, float]:
    wanted = LCE[operator.name]
    if not wanted:
        return {}
    found = custom_options(operator)
    for name in wanted:
        if name not in found:
            raise refused(layer, f"the option '{name}' is missing")
    unknown = sorted(found.keys() - set(wanted))
    if unknown:
        raise refused(layer, f"has an option '{unknown[0]}' that is not known")
    return dict(found)
