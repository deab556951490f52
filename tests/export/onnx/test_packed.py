"""ONNX export: accepted by the checker, exact in ONNX Runtime at every level, compact, stable."""

import dataclasses
import json

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from onnx.reference import ReferenceEvaluator

from frostbit.export.errors import ExportError
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx.graph import INPUT_NAME, OUTPUT_NAME, Options, sign_tensors
from frostbit.export.onnx.runtime import (
    FORMS,
    LEVELS,
    QONNX,
    OrtRuntime,
    convert,
    exposed,
    packed_signs,
    session,
)
from frostbit.export.parity import compare, expected_values
from frostbit.export.version import VERSION
from frostbit.kernels.ir.file import program_hash
from frostbit.kernels.ir.program import (
    OP_TYPES,
    BinaryConv,
    FormatError,
    Program,
    Threshold,
    Window,
)
from frostbit.kernels.ir.verify import infer_types
from tests.kernels.programs import Builder, exact_programs, programs, random_images
from tests.nets import every_op, images, imported


@pytest.fixture(scope="module")
def program() -> Program:
    return every_op()


def test_every_op_has_a_rule() -> None:
    assert set(to_onnx.RULES) == set(to_onnx.FLOAT_RULES) == set(OP_TYPES.values())


def test_an_op_without_a_rule_is_refused_by_name(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(to_onnx, "RULES", {})
    with pytest.raises(ExportError, match=r"'stem'.*Conv"):
        to_onnx.convert(program)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("level", LEVELS)
def test_every_sign_and_logit_is_equal_at_every_level(
    program: Program, level: str, form: str
) -> None:
    runtime = OrtRuntime(program, level=level, form=form)
    assert [part for part in runtime.name.split(":") if part not in (form, level)] == ["ort"]
    report = compare(program, [runtime], images(program, 12), batch=5)
    (each,) = report.comparisons
    assert report.promised
    assert report.head_exact
    assert each.sign_bits_compared > 10_000
    assert (each.sign_bits_differing, each.logits_max_abs_diff) == (0, 0.0)


@settings(deadline=None, max_examples=25)
@given(exact_programs())
def test_random_programs_are_equal_in_every_form_at_every_level(program: Program) -> None:
    batch = random_images(program, 3)
    signs, logits = expected_values(program, batch)
    for form in FORMS:
        shipped = convert(program, form)
        shown = exposed(shipped, program)
        for level in LEVELS:
            answer = session(shipped, level).run(None, {INPUT_NAME: batch})
            assert np.array_equal(answer[0], logits), (form, level)
            answers = session(shown, level).run(None, {INPUT_NAME: batch})[1:]
            assert list(sign_tensors(program)) == list(signs)
            for name, answer in zip(signs, answers, strict=True):
                assert np.array_equal(packed_signs(answer), signs[name]), (form, level, name)


@pytest.mark.parametrize("form", [*FORMS, QONNX])
@pytest.mark.parametrize("level", ["all", "disabled"])
def test_what_imported_networks_have(level: str, form: str) -> None:
    program = imported()
    report = compare(program, [OrtRuntime(program, level=level, form=form)], images(program, 12))
    assert report.passed, report.comparisons
    assert report.comparisons[0].sign_bits_compared == 12 * 6 * 7 * 9


@pytest.mark.parametrize("form", FORMS)
def test_an_imported_network_takes_floats_channels_last(form: str) -> None:
    program = imported()
    data = convert(program, form)
    info = onnx.load_from_string(data).graph.input[0]
    assert (dims(info), info.type.tensor_type.elem_type) == (["N", 6, 7, 2], onnx.TensorProto.FLOAT)
    found = metadata(data)
    assert found["frostbit_format"] == "3"
    mul = json.loads(found["preprocessing"])["mul"]
    assert tuple(mul) == program.preprocessing.mul
    with pytest.raises(ExportError, match=r"float32 \[N, H, W, C\] as it is"):
        convert(program, form, Options(float_input=True))


@settings(deadline=None, max_examples=10)
@given(programs(foreign=True))
def test_random_imported_programs_are_close_in_every_form(program: Program) -> None:
    runtimes = [OrtRuntime(program, form=form) for form in (*FORMS, QONNX)]
    report = compare(program, runtimes, random_images(program, 4), must_vary=False)
    assert report.passed, report


@settings(deadline=None, max_examples=15)
@given(exact_programs())
def test_onnx_s_own_evaluator_gives_the_same(program: Program) -> None:
    batch = random_images(program, 2)
    expected = expected_values(program, batch)[1]
    for packed in (True, False):
        evaluator = ReferenceEvaluator(to_onnx.build(program, packed=packed))
        assert np.array_equal(evaluator.run(None, {INPUT_NAME: batch})[0], expected)


@pytest.mark.parametrize("form", FORMS)
def test_any_batch_size_gives_the_same(program: Program, form: str) -> None:
    runtime = OrtRuntime(program, form=form)
    batch = images(program, 7)
    one_by_one = np.concatenate([runtime.logits(batch[i : i + 1]) for i in range(7)])
    assert np.array_equal(runtime.logits(batch), one_by_one)


def dims(info: onnx.ValueInfoProto) -> list[str | int]:
    return [d.dim_param or d.dim_value for d in info.type.tensor_type.shape.dim]


def test_the_size_is_that_of_the_file_even_if_it_was_made_here(program: Program) -> None:
    data = to_onnx.convert(program)
    assert OrtRuntime(program).size_bytes == OrtRuntime(program, data).size_bytes == len(data)


def test_input_and_output_are_as_documented(program: Program) -> None:
    graph = to_onnx.build(program).graph
    assert dims(graph.input[0]) == ["N", 6, 7, 2]
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [(o.name, dims(o)) for o in graph.output] == [(OUTPUT_NAME, ["N", 5])]
    assert {node.domain for node in graph.node} == {""}


def test_every_value_is_declared_with_its_shape_under_its_own_name(program: Program) -> None:
    declared = {info.name: dims(info) for info in to_onnx.build(program).graph.value_info}
    types = infer_types(program)
    for op in program.ops[:-1]:
        height, width, channels = types[op.name].shape
        assert declared[op.name] == ["N", channels, height, width]


def test_nodes_are_named_after_what_they_give(program: Program) -> None:
    ops = {op.name for op in program.ops} | {INPUT_NAME, OUTPUT_NAME, f"{OUTPUT_NAME}_", "lut"}
    for node in to_onnx.build(program).graph.node:
        assert node.name == node.output[0]
        assert node.name.split("/")[0] in ops


@pytest.mark.parametrize("form", FORMS)
def test_a_float_input_takes_planar_pixels(program: Program, form: str) -> None:
    data = convert(program, form, Options(float_input=True))
    info = onnx.load_from_string(data).graph.input[0]
    assert (dims(info), info.type.tensor_type.elem_type) == (["N", 2, 6, 7], onnx.TensorProto.FLOAT)
    batch = images(program, 3)
    runtime = OrtRuntime(program, data, form=form)
    assert np.array_equal(runtime.logits(batch), expected_values(program, batch)[1])


def test_weights_are_stored_one_bit_each(program: Program) -> None:
    constants = {c.name: c for c in to_onnx.build(program).graph.initializer}
    for op in program.ops:
        if isinstance(op, BinaryConv):
            stored = constants[f"{op.name}/weights_bits"]
            assert len(stored.raw_data) == op.channels_out * -(-9 * op.channels_in // 8)
            assert f"{op.name}/weights" not in constants


def test_the_float_form_has_plain_weights(program: Program) -> None:
    model = to_onnx.build(program, packed=False)
    constants = {c.name: onnx.numpy_helper.to_array(c) for c in model.graph.initializer}
    for op in program.ops:
        if isinstance(op, BinaryConv):
            weights = constants[f"{op.name}/weights"]
            assert weights.shape == (op.channels_out, op.channels_in, 3, 3)
            assert set(np.unique(weights)) == {-1.0, 1.0}
    assert not {"Gather", "Cast"} & {node.op_type for node in model.graph.node if "/w" in node.name}


def test_bytes_are_deterministic(program: Program) -> None:
    data = to_onnx.convert(program)
    assert data == to_onnx.convert(every_op())
    assert data != to_onnx.convert(every_op(seed=1))


def metadata(data: bytes) -> dict[str, str]:
    return {p.key: p.value for p in onnx.load_from_string(data).metadata_props}


def test_metadata_says_what_the_file_is(program: Program) -> None:
    assert metadata(to_onnx.convert(program)) == {
        "classes": "a\nb\nc\nd\ne",
        "dataset": "toy",
        "frostbit_form": "packed",
        "frostbit_format": "3",
        "frostbit_version": VERSION,
        "model_license": "",
        "program_sha256": program_hash(program),
    }
    chosen = metadata(to_onnx.convert(program, Options(licence="MIT", accuracy=0.5), packed=False))
    assert chosen["model_license"] == "MIT"
    assert chosen["accuracy"] == "0.500000"
    assert chosen["frostbit_form"] == "float"


def renamed(program: Program, names: dict[str, str]) -> Program:
    """``program`` with ops renamed."""
    ops = tuple(
        dataclasses.replace(
            op,
            name=names.get(op.name, op.name),
            inputs=tuple(names.get(source, source) for source in op.inputs),
        )
        for op in program.ops
    )
    return dataclasses.replace(program, ops=ops)


@pytest.mark.parametrize("form", FORMS)
def test_names_that_clash_with_ours_are_kept_apart(program: Program, form: str) -> None:
    names = {"stem": "images", "sign": "images_", "conv1": "conv0/acc", "total": "const/one"}
    clashing = renamed(program, names)
    report = compare(clashing, [OrtRuntime(clashing, form=form)], images(program, 3))
    assert report.passed
    assert report.comparisons[0].sign_bits_compared > 1000


def test_a_dilated_average_is_exact() -> None:
    b = Builder((9, 8, 3))
    x = b.conv("input", 5, Window((1, 1)))
    x = b.avg_pool(x, Window((2, 4), (1, 2), (1, 0, 0, 1), (2, 2)))
    b.sign(x)
    program = b.finish(x)
    report = compare(program, [OrtRuntime(program, level="disabled")], b.images(4))
    assert report.passed
    assert report.comparisons[0].sign_bits_compared > 100


def test_a_malformed_program_is_refused(program: Program) -> None:
    for form in FORMS:
        with pytest.raises(FormatError, match="last op"):
            convert(dataclasses.replace(program, ops=program.ops[:-2]), form)


def test_a_sum_too_long_for_float32_is_refused_by_name() -> None:
    taps = to_onnx.MAX_TAPS // 4096
    window = Window((64, 64), pads=(63, 63, 0, 0))
    words = np.zeros((1, 64, 64, taps // 64), np.uint64)
    long = BinaryConv("far", ("bits",), window, words, taps, 1, 0, Threshold(np.zeros(1, np.int32)))
    b = Builder((1, 1, 1))
    b.sign(b.conv("input", taps, Window((1, 1))))
    bits_name = b.ops[-1].name
    b.ops.append(dataclasses.replace(long, inputs=(bits_name,)))
    b.types["far"] = dataclasses.replace(b.types[bits_name], shape=(1, 1, 1))
    program = b.finish("far")
    for form in FORMS:
        with pytest.raises(ExportError, match="'far'"):
            convert(program, form)
