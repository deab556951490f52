"""Ops that only networks read from other people's files have: reference, types, grids, file."""

import dataclasses

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings

from frostbit.kernels.ir import exact, reference
from frostbit.kernels.ir.file import dumps, format_version, loads
from frostbit.kernels.ir.program import (
    INPUT,
    NO_BOUND,
    FormatError,
    Preprocessing,
    Program,
    Window,
)
from frostbit.kernels.ir.verify import infer_types, verify
from tests.kernels.programs import Builder, programs, random_images


@settings(max_examples=60, deadline=None)
@given(program=programs(foreign=True))
def test_values_have_their_types_and_obey_their_grid(program: Program) -> None:
    types, found = infer_types(program), exact.grids(program)
    for name, value in reference.trace(program, random_images(program, 3)).items():
        assert value.shape[1:] == types[name].shape, name
        assert (np.abs(value).max(axis=(0, 1, 2)) <= found[name].bound * (1 + 1e-6)).all(), name
        if found[name].exact:
            scaled = value.astype(np.float64) * 2.0 ** found[name].exponent
            assert np.array_equal(scaled, np.round(scaled)), name


@settings(max_examples=60, deadline=None)
@given(program=programs(foreign=True))
def test_file_gives_back_the_same_program(program: Program) -> None:
    data = dumps(program)
    again = loads(data)
    assert dumps(again) == data
    assert again.input_kind == program.input_kind
    assert again.preprocessing == program.preprocessing
    images = random_images(program, 2)
    assert np.array_equal(reference.run(again, images), reference.run(program, images))


def test_version_rises_only_where_an_older_reader_would_be_misled() -> None:
    def version(kind: str, low: float, bits: int = 12) -> int:
        b = Builder((4, 4, 2), kind="f32" if kind == "f32" else "u8")
        x = b.clip(b.conv(INPUT, 3, Window((1, 1)), bits=12), low, 1.0)
        return format_version(b.finish(b.prelu(x), bits=bits))

    assert [version("u8", -1.0), version("u8", 0.0), version("f32", -1.0)] == [1, 2, 2]
    assert [version("u8", -1.0, 8), version("f32", 0.0, 8)] == [3, 3]


def test_version_that_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    b = Builder((4, 4, 2))
    program = b.finish(b.clip(b.conv(INPUT, 3, Window((1, 1)), bits=12), 0.0, 1.0), bits=12)
    monkeypatch.setattr("frostbit.kernels.ir.file.format_version", lambda program: 1)
    data = dumps(program)
    monkeypatch.undo()
    with pytest.raises(FormatError, match="format version 1 does not fit"):
        loads(data)


def test_ops_match_torch() -> None:
    b = Builder((5, 4, 3))
    x = b.conv(INPUT, 6, Window((2, 2)))
    names = [
        b.clip(x, 0.0, NO_BOUND), b.clip(x, 0.0, 6.0), b.scale(x), b.prelu(x), b.sigmoid(x),
        b.quantize(x, 0.3, -4.0, 3.0), b.slice(x, 1, 4), b.pad(x, (1, 0, 2, 1), (2, 1)),
        b.flatten(x),
    ]  # fmt: skip
    vector = b.sigmoid(b.global_sum(x))
    names.append(b.mul(x, vector))
    names.append(b.softmax(b.finish(x).ops[-1].name))
    program = b.program()
    values = reference.trace(program, b.images(4))
    y = torch.from_numpy(values[x]).permute(0, 3, 1, 2)
    ops = {op.name: op for op in program.ops}
    scale, prelu = ops[names[2]], ops[names[3]]
    expected = [
        F.relu(y), F.relu6(y),
        y * torch.from_numpy(scale.mul).view(-1, 1, 1) + torch.from_numpy(scale.add).view(-1, 1, 1),
        F.prelu(y, torch.from_numpy(prelu.slope)), torch.sigmoid(y),
        torch.fake_quantize_per_tensor_affine(y, 0.3, 0, -4, 3), y[:, 1:4],
        F.pad(y, (0, 1, 1, 2, 2, 1)), torch.flatten(y.permute(0, 2, 3, 1), 1)[:, :, None, None],
        y * torch.from_numpy(values[vector]).permute(0, 3, 1, 2),
        torch.from_numpy(values[ops[names[10]].inputs[0]]).permute(0, 3, 1, 2).softmax(1),
    ]  # fmt: skip
    for name, wanted in zip(names, expected, strict=True):
        found = values[name]
        assert found.dtype == np.float32
        assert found.std() > 0
        np.testing.assert_allclose(
            found, wanted.permute(0, 2, 3, 1).numpy(), rtol=1e-6, atol=1e-6, err_msg=name
        )


