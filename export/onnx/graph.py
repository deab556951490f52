"""What every ONNX form shares: the graph under construction, input, outputs, metadata, checks.

A form (:mod:`frostbit.export.onnx.packed`, :mod:`frostbit.export.onnx.int8`,
:mod:`frostbit.export.onnx.qonnx`) is a table of rules, one per op type; :func:`translate` walks the
Program and applies them. Names: a value's tensor carries its op's name; what belongs to an op
stands behind a slash (``conv1/weights``).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from numpy.typing import DTypeLike, NDArray
from onnx import TensorProto, helper, numpy_helper, shape_inference

from frostbit.export.errors import ExportError
from frostbit.export.version import VERSION
from frostbit.kernels.ir.file import format_version, program_hash
from frostbit.kernels.ir.integer_weights import as_int8
from frostbit.kernels.ir.program import INPUT, Op, Program, ValueType, Window
from frostbit.kernels.ir.verify import infer_types

OPSET = 13
IR_VERSION = 8
INPUT_NAME = "images"
OUTPUT_NAME = "logits"
BATCH = "N"
Array = NDArray[np.generic]
Attribute = int | float | str | list[int]
"""What an attribute of a node may be."""
Dims = list[str | int | None]


@dataclass(frozen=True)
class Options:
    """What a person may choose of a file.

    Attributes:
        float_input: take float32 ``[N, C, H, W]`` holding whole pixel values 0..255, instead of
            uint8 ``[N, H, W, C]``; not for an imported model, which takes float32
            ``[N, H, W, C]`` anyway.
        licence: of the trained weights, written to the metadata key ``model_license``.
        accuracy: share of the test set, 0..1, written to the metadata; None leaves it out.
    """

    float_input: bool = False
    licence: str = ""
    accuracy: float | None = None


DEFAULTS = Options()


@dataclass(frozen=True)
class Form:
    """How a family of files differs from the others.

    Attributes:
        name: written to the metadata key ``frostbit_form``.
        batch: size of the batch axis; a string makes it dynamic.
        opsets: further operator sets, domain -> version.
    """

    name: str
    batch: str | int = BATCH
    opsets: Mapping[str, int] = field(default_factory=dict)


def make_node(
    kind: str, inputs: list[str], output: str, attributes: Mapping[str, Attribute]
) -> onnx.NodeProto:
    """A node that carries the name of its output."""
    node = helper.make_node(kind, inputs, [output], name=output)
    node.attribute.extend(helper.make_attribute(*each) for each in sorted(attributes.items()))
    return node


@dataclass
class Graph:
    """Nodes and constants so far, and where the Program's values are.

    Attributes:
        types: kind and shape of every value.
        floats: value -> float32 NCHW tensor (of +-1.0 for bits).
        codes: value -> uint8 NCHW tensor, 0 for -1 and 2 for +1 (int8 form only).
        declared: types of further tensors, where shape inference needs them.
        held: values that their op gives as codes.
        readers: ops that read codes.
        planar: whether the input is float32 NCHW.
        plain: whether all weights are float32, for tools that fold no constants.
    """

    types: dict[str, ValueType]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: dict[str, onnx.TensorProto] = field(default_factory=dict)
    floats: dict[str, str] = field(default_factory=dict)
    codes: dict[str, str] = field(default_factory=dict)
    declared: list[onnx.ValueInfoProto] = field(default_factory=list)
    held: frozenset[str] = frozenset()
    readers: frozenset[str] = frozenset()
    planar: bool = False
    plain: bool = False

    def constant(self, name: str, value: Array) -> str:
        """Initializer ``name``; the first value given to a name stays."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def scalar(self, name: str, value: float, dtype: DTypeLike = np.float32) -> str:
        """Initializer ``const/<name>`` without axes."""
        return self.constant(f"const/{name}", np.array(value, dtype))

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Attribute) -> str:
        """Append a node that carries the name of its output, and return that name."""
        self.nodes.append(make_node(kind, inputs, output, attributes))
        return output

    def float_map(self, value: str) -> str:
        """Tensor of ``value`` as float32, made from its codes where there is only that."""
        if value not in self.floats:
            scale, zero = self.scalar("one", 1.0), self.scalar("code_zero", 1, np.uint8)
            inputs = [self.codes[value], scale, zero]
            self.floats[value] = self.node("DequantizeLinear", inputs, f"{value}/float")
        return self.floats[value]

    def sources(self, op: Op) -> list[str]:
        """Tensors that ``op`` reads."""
        if op.name in self.readers:
            return [self.codes[source] for source in op.inputs]
        return [self.float_map(source) for source in op.inputs]

    def store(self, op: Op, tensor: str) -> None:
        """Remember that ``tensor`` holds the output of ``op``."""
        (self.codes if op.name in self.held else self.floats)[op.name] = tensor


