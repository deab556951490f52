"""Random crops of pictures on disk, decoded in worker processes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from frostbit.pipeline.data.folders import FolderSplit
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.training.batches import Changes

ASPECTS = (3 / 4, 4 / 3)
"""Width over height of a crop, over that of the images: torchvision's usual range."""


class Augmented(torch.utils.data.Dataset[Tensor | UserError]):
    """Training pictures by ``(epoch, index)``: what comes is a function of those and the seed.

    A picture that cannot be decoded comes as its error, for the main process to raise.
    """

    def __init__(self, split: FolderSplit, seed: int, changes: Changes) -> None:
        self.split, self.seed = split, seed
        height, width, _ = split.image_shape
        ratio = tuple(aspect * width / height for aspect in ASPECTS)
        steps: list[torch.nn.Module] = [
            v2.RandomResizedCrop((height, width), (changes.crop, 1.0), ratio, antialias=True)
        ]
        if changes.flip:
            steps.append(v2.RandomHorizontalFlip())
        if changes.colour:
            strength = changes.colour
            steps.append(v2.ColorJitter(strength, strength, strength, strength / 4))
        self.transform = v2.Compose(steps)

    def __getitem__(self, key: tuple[int, int]) -> Tensor | UserError:
        epoch, index = key
        number = np.random.SeedSequence([self.seed, epoch, index]).generate_state(1, np.uint64)[0]
        try:
            pixels = self.split.pixels(index)
        except UserError as error:
            return error
        whole = torch.from_numpy(pixels.copy()).permute(2, 0, 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(number))
            moved: Tensor = self.transform(whole)
        return moved.permute(1, 2, 0).contiguous()
