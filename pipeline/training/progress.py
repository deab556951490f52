"""The progress bar of training: epoch, loss, accuracy, frozen share, time left."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

from frostbit.pipeline.run.recipe import Recipe

if TYPE_CHECKING:
    from frostbit.pipeline.run.metrics import Metrics


class Progress:
    """Context manager around a rich progress bar; silent with ``console=None``."""

    def __init__(self, console: Console | None, recipe: Recipe, steps: int) -> None:
        self._epochs = recipe.epochs
        self._bar = RichProgress(
            TextColumn("[bold]{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=console is None,
        )
        self._task = self._bar.add_task(f"train {recipe.method}", total=steps, state="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def update(self, metrics: Metrics) -> None:
        """Show the latest interval."""
        frozen = 100 * sum(metrics.frozen) / len(metrics.frozen)
        state = (
            f"epoch {metrics.epoch:.1f}/{self._epochs}  loss {metrics.loss:.3f}  "
            f"accuracy {metrics.accuracy:.1f} %  frozen {frozen:.0f} %"
        )
        self._bar.update(self._task, completed=metrics.step, state=state)