Rule = Callable[..., str]


def full_precision(g: Graph, name: str, weights: NDArray[np.float32]) -> str:
    """Tensor ``name/weights`` of ``weights`` ``[O, ...]``, stored in int8 where they fit.

    ``Cast -> Mul`` by a scale per output channel makes float32 of them, exactly. ONNX Runtime folds
    that while it loads; it would run a ``DequantizeLinear`` of weights again for every image.
    """
    name = f"{name}/weights"
    found = None if g.plain else as_int8(weights)
    if found is None:
        return g.constant(name, weights)
    small, scale = found
    stored = g.constant(f"{name}_stored", small)
    by = g.constant(f"{name}_scale", scale.reshape(-1, *[1] * (weights.ndim - 1)))
    whole = g.node("Cast", [stored], f"{name}_whole", to=TensorProto.FLOAT)
    return g.node("Mul", [whole, by], name)


def window_attributes(window: Window, *, padded: bool = False) -> dict[str, Attribute]:
    """ONNX attributes of ``window``; no pads if a ``Pad`` before it did that (``padded``)."""
    return {
        "kernel_shape": list(window.kernel),
        "strides": list(window.stride),
        "dilations": list(window.dilation),
        "pads": [0, 0, 0, 0] if padded else list(window.pads),
    }


def pad(g: Graph, name: str, x: str, window: Window, value: float) -> str:
    """Explicit ``Pad`` of an NCHW map with one value; no node when there is nothing to pad."""
    if not any(window.pads):
        return x
    top, left, bottom, right = window.pads
    amounts = g.constant(f"{name}/pads", np.array([0, 0, top, left, 0, 0, bottom, right], np.int64))
    fill = g.constant(f"{name}/pad_value", np.array(value, np.float32))
    return g.node("Pad", [x, amounts, fill], f"{name}/padded", mode="constant")


def relabelled(program: Program) -> Program:
    """``program`` with names that are unique among all tensors of the graph."""
    labels, taken = {INPUT: INPUT}, {INPUT, INPUT_NAME, OUTPUT_NAME}
    for op in program.ops:
        label = op.name.replace("/", ".")
        while label in taken:
            label += "_"
        taken.add(label)
        labels[op.name] = label
    ops = tuple(
        dataclasses.replace(
            op, name=labels[op.name], inputs=tuple(labels[source] for source in op.inputs)
        )
        for op in program.ops
    )
    return dataclasses.replace(program, ops=ops)


def takes_planar(program: Program, options: Options) -> bool:
    """Whether a person chose float32 NCHW; ExportError where that is no choice."""
    if options.float_input and program.input_kind == "f32":
        raise ExportError(
            "the model takes float32 [N, H, W, C] as it is: leave out the float input"
        )
    return options.float_input


def _pixels(g: Graph) -> str:
    """Float32 NCHW pixels."""
    if g.planar:
        return INPUT_NAME
    pixels = INPUT_NAME
    if g.types[INPUT].kind == "u8":
        pixels = g.node("Cast", [INPUT_NAME], f"{INPUT_NAME}/float", to=TensorProto.FLOAT)
    return g.node("Transpose", [pixels], f"{INPUT_NAME}/nchw", perm=[0, 3, 1, 2])


