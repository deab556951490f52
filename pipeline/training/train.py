"""Training: recipe and data in, run folder out.

:mod:`frostbit.pipeline.training.loop` holds the loop; around it here: the folder, checkpoints, an
orderly end on a signal, and what follows the last step: settling
(:mod:`frostbit.pipeline.lowering.settle`), one look at the test split, files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn

from frostbit.pipeline.data import contents, datasets
from frostbit.pipeline.data.datasets import AnySplit, Dataset, Photographs
from frostbit.pipeline.data.folders import USUAL_SIZE
from frostbit.pipeline.errors import Diverged, UserError
from frostbit.pipeline.lowering.agreement import COMPARED, require_equal
from frostbit.pipeline.lowering.pack import network, program_of
from frostbit.pipeline.lowering.settle import SETTLE_IMAGES, bits_line, settle
from frostbit.pipeline.network.binary import unfrozen_layers
from frostbit.pipeline.run import checkpoint
from frostbit.pipeline.run import folder as run_folder
from frostbit.pipeline.run.folder import RunFolder
from frostbit.pipeline.run.metrics import to_lines
from frostbit.pipeline.run.recipe import Recipe, to_toml
from frostbit.pipeline.training import freeze_plot
from frostbit.pipeline.training.before import require_packable
from frostbit.pipeline.training.divergence import watched
from frostbit.pipeline.training.folder_lock import locked
from frostbit.pipeline.training.loop import Setting, Trainer, as_pixels
from frostbit.pipeline.training.loss import Teacher
from frostbit.pipeline.training.parallel import joined, local_device, part
from frostbit.pipeline.training.progress import Progress
from frostbit.pipeline.training.reproducibility import (
    choose_device,
    conditions,
    reproducible,
    require_compiler,
)
from frostbit.pipeline.training.resume import Keeper, stopping

Bar = Callable[[Iterable[int]], Iterable[int]]
"""Wraps the numbers of a loop, to show how far it is."""


@dataclass(frozen=True)
class Options:
    """How a run is carried out; nothing here belongs to the recipe.

    Attributes:
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        force: overwrite a folder that is not empty.
        resume: go on from the folder's newest checkpoint; without one start at step 0.
        data_dir: folder of the data set's files.
        teacher: run folder of a network to distil from.
        compile_backend: of torch.compile; None runs as written.
        checkpoint_every, checkpoint_minutes: steps and minutes between checkpoints; 0 for both:
            20 in a run, and every ten minutes.
        workers: processes that decode images.
        skip_corrupt, cache: see :class:`frostbit.pipeline.data.datasets.Photographs`.
        detect_anomaly: see :mod:`frostbit.pipeline.training.divergence`.
    """

    device: str = "auto"
    force: bool = False
    resume: bool = False
    data_dir: Path | None = None
    teacher: Path | None = None
    compile_backend: str | None = None
    checkpoint_every: int = 0
    checkpoint_minutes: float = 0.0
    workers: int = 0
    skip_corrupt: bool = False
    cache: bool = False
    detect_anomaly: bool = False


@dataclass(frozen=True)
class RunResult:
    """What :func:`train` did.

    Attributes:
        folder: the run folder.
        unfrozen: entries not frozen by module; empty when the network is exactly binary.
        validation_accuracy: percent, of the settled network (else of the network as it is).
        test_before: percent, BatchNorm re-estimated, before folding and rounding.
        test_after: percent, of the settled network; None if it is not binary.
        seconds: of the training loop, all its sittings together.
    """

    folder: RunFolder
    unfrozen: dict[str, int]
    validation_accuracy: float
    test_before: float
    test_after: float | None
    seconds: float


def settling_pixels(dataset: Dataset) -> Tensor:
    """Training pixels ``[N, C, H, W]`` on the CPU from which BatchNorm is estimated again."""
    count = range(min(SETTLE_IMAGES, len(dataset.train)))
    return as_pixels(dataset.train.take(count), torch.device("cpu")).contiguous()


def _bars(console: Console | None) -> Callable[[str], Bar]:
    """Progress bars by label; they vanish when their loop ends, and without a terminal."""
    off = console is None or not console.is_terminal
    return lambda label: (
        lambda numbers: track(numbers, label, console=console, transient=True, disable=off)
    )


@torch.no_grad()
def accuracy(
    model: nn.Module, split: AnySplit, device: torch.device, batch: int = 500, bar: Bar = iter
) -> float:
    """Percent of ``split`` that ``model``, set to evaluation mode, classifies right."""
    model.eval()
    right = 0
    for start in bar(range(0, len(split), batch)):
        part = range(start, min(start + batch, len(split)))
        answers = model(as_pixels(split.take(part), device)).argmax(dim=1).cpu()
        right += int((answers == torch.from_numpy(split.labels[part.start : part.stop])).sum())
    return 100 * right / len(split)


def train(
    recipe: Recipe, out: Path, options: Options | None = None, console: Console | None = None
) -> RunResult | None:
    """Train ``recipe`` and write the run folder ``out``.

    Under ``torchrun`` every process calls this; rank 0 writes and returns the result, the others
    return None.

    Args:
        recipe: settings.
        out: run folder; made if missing.
        options: device, resume and the like.
        console: where the progress bar and warnings go; None for silence.

    Raises:
        UserError: anything a person can mend: data, folder, device, divergence.
        Interrupted: SIGINT or SIGTERM came; a checkpoint was written.
    """
    options = options or Options()
    device = local_device(choose_device(options.device))
    if options.compile_backend == "inductor":
        require_compiler(device)
    folder = RunFolder(Path(out))
    if options.resume and folder.run.exists():
        return _finished(folder, console)
    dataset = datasets.load(
        recipe.dataset,
        options.data_dir,
        download=True,
        photographs=_photographs(recipe, options, folder),
        bars=_bars(console),
    )
    teacher = _teacher(options.teacher, dataset, device)
    with joined(device) as ranks, ExitStack() as held:
        console = console if ranks.first else None
        notes = ranks.first_alone(
            lambda: _checked(recipe, dataset, folder, options, ranks.count, console), device
        )
        with reproducible(recipe.seed):
            setting = Setting(device, ranks, teacher, options.compile_backend, options.workers)
            trainer = Trainer(recipe, dataset, setting)
            ranks.first_alone(lambda: held.enter_context(locked(folder.path)), device)
            ranks.first_alone(lambda: _begin(folder, recipe, dataset, options), device)
            warnings = [*dataset.notes, *(notes or ()), *filter(None, [trainer.warning()])]
            if warnings and console is not None:
                console.print(*(f"warning: {each}" for each in warnings), sep="\n", style="yellow")
            seconds = _loop(trainer, folder, options, console)
            return _finish(trainer, dataset, folder, seconds, console) if ranks.first else None


def _checked(
    recipe: Recipe,
    dataset: Dataset,
    folder: RunFolder,
    options: Options,
    processes: int,
    console: Console | None,
) -> tuple[str, ...]:
    """Refuse now what could not be written or packed at the end; returns what was not checked."""
    run_folder.require_free(folder.path, options.force or options.resume)
    waiting = nullcontext() if console is None else console.status("checking the network")
    with waiting:
        return require_packable(recipe, dataset, processes)


def _begin(folder: RunFolder, recipe: Recipe, dataset: Dataset, options: Options) -> None:
    """Make the run folder, without what an earlier run left in it unless that is resumed."""
    run_folder.prepare(folder.path, options.force, options.resume)
    if not options.resume:
        checkpoint.remove(folder.checkpoints)
    run_folder.write_bytes(folder.recipe, to_toml(recipe).encode())
    if dataset.pictures:
        run_folder.write_bytes(folder.pictures, contents.to_lines(dataset.pictures))


def photographs(recipe: Recipe, skip_corrupt: bool) -> Photographs:
    """How a recipe reads pictures on disk; UserError if it sizes images that come as they are."""
    if recipe.dataset in datasets.ON_DISK:
        if recipe.shift:
            raise UserError("pictures on disk are cropped at random: use crop, and shift=0")
        size = recipe.image_sides if recipe.image_size else USUAL_SIZE
        return Photographs(size, recipe.image_channels, skip_corrupt)
    for field in ("image_size", "image_channels", "crop", "colour"):
        if getattr(recipe, field) != getattr(Recipe, field):
            raise UserError(
                f"{field} is for pictures on disk, {recipe.dataset} has images of its own; leave "
                f"it out (--set {field}={getattr(Recipe, field)})"
            )
    return Photographs()


def _photographs(recipe: Recipe, options: Options, folder: RunFolder) -> Photographs:
    """The same for a run, which goes on with the pictures that it began with."""
    known = contents.read_lines(folder.pictures) if options.resume else ()
    return replace(photographs(recipe, options.skip_corrupt), cache=options.cache, known=known)


def _loop(trainer: Trainer, folder: RunFolder, options: Options, console: Console | None) -> float:
    """Run the trainer to its end; returns the seconds of all sittings."""
    with stopping() as stop, Progress(console, trainer.recipe, trainer.steps) as progress:
        every, minutes = options.checkpoint_every, options.checkpoint_minutes
        keeper = Keeper(trainer, folder, progress, stop, every, minutes)
        if options.resume:
            keeper.restore(trainer, console)
        try:
            with watched(trainer.model, options.detect_anomaly):
                trainer.run(keeper)
        except Diverged as error:
            kept, _ = checkpoint.newest(folder.checkpoints)
            good = "there is no checkpoint" if kept is None else f"step {kept.step} is kept"
            raise Diverged(f"{error}; last good checkpoint: {good}") from error
        return keeper.elapsed()


def _finished(folder: RunFolder, console: Console | None) -> RunResult:
    """The result of a run that needs no resuming."""
    facts = run_folder.read_run(folder.path).facts
    if console is not None:
        console.print("this run is finished: nothing to resume")
    accuracies = facts["accuracy"]
    return RunResult(
        folder,
        facts["unfrozen"],
        accuracies["validation"],
        accuracies["test_before_settling"],
        accuracies["test_after_settling"],
        facts["seconds"],
    )


def _teacher(path: Path | None, dataset: Dataset, device: torch.device) -> Teacher | None:
    """The network of another run, to distil from; UserError if it sees other data."""
    if path is None:
        return None
    run = run_folder.read_run(path)
    theirs, ours = run.facts["dataset"], datasets.as_json(dataset)
    for key in ("image_shape", "classes"):
        if theirs[key] != ours[key]:
            raise UserError(f"the teacher '{path}' has another {key}; train one on this data set")
    module = network(run).to(device).eval().requires_grad_(False)
    facts = {"recipe": run.recipe.name, "model": run.recipe.model}
    return Teacher(module, facts | {"sha256": run.facts["sha256"][run.folder.model.name]})


def _finish(
    trainer: Trainer,
    dataset: Dataset,
    folder: RunFolder,
    seconds: float,
    console: Console | None,
) -> RunResult:
    """Settle, evaluate on the test split (the only time), write everything.

    Raises:
        UserError: numbers that cannot be settled, a full disk and the like; says that the trained
            weights are kept, and how to go on.
    """
    try:
        return _ended(trainer, dataset, folder, seconds, console)
    except UserError as error:
        raise UserError(
            f"{error}; all {trainer.steps} steps are done and kept in '{folder.checkpoints}': "
            f"once that is mended, pipeline train --resume '{folder.path}' ends the run"
        ) from error


def _ended(
    trainer: Trainer,
    dataset: Dataset,
    folder: RunFolder,
    seconds: float,
    console: Console | None,
) -> RunResult:
    cpu = torch.device("cpu")
    model = trainer.model.to(cpu).to(memory_format=torch.contiguous_format)
    part(model)
    unfrozen = unfrozen_layers(model, activations=trainer.recipe.binarize == "both")
    settling: dict[str, Any] = {}
    final, bars = model, _bars(console)
    if not unfrozen:
        label = bars("evaluate 8 and 16 bits (validation)")
        score = partial(accuracy, split=dataset.validation, device=cpu, bar=label)
        bits = trainer.recipe.full_precision_bits
        settled = settle(model, settling_pixels(dataset), bits, score)
        if console is not None and (line := bits_line(settled.report)):
            console.print(f"{line}, of the validation images")
        final = settled.module
        images = dataset.test.take(range(min(COMPARED, len(dataset.test))))
        program = program_of(final, datasets.as_json(dataset))
        require_equal(program, final, images, bars("compare the packed network"))
        settling = {"settled_hash": settled.hash, "settling": settled.report}
        run_folder.write_tensors(folder.settled, settled.module.state_dict())
    before = accuracy(model, dataset.test, cpu, bar=bars("evaluate (test)"))
    test, validation = bars("evaluate settled (test)"), bars("evaluate (validation)")
    after = None if unfrozen else accuracy(final, dataset.test, cpu, bar=test)
    valid = accuracy(final, dataset.validation, cpu, bar=validation)
    result = RunResult(folder, unfrozen, valid, before, after, seconds)
    run_folder.write_tensors(folder.model, model.state_dict())
    run_folder.write_bytes(folder.metrics, to_lines(trainer.history))
    run_folder.write_bytes(folder.picture, freeze_plot.draw(trainer.history, trainer.recipe))
    run_folder.write_run(folder, _facts(trainer, dataset, result) | settling)
    checkpoint.remove(folder.checkpoints)
    return result


def _facts(trainer: Trainer, dataset: Dataset, result: RunResult) -> dict[str, Any]:
    """Contents of run.json but for settling and checksums."""
    after = result.test_after
    return {
        "recipe": trainer.recipe.name,
        "seed": trainer.recipe.seed,
        "dataset": datasets.as_json(dataset),
        "fully_frozen": not result.unfrozen,
        "unfrozen": result.unfrozen,
        "accuracy": {
            "unit": "percent",
            "validation": round(result.validation_accuracy, 4),
            "test_before_settling": round(result.test_before, 4),
            "test_after_settling": None if after is None else round(after, 4),
        },
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "layers": trainer.schedule.layers,
        "steps": trainer.steps,
        "steps_per_layer": round(trainer.schedule.steps_per_layer, 2),
        "seconds": round(result.seconds, 2),
        "ranks": trainer.setting.ranks.count,
        "teacher": trainer.origin()["teacher"],
        **conditions(trainer.device),
    }
