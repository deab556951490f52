"""Run by torchrun in test_parallel: trains, and writes what this rank saw of every step."""

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from frostbit.pipeline.network.binary import maskable
from frostbit.pipeline.run import recipe
from frostbit.pipeline.training.loop import Trainer
from frostbit.pipeline.training.train import Options, train


def masks(trainer: Trainer) -> str:
    """Hash of all masks and shares."""
    digest = hashlib.sha256()
    for name, module in maskable(trainer.model):
        digest.update(f"{name} {module.share}".encode())
        if module.mask is not None:
            digest.update(module.mask.contiguous().numpy().tobytes())
    return digest.hexdigest()


def weights(trainer: Trainer) -> str:
    """Hash of all parameters."""
    digest = hashlib.sha256()
    for parameter in trainer.model.parameters():
        digest.update(parameter.detach().contiguous().numpy().tobytes())
    return digest.hexdigest()


def main(out: Path, fields: dict[str, Any]) -> None:
    seen: list[tuple[str, str, float]] = []
    original = Trainer._step

    def step(self: Trainer, number: int, images: Any, labels: Any) -> Any:
        loss, right = original(self, number, images, labels)
        mean = float(self.setting.ranks.mean(loss.clone()))
        seen.append((masks(self), weights(self), mean))
        return loss, right

    Trainer._step = step  # type: ignore[method-assign]
    result = train(recipe.load("digits", fields), out / "run", Options(device="cpu"))
    rank = os.environ.get("RANK", "0")
    written = (out / "run" / "run.json").exists()
    content = {"steps": seen, "result": result is not None, "written": written}
    (out / f"rank{rank}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
