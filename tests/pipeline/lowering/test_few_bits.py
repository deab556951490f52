"""Full-precision weights of 8 and 16 bits: on the grid, near what they were, chosen by accuracy."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import loads, save_program
from frostbit.kernels.ir.integer_weights import as_int8
from frostbit.kernels.ir.program import Conv, Dense, Program
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.few_bits import rounded
from frostbit.pipeline.lowering.settle import MOST_LOST, bits_line, head_of, settle
from frostbit.pipeline.lowering.to_program import lower
from tests.pipeline.lowering.test_grid_search import SHAPE, images, network

SEEDS = st.integers(0, 2**32 - 1)


def loss(weights: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """Squared error of each row."""
    return ((weights - rounded.double()) ** 2).sum(dim=1)


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, taps=st.integers(1, 30), exponent=st.integers(4, 20), size=st.integers(-4, 3))
def test_weights_of_8_bits_lie_on_the_grid_and_lose_little(
    seed: int, taps: int, exponent: int, size: int
) -> None:
    """The finest scale that clips nothing is not nearer."""
    raw = torch.randn(5, taps, generator=torch.Generator().manual_seed(seed)).double() * 2.0**size
    found = rounded(raw, 8, exponent)
    steps = found.numpy().astype(np.float64) * 2.0**exponent
    assert (steps == np.rint(steps)).all()
    assert as_int8(found.numpy()) is not None
    least = torch.ceil(raw.abs().amax(dim=1) / 127 * 2.0**exponent).clamp(min=1)
    scale = (least * 2.0**-exponent)[:, None]
    assert (loss(raw, found) <= loss(raw, torch.round(raw / scale) * scale) + 1e-12).all()


@settings(deadline=None, max_examples=40)
@given(seed=SEEDS, bits=st.sampled_from([8, 16]), size=st.integers(-60, 60))
def test_off_the_grid_no_product_rounds(seed: int, bits: int, size: int) -> None:
    raw = torch.randn(4, 20, generator=torch.Generator().manual_seed(seed)).double() * 2.0**size
    found = rounded(raw, bits, None)
    error = (raw - found.double()).abs().amax(dim=1)
    assert (error <= raw.abs().amax(dim=1) * (1.2 if bits == 8 else 1.0) / 2 ** (bits - 2)).all()
    if bits == 8:
        assert as_int8(found.numpy()) is not None


def program(module: torch.fx.GraphModule) -> Program:
    return lower(module, SHAPE)


def full(found: Program) -> list[np.ndarray]:
    return [op.weights for op in found.ops if isinstance(op, (Conv, Dense))]


@pytest.mark.parametrize("kind", ["bireal-2", "plain-2"])
def test_a_settled_network_has_the_bits_that_are_asked_for(kind: str, tmp_path: object) -> None:
    model = network(kind)
    sizes = {}
    for bits in ("8", "16", "32"):
        settled = settle(model, images(), bits)
        found = program(settled.module)
        assert settled.report["full_precision_bits"] == int(bits)
        assert analyse(found).body_exact
        assert all((as_int8(weights) is not None) == (bits == "8") for weights in full(found))
        sizes[bits] = len(save_program(found, f"{tmp_path}/{bits}.bnn"))
    assert sizes["8"] < sizes["16"] == sizes["32"]


def test_a_head_off_the_grid_has_8_bits_too() -> None:
    settled = settle(network("bireal-2", head=2.0**17), images(), "8")
    assert settled.report["head_exponent"] is None
    head = head_of(settled.module)
    assert head is not None
    assert as_int8(head.weight.numpy()) is not None


def test_pixels_around_their_zero_point_are_not_shifted() -> None:
    """What rounding does to the stem's weights cancels there."""
    model = network("plain-2")
    outputs = {}
    for bits in ("8", "32"):
        stem = settle(model, images(), bits).module.get_submodule("stem")
        point = stem.zero_point.view(1, -1, 1, 1).expand(1, *SHAPE).float()
        outputs[bits] = stem(point)
    exponent = settle(model, images(), "8").report["grid_exponent"]
    assert (outputs["8"] - outputs["32"]).abs().max() <= 9 * 255 * 2.0**-exponent


@pytest.mark.parametrize(("lost", "chosen"), [(-1.0, 8), (MOST_LOST - 1e-6, 8), (0.2, 16)])
def test_8_bits_where_they_cost_little(lost: float, chosen: int) -> None:
    def score(module: nn.Module) -> float:
        has_8 = all(as_int8(weights) is not None for weights in full(program(module)))
        return 90.0 - lost if has_8 else 90.0

    report = settle(network("bireal-2"), images(), "auto", score).report
    assert report["full_precision_bits"] == chosen
    assert report["accuracy_by_bits"] == {"8": round(90.0 - lost, 4), "16": 90.0}
    assert bits_line(report).startswith(f"full-precision weights: {chosen} bits; with 8 bits")


def test_other_numbers_of_bits_are_refused() -> None:
    with pytest.raises(UserError, match="have auto, 8, 16, 32 bits, not '4'"):
        settle(network("bireal-2"), images(), "4")


def test_nothing_is_chosen_where_the_bits_are_given() -> None:
    report = settle(network("bireal-2"), images(), "8").report
    assert "accuracy_by_bits" not in report
    assert bits_line(report) == ""
    assert loads(save_program(program(settle(network("bireal-2"), images()).module), "/dev/null"))
