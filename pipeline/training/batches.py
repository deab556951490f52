"""Order and augmentation of training images: a pure function of (seed, epoch, image).

So a resumed run, any number of decoding processes and any number of ranks see the same images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from frostbit.pipeline.data.splits import AnySplit, Images, Labels, Split
from frostbit.pipeline.errors import UserError

if TYPE_CHECKING:
    from frostbit.pipeline.data.folders import FolderSplit
    from frostbit.pipeline.training.parallel import Ranks


@dataclass(frozen=True)
class Changes:
    """How training images are changed at random.

    Attributes:
        shift: images in memory move by up to this many pixels each way; black (0) moves in.
        flip: whether they are mirrored left to right by chance.
        crop: of pictures on disk: least share of the area that a crop keeps.
        colour: of pictures on disk: most relative change of brightness, contrast and saturation;
            the hue turns by a quarter of it.
    """

    shift: int = 0
    flip: bool = False
    crop: float = 0.08
    colour: float = 0.0


UNCHANGED = Changes()


class Batches:
    """Shuffled batches of a split; the images of a last, incomplete batch wait for next epoch.

    Args:
        split: training images.
        batch: images per step over all ranks; at most the number of images is used.
        seed: of order and augmentation.
        changes: random changes of training images.
        ranks: which share of every batch this process gets; None for all of it.
        workers: processes that decode pictures on disk.

    Raises:
        UserError: if the ranks cannot share a batch evenly.
    """

    def __init__(
        self,
        split: AnySplit,
        batch: int,
        seed: int,
        changes: Changes = UNCHANGED,
        ranks: Ranks | None = None,
        workers: int = 0,
    ) -> None:
        self.labels, self.seed = split.labels, seed
        self.batch = min(batch, len(split))
        self.steps_per_epoch = len(split) // self.batch
        self.rank, count = (0, 1) if ranks is None else (ranks.rank, ranks.count)
        if self.batch % count:
            raise UserError(
                f"batch {self.batch} cannot be shared by {count} processes; use a multiple"
            )
        self.share = self.batch // count
        self._source: _Memory | _Disk
        if isinstance(split, Split):
            self._source = _Memory(split, changes)
        else:
            from frostbit.pipeline.data.folders import FolderSplit

            if not isinstance(split, FolderSplit):
                raise TypeError(f"no batches of a {type(split).__name__}")
            self._source = _Disk(split, seed, changes, workers)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Images, Labels]]:
        """This rank's batches of one epoch from step ``first`` on.

        Yields:
            uint8 ``[B, H, W, C]`` and int64 ``[B]``.
        """
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.labels))
        self._source.draw(rng, len(order))
        starts = [
            step * self.batch + self.rank * self.share
            for step in range(first, self.steps_per_epoch)
        ]
        parts = [slice(start, start + self.share) for start in starts]
        chosen = [order[part] for part in parts]
        images = self._source.images(epoch, parts, chosen)
        for found, indices in zip(images, chosen, strict=True):
            yield found, self.labels[indices]


class _Memory:
    """Shifted and mirrored views of images in memory."""

    def __init__(self, split: Split, changes: Changes) -> None:
        shift = changes.shift
        self.shift, self.flip = shift, changes.flip
        pads = ((0, 0), (shift, shift), (shift, shift), (0, 0))
        padded = np.pad(split.images, pads) if shift else split.images
        # [N, dy, dx, H, W, C]: every shifted position of every image, without a copy
        size = split.images.shape[1:3]
        windows = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(1, 2))
        self.windows = np.moveaxis(windows, 3, 5)

    def draw(self, rng: np.random.Generator, count: int) -> None:
        """Draw the moves of one epoch, by place in its order."""
        self.moves = rng.integers(0, 2 * self.shift + 1, (2, count))
        self.mirrored = rng.random(count) < 0.5 if self.flip else np.zeros(count, bool)

    def images(
        self, epoch: int, parts: list[slice], chosen: list[NDArray[np.int64]]
    ) -> Iterator[Images]:
        for part, indices in zip(parts, chosen, strict=True):
            found = self.windows[indices, self.moves[0, part], self.moves[1, part]]
            if self.flip:
                mirrored = self.mirrored[part]
                found[mirrored] = found[mirrored][:, :, ::-1]
            yield found


class _Order:
    """Batch sampler whose keys are set before each epoch; worker processes live on."""

    def __init__(self) -> None:
        self.keys: list[list[tuple[int, int]]] = []

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return iter(self.keys)

    def __len__(self) -> int:
        return len(self.keys)


class _Disk:
    """Pictures decoded and augmented by a torch DataLoader."""

    def __init__(self, split: FolderSplit, seed: int, changes: Changes, workers: int) -> None:
        import torch
        from torch.utils.data import DataLoader

        from frostbit.pipeline.training.augmentation import Augmented

        self.order = _Order()
        self.loader: DataLoader[Any] = DataLoader(
            Augmented(split, seed, changes),
            batch_sampler=self.order,
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
            collate_fn=_stacked,
        )

    def draw(self, rng: np.random.Generator, count: int) -> None:
        """Nothing: a picture's augmentation is seeded by its number."""

    def images(
        self, epoch: int, parts: list[slice], chosen: list[NDArray[np.int64]]
    ) -> Iterator[Images]:
        self.order.keys = [[(epoch, int(index)) for index in indices] for indices in chosen]
        for found in self.loader:
            if isinstance(found, UserError):
                raise found
            yield found.numpy()


def _stacked(items: list[Any]) -> Any:
    """A batch, or the first error in it."""
    import torch

    wrong = [item for item in items if isinstance(item, UserError)]
    return wrong[0] if wrong else torch.stack(items)