def test_accumulators_are_clipped_before_a_negative_factor() -> None:
    b = Builder((4, 4, 2))
    signs = b.sign(b.conv(INPUT, 9, Window((1, 1))))
    name = b.binary_conv(signs, 20, Window((3, 3)), limits=(0, 6))
    program = b.finish(name)
    op = next(op for op in program.ops if op.name == name)
    values = reference.trace(program, b.images(8))
    acc = reference.accumulate(op, values[signs])
    assert (op.epilogue.mul < 0).any()
    assert (acc < 0).any()
    assert (acc > 6).any()
    expected = np.clip(acc, 0, 6) * op.epilogue.mul + op.epilogue.add
    assert np.array_equal(values[name], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_kind": "f16"}, "not u8 or f32"),
        ({"preprocessing": Preprocessing((1.0,) * 2, (0.0,) * 2)}, "float input only"),
        (
            {"input_kind": "f32", "preprocessing": Preprocessing((1.0,), (0.0,))},
            "per input channel",
        ),
        (
            {"input_kind": "f32", "preprocessing": Preprocessing((np.nan, 1.0), (0.0, 0.0))},
            "beyond",
        ),
    ],
)
def test_bad_inputs_are_refused(change: dict, message: str) -> None:
    b = Builder((4, 4, 2))
    program = b.finish(b.prelu(b.conv(INPUT, 3, Window((1, 1)))))
    if change.get("input_kind") == "f32":
        zero = np.zeros(2, np.uint8)
        first = dataclasses.replace(program.ops[0], pad_value=zero)
        change = {**change, "ops": (first, *program.ops[1:])}
    with pytest.raises(FormatError, match=message):
        verify(dataclasses.replace(program, **change))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e9])
def test_floats_that_no_model_was_checked_for_are_refused(value: float) -> None:
    b = Builder((4, 4, 2), kind="f32")
    program = b.finish(b.conv(INPUT, 3, Window((1, 1))))
    images = b.images(2)
    images[1, 2, 3, 0] = value
    with pytest.raises(ValueError, match="NaN, infinity or values beyond"):
        reference.run(program, images)
    with pytest.raises(ValueError, match="float32"):
        reference.run(program, images.astype(np.float64))


def refused(method: str, arguments: tuple, message: str) -> None:
    b = Builder((4, 4, 2))
    x = b.conv(INPUT, 6, Window((2, 2)))
    getattr(b, method)(x, *arguments)
    with pytest.raises(FormatError, match=message):
        infer_types(b.program())


def test_impossible_ops_are_refused() -> None:
    refused("clip", (1.0, 0.0), "clips to")
    refused("clip", (0.0, np.inf), "clips to")
    refused("slice", (2, 9), "channels 2 to 9 of 6")
    refused("slice", (2, 2), "channels 2 to 2 of 6")
    refused("pad", ((0, 0, 0, -1),), "impossible pads")
    refused("quantize", (0.0, 0.0, 1.0), "impossible steps")
    refused("quantize", (1.0, 0.5, 1.0), "impossible steps")
    refused("softmax", (), r"\[1, 1, C\]")
    refused("mul", (INPUT,), "is u8")
