"""What a model file holds and costs, layer by layer, in the manner of larq's ``models.summary``.

One :class:`Summary` for every format: :func:`summarise_program` makes it of a Program,
:mod:`frostbit.export.onnx.summary` and :mod:`frostbit.export.lce.summary` of files from anywhere.
Conventions:

* A *parameter* is a number of a stored array that has axes: weights, biases, multipliers,
  thresholds. Scalars, shapes, axes, pads and tables for unpacking are plumbing, not parameters.
  An array that several layers read counts once, at the first.
* A *MAC* is one multiplication with its addition; padded taps count. Its precision is the
  larger of the precisions of its two factors, so a 1-bit MAC has 1-bit weights and a 1-bit input.
* Precision is information, not storage: a float32 map that can only hold +1 and -1 has 1 bit.

Of one Program, its .bnn, packed .onnx and .tflite files agree on the 1-bit and 8-bit parameters
and the 1-bit MACs of every layer. They do not agree on 32-bit parameters, because formats say the
same in other words: ONNX stores the pixels' zero points as floats where they differ between
channels (the .bnn keeps them as bytes and does not count them) and a dilated average pool as a
convolution; TFLite adds multipliers of one where the margin of a threshold is computed in
floats, and constants of the output's size that correct the border of a zero-padded convolution.
Binary weights on float inputs are the exception to the first rule: LCE has no operator for them,
so in a .tflite they are 8-bit parameters. Their MACs have 32 bits everywhere.
The pixels have 8 bits in a .bnn, 32 in a .tflite, and in ONNX 8 until they are shifted.
Source: ``larq/models.py`` of larq/larq.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from frostbit.kernels.ir.integer_weights import as_int8
from frostbit.kernels.ir.macs import macs
from frostbit.kernels.ir.program import (
    BinaryConv,
    Conv,
    Dense,
    Kind,
    Op,
    PRelu,
    Program,
    Scale,
    Threshold,
)
from frostbit.kernels.ir.verify import infer_types

KIND_BITS: Mapping[Kind, int] = {"u8": 8, "bits": 1, "f32": 32}
MAX_NAME = 120
"""Letters of a name from a file that are shown: a line of a terminal."""
_MAX_NESTING = 16
"""Slashes in a name that are looked at in search of its layer; ours have three."""


@dataclass(frozen=True)
class Layer:
    """One layer's share.

    Attributes:
        name, op: layer name and operator type.
        input_bits: precision of the widest input; None if it has none.
        output: shape of the output for one image, without the batch axis, in the file's order
            (NHWC; NCHW in ONNX); None if the file leaves it open.
        parameters: bits of a parameter -> how many.
        bytes: size of these parameters in the file.
        macs: bits of a multiply-accumulate -> how many for one image.
    """

    name: str
    op: str
    input_bits: int | None
    output: tuple[int, ...] | None
    parameters: Mapping[int, int] = field(default_factory=dict)
    bytes: int = 0
    macs: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A whole model.

    Attributes:
        format: what the file is, for a heading.
        file_bytes: its size.
        layers: in execution order.
        notes: what was not counted, one line each.
    """

    format: str
    file_bytes: int
    layers: tuple[Layer, ...]
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> dict[int, int]:
        """Bits of a parameter -> how many."""
        return added(layer.parameters for layer in self.layers)

    @property
    def macs(self) -> dict[int, int]:
        """Bits of a MAC -> how many for one image."""
        return added(layer.macs for layer in self.layers)

    @property
    def parameter_bits(self) -> list[int]:
        """Columns of a table: every precision that a parameter has, 1 and 32 always."""
        return sorted({1, 32, *self.parameters})

    @property
    def mac_bits(self) -> list[int]:
        """The same of MACs."""
        return sorted({1, 32, *self.macs})

    @property
    def parameter_bytes(self) -> int:
        """Size of all parameters in the file; the rest of the file is graph and names."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def float_bytes(self) -> int:
        """Float equivalent: every parameter in 32 bits."""
        return 4 * sum(self.parameters.values())

    @property
    def eight_bit_bytes(self) -> int:
        """8-bit equivalent: parameters of more than 8 bits in 8, the others as they are."""
        used = sum(min(width, 8) * count for width, count in self.parameters.items())
        return -(-used // 8)

    @property
    def binary_share(self) -> float | None:
        """Share of the MACs that have 1 bit, 0..1; None if there are no MACs."""
        total = sum(self.macs.values())
        return self.macs.get(1, 0) / total if total else None


def added(counts: Iterable[Mapping[int, int]]) -> dict[int, int]:
    """Sum of mappings, key by key, sorted by key."""
    total: Counter[int] = Counter()
    for each in filter(None, counts):
        total.update(each)
    return dict(sorted(total.items()))


def product(shape: Iterable[int]) -> int:
    """Number of entries of ``shape``; Python integers, so that no size overflows."""
    total = 1
    for size in shape:
        total *= size
    return total


def readable(name: str) -> str:
    """A name from a file as it may be printed: no control characters, not endless."""
    clean = name[: MAX_NAME + 1]
    if not clean.isprintable():
        clean = "".join(c if c.isprintable() else "?" for c in clean)
    return clean if len(clean) <= MAX_NAME else f"{clean[: MAX_NAME - 3]}..."


def _owner(name: str, names: set[str]) -> str:
    """The layer that an operator belongs to: ``conv1`` for ``conv1/padded`` if that exists."""
    end = -1
    for _ in range(_MAX_NESTING):
        end = name.find("/", end + 1)
        if end < 0:
            break
        if name[:end] in names:
            return name[:end]
    return name


def _joined(name: str, rows: Sequence[Layer]) -> Layer:
    """One row for all operators of a layer: that with the most MACs speaks for it."""
    if len(rows) == 1:  # as most are, in files with many thousands
        shown, op = readable(name), readable(rows[0].op)
        same = shown == name and op == rows[0].op
        return rows[0] if same else replace(rows[0], name=shown, op=op)
    main = max(rows, key=lambda row: sum(row.macs.values()))
    if not main.macs:
        main = replace(rows[-1], input_bits=rows[0].input_bits)
    return Layer(
        readable(name),
        readable(main.op),
        main.input_bits,
        rows[-1].output,
        added(row.parameters for row in rows),
        sum(row.bytes for row in rows),
        added(row.macs for row in rows),
    )


def by_layer(rows: Sequence[Layer]) -> tuple[Layer, ...]:
    """Join the rows of operators that make up one layer, as our exporters name them.

    The operators ``conv1/padded`` and ``conv1/scaled`` belong to the layer ``conv1`` if an
    operator is called so.
    """
    names = {row.name for row in rows}
    groups: dict[str, list[Layer]] = {}
    for row in rows:
        groups.setdefault(_owner(row.name, names), []).append(row)
    return tuple(_joined(name, group) for name, group in groups.items())


def _parameters(op: Op) -> tuple[dict[int, int], int]:
    """Parameters of an op by bits, and their bytes in a .bnn file."""
    if isinstance(op, BinaryConv):
        per_channel = 1 if isinstance(op.epilogue, Threshold) else 2
        numbers = per_channel * op.channels_out
        size = op.channels_out * -(-op.taps // 8) + 4 * numbers
        return {1: op.channels_out * op.taps, 32: numbers}, size
    if isinstance(op, (Conv, Dense)):
        pad = op.pad_value.nbytes if isinstance(op, Conv) else 0
        if as_int8(op.weights) is None:
            counts = {32: op.weights.size + op.add.size}
        else:  # a scale and an addend per channel
            counts = {8: op.weights.size, 32: 2 * op.add.size}
        return counts, sum(bits * count for bits, count in counts.items()) // 8 + pad
    if isinstance(op, Scale):
        return {32: op.mul.size + op.add.size}, op.mul.nbytes + op.add.nbytes
    if isinstance(op, PRelu):
        return {32: op.slope.size}, op.slope.nbytes
    return {}, 0


def summarise_program(program: Program, file_bytes: int) -> Summary:
    """Summary of ``program``, whose .bnn file has ``file_bytes``; FormatError if malformed."""
    types = infer_types(program)
    layers = []
    for op in program.ops:
        shape = types[op.name].shape
        parameters, size = _parameters(op)
        width = max(KIND_BITS[types[source].kind] for source in op.inputs)
        wide = max(width, 8) if 8 in parameters else 32
        counts = {
            bits: count for bits, count in zip((1, wide), macs(op, types), strict=True) if count
        }
        layers.append(Layer(op.name, type(op).__name__, width, shape, parameters, size, counts))
    return Summary("Frostbit model", file_bytes, tuple(layers))
