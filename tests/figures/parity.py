"""Parity of every network that ``train`` offers: ``python -m tests.figures.parity``.

Each network is trained for an epoch on a few seeded random pictures (what it learns does not
matter, that its weights come out of a training does), packed, and compared on every runtime and
setting as ``pipeline verify`` does, the settled PyTorch module among them. At 224x224 ResNet-18
has random weights (``export/synthetic/networks.py``): a training of it would take hours here.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from frostbit.export.runtimes import Images
from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.bench import conditions
from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import terminal
from frostbit.pipeline.data.inputs import Inputs
from frostbit.pipeline.lowering.pack import pack
from frostbit.pipeline.network import zoo
from frostbit.pipeline.network.models import FAMILIES
from frostbit.pipeline.parity.runtimes import Source
from frostbit.pipeline.parity.verify import BY_FORMAT, Verified, verify
from frostbit.pipeline.run import recipe
from frostbit.pipeline.run.folder import write_bytes
from frostbit.pipeline.training.train import Options, train

SIZE = 32
OWN_DEPTH = 6
RATE = 1e-4
"""Small: five steps at more make a deep network without shortcuts answer the same always."""
PICTURES_A_CLASS = 20
RANDOM = "resnet18@224"


@dataclass(frozen=True)
class Figures:
    """What one network's comparison found.

    Attributes:
        network: its name and the size of its images.
        weights: ``trained`` or ``random``.
        seconds: of the comparison.
        exact, head_exact: what :mod:`frostbit.kernels.ir.exact` proves.
        found: the comparison.
    """

    network: str
    weights: str
    seconds: float
    exact: bool
    head_exact: bool
    found: Verified

    def document(self) -> dict[str, Any]:
        """As in the record: one row for all runtimes, and those that differ, if any."""
        report = self.found.report
        return {
            "network": self.network,
            "weights": self.weights,
            "images": report.images,
            "exact": self.exact,
            "head_exact": self.head_exact,
            "passed": report.passed,
            "runtimes": [each.name for each in report.comparisons],
            "missing": [each.name for each in self.found.missing],
            "sign_bits_compared_each": min(c.sign_bits_compared for c in report.comparisons),
            "sign_bits_differing": int(report.total["sign_bits_differing"]),
            "logits_max_abs_diff": report.total["logits_max_abs_diff"],
            "logits_max_rel_diff": max(c.logits_max_rel_diff for c in report.comparisons),
            "seconds": round(self.seconds, 1),
        }


def names() -> tuple[str, ...]:
    """Every network of ``train``: our own families at one depth, and torchvision's."""
    return (*(f"{family}-{OWN_DEPTH}" for family in FAMILIES), *zoo.NAMES)


def blocks(size: int, count: int, seed: int) -> Images:
    """Pictures uint8 ``[count, size, size, 3]`` of random coloured squares.

    Of noise, a deep network without shortcuts makes the same answer every time.
    """
    squares = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), dtype=np.uint8)
    return squares.repeat(size // 4, axis=1).repeat(size // 4, axis=2)


def pictures(root: Path) -> Path:
    """Two classes of pictures, in folders."""
    for number, name in enumerate(("first", "second")):
        (root / name).mkdir(parents=True)
        for index, pixels in enumerate(blocks(SIZE, PICTURES_A_CLASS, number)):
            Image.fromarray(pixels).save(root / name / f"{index:03d}.png")
    return root


def compared(program: Program, run: Path | None, images: int) -> tuple[Verified, float]:
    """Everything that can run ``program``, on :func:`blocks`, and how long it took."""
    start = time.perf_counter()
    inputs = Inputs(blocks(program.input_shape[0], images, 2), None, "")
    found = verify(Source(program, None, run), tuple(BY_FORMAT), inputs, asked=False)
    return found, time.perf_counter() - start


def figures(name: str, data_dir: Path, images: int) -> Figures:
    """Train the network ``name``, or take :data:`RANDOM`, and compare."""
    if name == RANDOM:
        return _figures(name, "random", synthetic(name), None, images)
    changes = {
        "model": name, "dataset": "folder", "cifar_stem": name in zoo.NAMES, "method": "ste",
        "image_size": SIZE, "epochs": 1, "batch": 8, "lr_warmup_steps": 0, "final_sign": False,
        "lr_binary": RATE, "lr_other": RATE,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        options = Options(device="cpu", data_dir=data_dir)
        train(recipe.load("digits", changes), run, options, Console(quiet=True))
        return _figures(f"{name}@{SIZE}", "trained", pack(run), run, images)


def _figures(name: str, weights: str, program: Program, run: Path | None, images: int) -> Figures:
    found, seconds = compared(program, run, images)
    proof = analyse(program)
    return Figures(name, weights, seconds, proof.body_exact, proof.head_exact, found)


def table(rows: list[dict[str, Any]]) -> Table:
    """The record as a person reads it."""
    shown = Table(title="every network on every runtime", title_justify="left")
    shown.add_column("network")
    for title in ("weights", "runtimes", "sign bits each", "differing", "logits differ by"):
        shown.add_column(title, justify="right")
    for row in rows:
        bits, differing = row["sign_bits_compared_each"], row["sign_bits_differing"]
        logits = f"{row['logits_max_abs_diff']:.2g}"
        count = str(len(row["runtimes"]))
        shown.add_row(row["network"], row["weights"], count, f"{bits:,}", f"{differing:,}", logits)
    return shown


@click.command()
@click.argument("networks", nargs=-1)
@click.option("--images", type=click.IntRange(2), default=8, show_default=True)
@click.option("--json", "json_file", type=FILE, help="Also write the figures here.")
def main(networks: tuple[str, ...], images: int, json_file: Path | None) -> None:
    """Compare NETWORKS (default: all) on every runtime and setting; exit 1 on a difference.

    Example: python -m tests.figures.parity resnet18 bireal-6
    """
    rows: list[dict[str, Any]] = []
    command = ["python -m tests.figures.parity", *networks, f"--images {images}"]
    where = conditions.conditions()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = pictures(Path(folder) / "pictures")
        for name in networks or (*names(), RANDOM):
            rows.append(figures(name, data_dir, images).document())
            verdict = "equal" if rows[-1]["passed"] else "DIFFERENT"
            terminal().print(f"{rows[-1]['network']}: {verdict}, {rows[-1]['seconds']} s")
            if json_file is not None:  # after each: the whole takes minutes
                document = {"command": " ".join(command), "conditions": where, "networks": rows}
                write_bytes(json_file, (json.dumps(document, indent=1) + "\n").encode())
    terminal().print(table(rows))
    if not all(row["passed"] for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
