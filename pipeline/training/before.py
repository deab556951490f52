"""Before step 0: what would stop a network at the end of training stops it now.

A second, untrained network goes the whole way on a few training images: frozen, settled, lowered,
verified, proved exact, compared with its Program, written in the default export formats and run
there. The functions are those of the end; it takes seconds.

Parameters that start with one value everywhere (shifts of 0, scales of 1, a head of zeros) are
moved off it first, since a parameter that was lost on the way would not be seen otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from frostbit.export.errors import ExportError, LceError, ParityError, RuntimeMissing
from frostbit.kernels.ir.program import FormatError, Program
from frostbit.pipeline.data import datasets
from frostbit.pipeline.data.splits import Dataset, Images
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.agreement import require_equal
from frostbit.pipeline.lowering.pack import program_of
from frostbit.pipeline.lowering.settle import settle
from frostbit.pipeline.method.stompp import METHODS
from frostbit.pipeline.network.binary import BinaryActivation, maskable
from frostbit.pipeline.network.models import build_from
from frostbit.pipeline.parity.export import DEFAULT, FORMATS, Choices, run_in_runtime
from frostbit.pipeline.run.folder import to_bytes
from frostbit.pipeline.run.recipe import Recipe
from frostbit.pipeline.training.loop import as_pixels
from frostbit.pipeline.training.reproducibility import reproducible

MOST_IMAGES, FEWEST_IMAGES = 64, 4
PIXELS = MOST_IMAGES * 64 * 64
"""Pixels looked at in all: 64 images of up to 64x64, 5 of 224x224, where one costs a second."""
MOST_RUN, FEWEST_RUN = 16, 2
"""Images run in the formats' own runtimes, which give their bits slowly: every fourth."""


def require_packable(recipe: Recipe, dataset: Dataset, processes: int = 1) -> tuple[str, ...]:
    """Go the way of ``recipe``'s network to the end, untrained.

    Args:
        recipe: what is to be trained.
        dataset: its data; a few training images are used.
        processes: how many share a batch.

    Returns:
        Lines on what could not be checked here, and why.

    Raises:
        UserError: beginning with ``refused before training``; what is wrong, and the remedy.
    """
    facts = datasets.as_json(dataset)
    height, width, _ = dataset.image_shape
    count = min(MOST_IMAGES, max(FEWEST_IMAGES, PIXELS // (height * width)), len(dataset.train))
    images = dataset.train.take(range(count))
    pixels = as_pixels(images, torch.device("cpu"))
    with reproducible(recipe.seed), _refused("building it"):
        model = build_from(recipe, facts)
    with _refused("a step of training"):
        share = min(recipe.batch, recipe.train_images or len(dataset.train)) // processes
        smallest = torch.arange(max(share, 1)).chunk(recipe.accumulate)[-1]
        _one_step(model, pixels[: min(len(smallest), 2)], len(dataset.classes))
    with _refused("saving its weights"):
        to_bytes(model.state_dict())
    if METHODS[recipe.method].order == "never":
        return ()
    with _refused("packing it"):
        _freeze(model, activations=recipe.binarize == "both")
        settled = settle(model, pixels, recipe.full_precision_bits)
        program = program_of(settled.module, facts)
        require_equal(program, settled.module, images)
        return _exported(program, images[: max(FEWEST_RUN, MOST_RUN * count // MOST_IMAGES)])


@contextmanager
def _refused(doing: str) -> Iterator[None]:
    """What goes wrong inside refuses the training, in one line."""
    try:
        yield
    except (UserError, FormatError, ExportError, LceError, ParityError) as error:
        raise UserError(f"refused before training: {error}") from error
    except Exception as error:  # a person's own network raises whatever it likes
        raise UserError(
            f"refused before training: {doing} raises {_in_words(error)}; correct the network"
        ) from error


def _in_words(error: Exception) -> str:
    """Type and first line of an exception that is not ours."""
    text = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def _one_step(model: nn.Module, pixels: Tensor, classes: int) -> None:
    """Forward and backward as in training; UserError unless one tensor of logits comes out."""
    model.train()
    try:
        logits = model(pixels)
    except ValueError as error:
        if len(pixels) > 1 or "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            "BatchNorm needs at least two images at a time, and this batch has parts of one; "
            "set batch to at least 2 (for each process and each part of accumulate)"
        ) from error
    if not isinstance(logits, Tensor):
        raise UserError(
            f"the network must return one tensor [N, classes], not a {type(logits).__name__}; "
            "return the logits alone"
        )
    if logits.shape != (len(pixels), classes):
        raise UserError(
            f"the network gives a tensor {list(logits.shape)} for {len(pixels)} images of "
            f"{classes} classes, and must give {[len(pixels), classes]}; make its last layer as "
            "wide as num_classes"
        )
    torch.autograd.backward(logits.float().sum())


@torch.no_grad()
def _freeze(model: nn.Module, activations: bool) -> None:
    """Freeze as at the end of training, and move what starts with one value off it."""
    for _, module in maskable(model):
        if activations or not isinstance(module, BinaryActivation):
            module.freeze(1.0)
    drawn = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if bool((parameter == parameter.flatten()[:1]).all()):
            size = 0.05 + 0.05 * torch.rand(parameter.shape, generator=drawn)
            side = torch.randint(0, 2, parameter.shape, generator=drawn) * 2 - 1
            parameter.add_(size * side)


def _exported(program: Program, images: Images) -> tuple[str, ...]:
    """Write the default formats and run them; returns what could not be done here."""
    notes = []
    for name in DEFAULT:
        form = FORMATS[name]
        try:
            data = form.convert(program, Choices())
            run_in_runtime(form, program, data, images, must_vary=False)
        except ImportError as error:
            notes.append(f"export to {name} was not checked: {error.name} is not installed")
        except RuntimeMissing as error:
            notes.append(f"export to {name} was written but not run: {error}")
    return tuple(notes)
