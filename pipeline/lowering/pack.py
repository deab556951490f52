"""Pack: a finished run folder becomes ``model.bnn``, one bit per binary weight.

The trained network is rebuilt from the recipe, its settled form is traced, filled with the
settled weights and lowered to a Program. Nothing is computed again: thresholds, multipliers
and weights are copied. A run that is not exactly binary is refused.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import fx, nn

from frostbit.kernels.ir.limits import check_names
from frostbit.kernels.ir.program import Program
from frostbit.kernels.ir.verify import verify
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.lowering.fold_batchnorm import structure
from frostbit.pipeline.lowering.settle import state_hash
from frostbit.pipeline.lowering.to_program import lower
from frostbit.pipeline.network import models
from frostbit.pipeline.network.binary import unfrozen_layers
from frostbit.pipeline.run import folder as run_folder
from frostbit.pipeline.run.folder import Run
from frostbit.pipeline.run.recipe import require_trust


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


def _image_shape(run: Run) -> tuple[int, int, int]:
    height, width, channels = run.facts["dataset"]["image_shape"]
    return channels, height, width


def refuse_unfrozen(model: nn.Module, activations: bool = True) -> None:
    """UserError naming the layers, and how many entries, that are not binary yet."""
    left = unfrozen_layers(model, activations)
    if left:
        some = ", ".join(f"{name} ({count} entries)" for name, count in list(left.items())[:4])
        more = f" and {len(left) - 4} more layers" if len(left) > 4 else ""
        raise UserError(
            f"not fully frozen: {some}{more}; train until every mask is all ones "
            "(--method float never freezes)"
        )


def load_settled(folder: Path, expected_hash: str | None = None) -> fx.GraphModule:
    """The settled module of a run folder, checked against ``expected_hash`` if one is given.

    Raises:
        UserError: the run is damaged, not fully frozen, or not the one the model came from.
    """
    return _settled(run_folder.read_run(folder), expected_hash)


def _settled(run: Run, expected_hash: str | None = None) -> fx.GraphModule:
    model = network(run)
    refuse_unfrozen(model, activations=run.recipe.binarize == "both")
    module = structure(model, _image_shape(run))
    _fill(module, run.folder.settled)
    found = state_hash(module)
    if found != (expected_hash or run.facts["settled_hash"]):
        raise UserError(
            f"the settled weights in '{run.folder.path}' are not those the model was packed "
            "from; pack again or name its run folder with --run"
        )
    return module


def pack(folder: Path) -> Program:
    """The Program of the run in ``folder``; see the module's text for the steps.

    Raises:
        UserError: not fully frozen (naming the layers), an unknown module (by name), NaN, a
            damaged folder or one of another version.
        FormatError: if the result would not verify.
    """
    run = run_folder.read_run(folder)
    module = _settled(run)
    data = run.facts["dataset"]
    program = lower(
        module, _image_shape(run), data["name"], tuple(data["classes"]), state_hash(module)
    )
    verify(program)
    check_names(program)
    return program
