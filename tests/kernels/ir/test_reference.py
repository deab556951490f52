"""The definition of correct, against PyTorch's own convolution and pooling."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.program import (
    Affine,
    AvgPool,
    BinaryConv,
    Clip,
    Conv,
    MaxPool,
    Sign,
    Threshold,
    Window,
)

WINDOWS = [
    Window((3, 3), (1, 1), (1, 1, 1, 1)),
    Window((3, 2), (2, 1), (1, 0, 2, 1)),
    Window((1, 1), (2, 3)),
    Window((2, 3), (1, 1), (0, 1, 1, 2), (2, 1)),
]


def torch_pad(x: torch.Tensor, window: Window, value: float) -> torch.Tensor:
    top, left, bottom, right = window.pads
    return F.pad(x, (left, right, top, bottom), value=value)


def nchw(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2))).double()


def nhwc(x: torch.Tensor) -> np.ndarray:
    return x.permute(0, 2, 3, 1).numpy()


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("pad_value", [0, 1])
@pytest.mark.parametrize("groups", [1, 3])
def test_accumulators_match_torch(window: Window, pad_value: int, groups: int) -> None:
    rng = np.random.default_rng(0)
    channels, out = 5, 6
    x = rng.choice([-1, 1], (2, 7, 6, channels * groups)).astype(np.int8)
    w = rng.choice([-1, 1], (out, *window.kernel, channels)).astype(np.int8)
    epilogue = Threshold(np.zeros(out, np.int32))
    op = BinaryConv("b", ("x",), window, bits.pack(w), channels, groups, pad_value, epilogue)
    expected = F.conv2d(
        torch_pad(nchw(x), window, pad_value), nchw(w), None, window.stride, 0,
        window.dilation, groups,
    )  # fmt: skip
    acc = reference.accumulate(op, x)
    assert np.array_equal(acc, nhwc(expected))
    assert np.array_equal(reference.binary_conv(op, x), np.where(acc >= 0, 1, -1))


@pytest.mark.parametrize("window", WINDOWS)
def test_pixel_convolution_pads_with_its_zero_point(window: Window) -> None:
    rng = np.random.default_rng(1)
    x = rng.integers(0, 256, (2, 6, 7, 3), dtype=np.uint8)
    w = rng.integers(-64, 65, (4, *window.kernel, 3)).astype(np.float32) / 64
    point = np.array([10, 0, 255], np.uint8)
    op = Conv("c", ("input",), window, w, np.arange(4, dtype=np.float32), point)
    shifted = nchw(x.astype(np.int64) - point.astype(np.int64))
    padded = torch_pad(shifted, window, 0.0) + torch.from_numpy(point).view(1, 3, 1, 1)
    expected = F.conv2d(padded, nchw(w), torch.arange(4.0).double(), window.stride, 0,
                        window.dilation)  # fmt: skip
    assert np.array_equal(reference.conv(op, x), nhwc(expected).astype(np.float32))


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_grouped_convolution_matches_torch(groups: int) -> None:
    rng = np.random.default_rng(2)
    x = rng.integers(-8, 9, (2, 6, 7, 6)).astype(np.float32)
    w = rng.integers(-64, 65, (12, 3, 2, 6 // groups)).astype(np.float32) / 64
    op = Conv("c", ("x",), WINDOWS[1], w, np.zeros(12, np.float32), np.zeros(6, np.uint8), groups)
    padded = torch_pad(nchw(x), WINDOWS[1], 0.0)
    expected = F.conv2d(padded, nchw(w), None, WINDOWS[1].stride, groups=groups)
    assert np.array_equal(reference.conv(op, x), nhwc(expected).astype(np.float32))


@pytest.mark.parametrize("pad_value", [0, 1])
def test_binary_weights_of_real_values_match_torch(pad_value: int) -> None:
    rng = np.random.default_rng(3)
    x = (rng.integers(-64, 65, (2, 6, 7, 5)) / 64).astype(np.float32)
    w = rng.choice([-1, 1], (4, 3, 2, 5)).astype(np.int8)
    mul, add = np.array([0.5, -2, 0, 1], np.float32), np.arange(4, dtype=np.float32)
    op = BinaryConv("b", ("x",), WINDOWS[1], bits.pack(w), 5, 1, pad_value, Affine(mul, add))
    acc = nhwc(F.conv2d(torch_pad(nchw(x), WINDOWS[1], pad_value), nchw(w), None, (2, 1)))
    assert np.array_equal(reference.binary_conv(op, x), acc * mul + add)


def test_clip() -> None:
    x = np.array([-3, -1, -0.5, 0, 0.25, 1, 7], np.float32)
    assert reference.clip(Clip("c", ("x",)), x).tolist() == [-1, -1, -0.5, 0, 0.25, 1, 1]


def test_affine_epilogue_rounds_once() -> None:
    op = BinaryConv(
        "b", ("x",), Window((1, 1)), bits.pack(np.ones((1, 1, 1, 3))), 3, 1, 0,
        Affine(np.array([0.1], np.float32), np.array([0.2], np.float32)),
    )  # fmt: skip
    x = np.ones((1, 1, 1, 3), np.int8)
    expected = np.float32(3 * np.float64(np.float32(0.1)) + np.float64(np.float32(0.2)))
    assert reference.binary_conv(op, x).item() == expected


def test_pools_match_torch() -> None:
    x = np.random.default_rng(2).standard_normal((2, 7, 7, 3)).astype(np.float32)
    window = Window((3, 3), (2, 2), (1, 1, 1, 1))
    largest = reference.max_pool(MaxPool("m", ("x",), window), x)
    assert np.array_equal(largest, nhwc(F.max_pool2d(nchw(x), 3, 2, 1)).astype(np.float32))
    mean = reference.avg_pool(AvgPool("a", ("x",), window), x)
    assert np.allclose(mean, nhwc(F.avg_pool2d(nchw(x), 3, 2, 1)), atol=1e-6)


def test_max_pool_of_bits_never_picks_the_padding() -> None:
    x = -np.ones((1, 2, 2, 1), np.int8)
    out = reference.max_pool(MaxPool("m", ("x",), Window((3, 3), (1, 1), (1, 1, 1, 1))), x)
    assert (out == -1).all()


def test_sign_refuses_nan() -> None:
    with pytest.raises(ValueError, match="'s'"):
        reference.sign(Sign("s", ("x",)), np.array([np.nan], np.float32))
