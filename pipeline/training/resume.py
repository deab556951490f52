"""Keeping a run: checkpoints while it trains, an orderly end on a signal, going on later."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from rich.console import Console

from frostbit.pipeline.errors import Interrupted, UserError
from frostbit.pipeline.run import checkpoint
from frostbit.pipeline.run import folder as run_folder
from frostbit.pipeline.run.folder import RunFolder
from frostbit.pipeline.run.metrics import to_lines
from frostbit.pipeline.training.loop import Trainer
from frostbit.pipeline.training.progress import Progress

CHECKPOINTS = 20
"""How many checkpoints a run writes at least, if its steps suffice."""
CHECKPOINT_SECONDS = 600.0
STEPS_BETWEEN_QUESTIONS = 8


class Stop:
    """Set by SIGINT or SIGTERM: the run writes a checkpoint after its step, then ends."""

    number = 0

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.number:  # asked twice: at once
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def stopping() -> Iterator[Stop]:
    """Catch SIGINT and SIGTERM inside the block (in the main thread; elsewhere do nothing)."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Keeper:
    """What happens after every step: progress, checkpoints, the end on a signal.

    Args:
        trainer: the run.
        folder: where its checkpoints and metrics go.
        progress: bar to update.
        stop: set by a signal.
        every, minutes: steps and time between checkpoints, whichever comes first; 0 for both: 20
            in a run, and one every ten minutes.
    """

    def __init__(
        self,
        trainer: Trainer,
        folder: RunFolder,
        progress: Progress,
        stop: Stop,
        every: int,
        minutes: float = 0.0,
    ) -> None:
        self.folder, self.progress, self.stop = folder, progress, stop
        chosen = every or minutes
        self.every = every if chosen else max(1, trainer.steps // CHECKPOINTS)
        self.longest = 60 * minutes if chosen else CHECKPOINT_SECONDS
        self.seconds = 0.0
        self.started = self.saved = time.perf_counter()
        self.shown = len(trainer.history)

    def elapsed(self) -> float:
        """Seconds of training, earlier sittings included."""
        return self.seconds + time.perf_counter() - self.started

    def __call__(self, trainer: Trainer) -> None:
        if len(trainer.history) > self.shown:
            self.shown = len(trainer.history)
            self.progress.update(trainer.history[-1])
        ranks, stopped = trainer.setting.ranks, self.stop.number
        if ranks.count > 1:  # all ranks must stop after the same step
            asked = trainer.step % STEPS_BETWEEN_QUESTIONS == 0
            heard = asked and ranks.any(bool(stopped), trainer.device)
            stopped = signal.SIGTERM if heard else 0
        waited = time.perf_counter() - self.saved
        due = bool(self.every and trainer.step % self.every == 0)
        due |= bool(self.longest and waited > self.longest)
        if (due or stopped or trainer.step == trainer.steps) and ranks.rank == 0:
            self.save(trainer)
        if stopped:
            raise Interrupted(trainer.step, stopped, self.folder.path)

    def save(self, trainer: Trainer) -> None:
        """Write a checkpoint and the metrics so far."""
        tensors, facts = trainer.state()
        if not all(bool(torch.isfinite(value).all()) for value in tensors.values()):
            return  # the next interval reports the divergence; older checkpoints stay
        facts |= {"seconds": self.elapsed()}
        checkpoint.save(
            self.folder.checkpoints, checkpoint.Checkpoint(trainer.step, tensors, facts)
        )
        run_folder.write_bytes(self.folder.metrics, to_lines(trainer.history))
        self.saved = time.perf_counter()

    def restore(self, trainer: Trainer, console: Console | None) -> None:
        """Go on from the newest valid checkpoint; say so, and say what was damaged."""
        found, notes = checkpoint.newest(self.folder.checkpoints)
        self._agree(trainer, 0 if found is None else found.step)
        if found is None:
            notes.append("no valid checkpoint: training starts at step 0")
        else:
            for what, ours in trainer.origin().items():
                if found.facts.get(what) != ours:
                    raise UserError(
                        f"the checkpoint in '{self.folder.path}' has another {what}; resume it "
                        "with the same one, or start again with --force"
                    )
            try:
                trainer.restore(found.step, found.tensors, found.facts)
            except (KeyError, IndexError, ValueError, TypeError, RuntimeError) as error:
                raise UserError(
                    f"the checkpoint in '{self.folder.path}' does not fit this run; start again "
                    "with --force"
                ) from error
            self.seconds, self.shown = float(found.facts["seconds"]), len(trainer.history)
            notes.append(f"going on from step {found.step} of {trainer.steps}")
        if console is not None:
            console.print(*notes, sep="\n")

    def _agree(self, trainer: Trainer, step: int) -> None:
        """UserError on every rank if one of them sees another checkpoint."""
        ranks = trainer.setting.ranks
        if ranks.count == 1:
            return
        mean = ranks.mean(torch.tensor(float(step), dtype=torch.float64, device=trainer.device))
        if ranks.any(float(mean) != step, trainer.device):
            raise UserError(
                f"not every process sees the same newest checkpoint in '{self.folder.path}' (step "
                f"{step} here); put the run folder on storage that all machines share"
            )
