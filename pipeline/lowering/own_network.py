"""``pack`` for a network trained in a loop of one's own."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from frostbit.export.runtimes import Images
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.console import Progress
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.agreement import COMPARED, require_equal
from frostbit.pipeline.lowering.pack import program_of, refuse_unfrozen
from frostbit.pipeline.lowering.settle import SETTLE_IMAGES, settle
from frostbit.pipeline.lowering.settled_runtime import planar
from frostbit.pipeline.network.binary import BinaryActivation, maskable

Batches = Iterable[object] | Tensor | NDArray[np.uint8]


def pack(
    net: nn.Module,
    calibration: Batches,
    classes: Sequence[str] | None = None,
    *,
    dataset: str = "",
    activations: bool = True,
    freeze: bool = False,
    full_precision_bits: int = 8,
    progress: Progress = iter,
) -> Program:
    """The Program of a trained network, equal to it bit for bit on every image compared.

    A copy of ``net`` is settled: BatchNorm's statistics are estimated again on ``calibration``,
    BatchNorm becomes integer thresholds, or multipliers on a grid where float32 never rounds. It is
    lowered, and both run on the first 64 calibration images.

    Args:
        net: from :func:`frostbit.binarize`, trained; it is left as it is.
        calibration: training images without augmentation: batches as of a ``DataLoader``, images
            alone or ``(images, labels)``, or one batch. Tensors are ``[N, C, H, W]``, float or
            uint8; NumPy arrays are uint8 ``[N, H, W, C]``; pixels 0..255. The first 5,000 count.
        classes: one name per logit; None numbers them.
        dataset: name of the data set on which ``pipeline verify`` and ``bench`` will compare.
        activations: False for a network whose weights alone were frozen.
        freeze: freeze what is left. Without it a network that is not exactly binary is refused.
        full_precision_bits: of the weights of full-precision layers: 8, 16 or 32. Images alone say
            nothing of accuracy: measure it, and take 16 if 8 cost too much.
        progress: wraps the iterable of compared batches, e.g. a progress bar.

    Returns:
        The Program: uint8 ``[N, H, W, C]`` -> float32 ``[N, classes]``.

    Raises:
        UserError: not fully frozen (naming layers and entries), NaN, a module that cannot be packed
            (by name), calibration images of another kind, or a Program that differs.
        FormatError: names that a file cannot hold, or not one per logit.

    Source: settling and its proof of exactness, :mod:`frostbit.pipeline.lowering.settle` and
    :mod:`frostbit.kernels.ir.exact`.
    """
    names = _names(classes)
    _refuse_unready(net)
    if full_precision_bits not in (8, 16, 32):
        raise UserError(f"full_precision_bits is 8, 16 or 32, not {full_precision_bits!a}")
    net = copy.deepcopy(net).cpu().to(memory_format=torch.contiguous_format)
    if freeze:
        _freeze(net, activations)
    refuse_unfrozen(net, activations, "advance StoMPP to its last step, or pass freeze=True")
    _refuse_half_frozen(net)
    pixels = _pixels(calibration)
    settled = settle(net, pixels, str(full_precision_bits))
    _, channels, height, width = pixels.shape
    if names is None:
        names = tuple(map(str, range(_logits(settled.module, pixels))))
    facts = {"name": dataset, "image_shape": (height, width, channels), "classes": names}
    program = program_of(settled.module, facts)
    require_equal(program, settled.module, _images(pixels), progress)
    return program


def _names(classes: Sequence[str] | None) -> tuple[str, ...] | None:
    if isinstance(classes, str):
        raise UserError("classes is one text; give a list of names, one per logit")
    return None if classes is None else tuple(classes)


def _refuse_unready(net: nn.Module) -> None:
    """UserError for a network that was not binarized, or has numbers that are none."""
    if not any(maskable(net)):
        raise UserError("the network has no binary layers; binarize it and train that")
    for name, value in net.state_dict().items():
        if not torch.isfinite(value.double()).all():
            raise UserError(f"'{name}' has NaN or infinity; train again, with a lower rate")


def _freeze(net: nn.Module, activations: bool) -> None:
    for _, module in maskable(net):
        if activations or not isinstance(module, BinaryActivation):
            module.freeze(1.0)


def _refuse_half_frozen(net: nn.Module) -> None:
    """UserError naming an activation that is neither a clip nor a sign."""
    for name, module in maskable(net):
        if 0 < module.share < 1:
            raise UserError(
                f"'{name}' is partly frozen; with activations=False it must not be frozen at all"
            )


def _pixels(calibration: Batches) -> Tensor:
    """The first images, ``[N, C, H, W]`` on the CPU; UserError unless they hold pixels 0..255."""
    whole = isinstance(calibration, (Tensor, np.ndarray))
    parts: list[Tensor] = []
    for batch in [calibration] if whole else calibration:
        images = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        parts.append(_planar(images))
        if parts[-1].shape[1:] != parts[0].shape[1:]:
            raise UserError("calibration images differ in size; a network has one size")
        if sum(map(len, parts)) >= SETTLE_IMAGES:
            break
    pixels = planar(torch.cat(parts)[:SETTLE_IMAGES]) if parts else torch.empty(0)
    if len(pixels) < 2:
        raise UserError("pack needs at least two calibration images; give some training images")
    _refuse_other_range(pixels)
    return pixels


def _planar(images: object) -> Tensor:
    """One batch as ``[N, C, H, W]``: torch's layout is that already, NumPy's is not."""
    if isinstance(images, np.ndarray) and images.dtype == np.uint8 and images.ndim == 4:
        return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    pixels = images if isinstance(images, Tensor) else torch.empty(0)
    if pixels.dim() == 4 and (pixels.dtype == torch.uint8 or pixels.is_floating_point()):
        return pixels.detach().cpu()
    kind = getattr(images, "dtype", type(images).__name__)
    seen = f"{kind} {list(getattr(images, 'shape', []))}"
    raise UserError(
        f"a calibration batch is {seen}; give tensors [N, C, H, W] of floats or uint8, or uint8 "
        "arrays [N, H, W, C], alone or first in a tuple"
    )


def _refuse_other_range(pixels: Tensor) -> None:
    lowest, highest = float(pixels.min()), float(pixels.max())
    if not 0 <= lowest <= highest <= 255:
        raise UserError(
            f"calibration pixels lie in {lowest:.4g}..{highest:.4g}; they must be 0..255, not "
            "normalised: the network does that"
        )
    if pixels.is_floating_point() and highest <= 1:
        raise UserError("calibration pixels lie in 0..1; they must be 0..255: multiply by 255")


@torch.no_grad()
def _logits(module: nn.Module, pixels: Tensor) -> int:
    """How many there are."""
    return int(module(pixels[:1].float()).shape[1])


def _images(pixels: Tensor) -> Images:
    """The first of ``pixels`` as a device gets them: uint8 ``[N, H, W, C]``."""
    some = pixels[:COMPARED].round().to(torch.uint8)
    return np.ascontiguousarray(some.permute(0, 2, 3, 1).numpy())
