"""Pack: a finished run folder becomes ``model.bnn``, one bit per binary weight.

The trained network is rebuilt from the recipe, its settled form is traced, filled with the
settled weights and lowered to a Program. Nothing is computed again: thresholds, multipliers
and weights are copied. Then both run on the same images, and a difference is refused, as is a run
that is not exactly binary.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import fx, nn

from frostbit.kernels.ir.limits import check_names
from frostbit.kernels.ir.program import BinaryConv, Program
from frostbit.kernels.ir.verify import verify
from frostbit.pipeline.console import Bars, silent
from frostbit.pipeline.data.inputs import Place, inputs_for
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.agreement import COMPARED, require_equal
from frostbit.pipeline.lowering.fold_batchnorm import structure
from frostbit.pipeline.lowering.settle import state_hash
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.network import models
from frostbit.pipeline.network.binary import unfrozen_layers
from frostbit.pipeline.run import folder as run_folder
from frostbit.pipeline.run.folder import Run
from frostbit.pipeline.run.recipe import require_trust

Facts = dict[str, Any]


def network(run: Run) -> nn.Module:
    """The network of a run as it was trained: rebuilt, with its latent weights and masks."""
    require_trust(run.recipe, run.folder.recipe)
    model = models.build_from(run.recipe, run.facts["dataset"])
    _fill(model, run.folder.model)
    return model.eval()


def _fill(module: nn.Module, path: Path) -> None:
    """Load a state dict strictly; UserError naming the file if it does not fit or has NaN."""
    state = run_folder.read_tensors(path)
    bad = [name for name, value in state.items() if not torch.isfinite(value.double()).all()]
    if bad:
        raise UserError(f"'{path}' has NaN or infinity in '{bad[0]}'; train again, lower the rate")
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise UserError(f"'{path}' does not fit the recipe ({detail}); train again") from error


_TRAIN_ON = "train until every mask is all ones (--method float never freezes)"


def refuse_unfrozen(model: nn.Module, activations: bool, remedy: str = _TRAIN_ON) -> None:
    """UserError naming the layers, and how many entries, that are not binary yet."""
    left = unfrozen_layers(model, activations)
    if left:
        some = ", ".join(f"{name} ({count} entries)" for name, count in list(left.items())[:4])
        more = f" and {len(left) - 4} more layers" if len(left) > 4 else ""
        raise UserError(f"not fully frozen: {some}{more}; {remedy}")


def load_settled(folder: Path, expected_hash: str | None = None) -> fx.GraphModule:
    """The settled module of a run folder, checked against ``expected_hash`` if one is given.

    Raises:
        UserError: the run is damaged, not fully frozen, or not the one the model came from.
    """
    return _settled(run_folder.read_run(folder), expected_hash)


def _settled(run: Run, expected_hash: str | None = None) -> fx.GraphModule:
    model = network(run)
    refuse_unfrozen(model, activations=run.recipe.binarize == "both")
    height, width, channels = run.facts["dataset"]["image_shape"]
    module = structure(model, (channels, height, width))
    _fill(module, run.folder.settled)
    found = state_hash(module)
    if found != (expected_hash or run.facts["settled_hash"]):
        raise UserError(
            f"the settled weights in '{run.folder.path}' are not those the model was packed "
            "from; pack again or name its run folder with --run"
        )
    return module


def program_of(module: fx.GraphModule, dataset: Facts) -> Program:
    """The settled ``module`` lowered and verified.

    Args:
        module: from :func:`frostbit.pipeline.lowering.settle.settle`.
        dataset: as :func:`frostbit.pipeline.data.datasets.as_json` describes it.

    Raises:
        UserError: an op that cannot be packed, by name, or no binary weight at all.
        FormatError: the result would not verify.
    """
    height, width, channels = dataset["image_shape"]
    program = lower(
        module,
        (channels, height, width),
        dataset["name"],
        tuple(dataset["classes"]),
        state_hash(module),
    )
    verify(program)
    check_names(program)
    if not any(isinstance(op, BinaryConv) for op in program.ops):
        raise UserError(
            "nothing to binarize: the network has no binary weight, since its first and its last "
            "layer stay in full precision, and what keep names; use at least three layers"
        )
    return program


def packed(folder: Path) -> Program:
    """The Program of the run in ``folder``, compared with nothing yet; raises as :func:`pack`."""
    run = run_folder.read_run(folder)
    return program_of(_settled(run), run.facts["dataset"])


def pack(
    folder: Path,
    place: Place | None = None,
    bars: Bars = silent,
    say: Callable[[str], None] = lambda line: None,
) -> Program:
    """The Program of the run in ``folder``, equal to the trained network on every image compared.

    Args:
        folder: a finished run.
        place: where its data set is, for the images; random ones serve where it is not.
        bars: progress while pictures are read and compared.
        say: gets a line on what was compared.

    Raises:
        UserError: not fully frozen (naming the layers), an unknown module (by name), NaN, a
            damaged folder or one of another version; or the Program differs from the network.
        FormatError: if the result would not verify.
    """
    run = run_folder.read_run(folder)
    module = _settled(run)
    program = program_of(module, run.facts["dataset"])
    found = inputs_for(program, place or Place(run=folder), 0, COMPARED, bars, COMPARED)
    line = require_equal(program, module, found.images, bars("comparing"))
    of_what = f"of {found.dataset}" if found.dataset else f"drawn at random; {found.remedy}"
    say(f"{line}, {of_what}")
    return program
