"""ONNX export: accepted by the checker, exact in ONNX Runtime at every level, compact, stable."""

import dataclasses
import hashlib

import numpy as np
import onnx
import pytest

from export import to_onnx
from export.errors import ExportError
from export.ort_runtime import LEVELS, OrtRuntime
from export.parity import compare, expected_values
from kernels.program import OP_TYPES, BinaryConv, Program, Window
from tests.nets import every_op, images


@pytest.fixture(scope="module")
def program() -> Program:
    return every_op()


def test_every_op_has_a_rule() -> None:
    assert set(to_onnx.RULES) == set(OP_TYPES.values())


@pytest.mark.parametrize("level", LEVELS)
def test_every_sign_and_logit_is_equal_at_every_level(program: Program, level: str) -> None:
    runtime = OrtRuntime(program, level=level)
    report = compare(program, [runtime], images(program, 12), batch=5)
    (each,) = report.comparisons
    assert report.promised
    assert report.head_exact
    assert each.sign_bits_compared > 10_000
    assert (each.sign_bits_differing, each.logits_max_abs_diff) == (0, 0.0)


def test_any_batch_size_gives_the_same(program: Program) -> None:
    runtime = OrtRuntime(program)
    batch = images(program, 7)
    one_by_one = np.concatenate([runtime.logits(batch[i : i + 1]) for i in range(7)])
    assert np.array_equal(runtime.logits(batch), one_by_one)


def test_input_and_output_are_as_documented(program: Program) -> None:
    graph = to_onnx.build(program).graph
    shape = graph.input[0].type.tensor_type
    assert [d.dim_param or d.dim_value for d in shape.shape.dim] == ["N", 6, 7, 2]
    assert shape.elem_type == onnx.TensorProto.UINT8
    assert [o.name for o in graph.output] == ["logits"]
    assert {node.domain for node in graph.node} == {""}


def test_weights_are_stored_one_bit_each(program: Program) -> None:
    constants = {c.name: c for c in to_onnx.build(program).graph.initializer}
    for op in program.ops:
        if isinstance(op, BinaryConv):
            stored = constants[f"{op.name}/weights_bits"]
            assert len(stored.raw_data) == op.channels_out * 9 * -(-op.channels_in // 8)
            assert f"{op.name}/weights" not in constants


def test_bytes_are_deterministic_and_carry_the_hash(program: Program) -> None:
    data = to_onnx.convert(program)
    assert data == to_onnx.convert(every_op())
    assert data != to_onnx.convert(every_op(seed=1))
    metadata = {p.key: p.value for p in onnx.load_from_string(data).metadata_props}
    assert metadata["program_sha256"]
    assert metadata["classes"].split("\n") == list(program.classes)


def test_names_that_clash_with_ours_are_kept_apart(program: Program) -> None:
    renamed = {"stem": "images", "sign": "pixels", "total": "const_zero"}
    ops = tuple(
        dataclasses.replace(
            op,
            name=renamed.get(op.name, op.name),
            inputs=tuple(renamed.get(i, i) for i in op.inputs),
        )
        for op in program.ops
    )
    clashing = dataclasses.replace(program, ops=ops)
    batch = images(program, 3)
    expected = expected_values(program, batch)[1]
    assert np.array_equal(OrtRuntime(clashing).logits(batch), expected)


def test_a_dilated_average_is_refused_by_name(program: Program) -> None:
    window = Window((2, 2), (2, 2), (0, 0, 0, 1), (2, 1))
    ops = tuple(
        dataclasses.replace(op, window=window) if op.name == "mean" else op for op in program.ops
    )
    with pytest.raises(ExportError, match="'mean'"):
        to_onnx.convert(dataclasses.replace(program, ops=ops))


def test_the_bytes_of_the_toy_network_are_known(program: Program) -> None:
    """A change here changes every exported file: explain it in the changelog."""
    assert hashlib.sha256(to_onnx.convert(program)).hexdigest()[:16] == "8a6ce3fe40444041"