def fill(g: Graph, program: Program, rules: Mapping[type[Op], Rule]) -> None:
    """Apply the rules to the ops of a relabelled Program; ExportError if one is missing."""
    g.floats[INPUT] = _pixels(g)
    for op in program.ops:
        rule = rules.get(type(op))
        if rule is None:
            raise ExportError(f"op '{op.name}': this ONNX form has no {type(op).__name__}")
        g.store(op, rule(g, op, *g.sources(op)))
    g.node("Flatten", [g.float_map(program.ops[-1].name)], OUTPUT_NAME, axis=1)


def _map_infos(g: Graph, value: str, batch: str | int) -> list[onnx.ValueInfoProto]:
    """Types and NCHW shapes of the one or two tensors that hold ``value``, codes first."""
    height, width, channels = g.types[value].shape
    shape: Dims = [batch, channels, height, width]
    held = ((g.codes, TensorProto.UINT8), (g.floats, TensorProto.FLOAT))
    return [
        helper.make_tensor_value_info(names[value], kind, shape)
        for names, kind in held
        if value in names
    ]


def _input_info(g: Graph, batch: str | int) -> onnx.ValueInfoProto:
    height, width, channels = g.types[INPUT].shape
    pixels = g.types[INPUT].kind == "u8" and not g.planar
    shape: Dims = [batch, height, width, channels]
    if g.planar:
        shape = [batch, channels, height, width]
    kind = TensorProto.UINT8 if pixels else TensorProto.FLOAT
    return helper.make_tensor_value_info(INPUT_NAME, kind, shape)


def _metadata(program: Program, form: Form, options: Options) -> dict[str, str]:
    found = {
        "classes": "\n".join(program.classes),
        "dataset": program.dataset,
        "frostbit_form": form.name,
        "frostbit_format": str(format_version(program)),
        "frostbit_version": VERSION,
        "model_license": options.licence,
        "program_sha256": program_hash(program),
    }
    if options.accuracy is not None:
        found["accuracy"] = f"{options.accuracy:.6f}"
    if program.preprocessing is not None:
        known = program.preprocessing
        found["preprocessing"] = json.dumps({"mul": known.mul, "add": known.add})
    return dict(sorted(found.items()))


def finish(g: Graph, program: Program, form: Form, options: Options) -> onnx.ModelProto:
    """Model of the filled graph of ``program`` (as given, not relabelled), checked.

    Raises:
        onnx.checker.ValidationError, onnx.shape_inference.InferenceError: never for a
            well-formed Program; a fault of ours.
    """
    logits: Dims = [form.batch, len(program.classes)]
    outputs = [helper.make_tensor_value_info(OUTPUT_NAME, TensorProto.FLOAT, logits)]
    inner = list(g.declared)
    for value in g.types:
        inner += [] if value == INPUT else _map_infos(g, value, form.batch)
    pixels = _input_info(g, form.batch)
    constants = list(g.constants.values())
    graph = helper.make_graph(g.nodes, "frostbit", [pixels], outputs, constants, value_info=inner)
    opsets = [helper.make_opsetid("", OPSET)]
    opsets += [helper.make_opsetid(domain, version) for domain, version in form.opsets.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)
    model.producer_name, model.producer_version = "frostbit", VERSION
    helper.set_model_props(model, _metadata(program, form, options))
    onnx.checker.check_model(model, full_check=True)
    shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def sign_tensors(program: Program) -> dict[str, str]:
    """Names of the ``bits`` values, in order, and of the tensors that hold them in every form."""
    types = infer_types(program)
    labelled = zip(program.ops, relabelled(program).ops, strict=True)
    return {op.name: label.name for op, label in labelled if types[op.name].kind == "bits"}


def serialize(model: onnx.ModelProto) -> bytes:
    """Bytes of ``model``; the same model gives the same bytes."""
    return bytes(model.SerializeToString(deterministic=True))
