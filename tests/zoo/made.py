"""What is made, and of what: the files beside each other, and whether they are of today's list.

Only the standard library and numpy are used: each environment writes with this.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tests.zoo.networks import Network

HERE = Path(__file__).parent
SOURCES = {
    "larq_zoo": ("images.py", "make_larq.py", "requirements.txt"),
    "keras": ("images.py", "keras_models.py", "make_larq.py", "requirements.txt"),
    "int8": ("images.py", "keras_models.py", "make_larq.py", "requirements.txt"),
    "brevitas": ("images.py", "make_brevitas.py", "requirements-brevitas.txt"),
}
"""Files of this folder that decide what a maker makes."""


def recipe_hash(network: Network) -> str:
    """SHA-256 (hex) of everything that decides the network's files."""
    asked = {key: value for key, value in asdict(network).items() if key != "refused"}
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode())
    for name in SOURCES[network.maker]:
        digest.update((HERE / name).read_bytes())
    return digest.hexdigest()


def save(folder: Path, network: Network, packages: tuple[str, ...], arrays: dict[str, Any]) -> None:
    """Write ``NAME.npz`` (``input``, ``output`` of the exported file, the maker's own answer), then
    ``NAME.json`` with versions and the recipe's hash: it is there only when the rest is.
    """
    np.savez(folder / f"{network.name}.npz", **arrays)
    about = {
        "recipe": recipe_hash(network),
        "file_sha256": hashlib.sha256((folder / network.file).read_bytes()).hexdigest(),
        "made_with": {name: version(name) for name in packages},
    }
    (folder / f"{network.name}.json").write_text(json.dumps(about, indent=1) + "\n")


def is_made(folder: Path, network: Network) -> bool:
    """Whether the files of today's recipe are there and whole."""
    try:
        about = json.loads((folder / f"{network.name}.json").read_text())
        data = (folder / network.file).read_bytes()
    except OSError:
        return False
    whole = hashlib.sha256(data).hexdigest() == about["file_sha256"]
    return whole and about["recipe"] == recipe_hash(network)
