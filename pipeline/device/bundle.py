"""``pipeline bundle``: one zip with which a board without checkout proves equality and measures.

========================  ==========================================================
``README.md``             what to type on the board
``check.py``              compares and measures (:mod:`frostbit.pipeline.device.check`)
``frostbit-*.whl``        this installation
``model.bnn``             the model
``images.npy``            uint8 or float32 ``[N, H, W, C]``, test images (random without data set)
``logits.npy``            float32 ``[N, classes]``, what the reference gives for them
``labels.npy``            int64 ``[N]``, only with a data set
``manifest.json``         SHA-256 of the files, tolerance, images, where it was made
========================  ==========================================================
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from typing import Any

import numpy as np
from numpy.typing import NDArray

from frostbit.kernels.ir import reference
from frostbit.kernels.ir.file import dumps, program_hash
from frostbit.kernels.ir.program import Program
from frostbit.pipeline import machine
from frostbit.pipeline.bench.table import markdown_cell
from frostbit.pipeline.console import Progress
from frostbit.pipeline.data.inputs import Inputs
from frostbit.pipeline.device import wheel
from frostbit.pipeline.device.check import tolerance_of

IMAGES = 256
MOST_BYTES = 2**24
"""Of images; a network for large ones gets fewer of them."""
BATCH = 16
CHECK = '''"""Proves that this board gives the logits of the bundle's maker; measures."""

from frostbit.pipeline.device.check import main

main()
'''
README = """# {label} for a board

Made by frostbit {version} from a model with the hash `{hash}`.
It needs Python 3.11 or newer and, for the first step, pip's index.

    python3 -m venv venv
    venv/bin/pip install ./{wheel}
    venv/bin/python check.py --json result.json

`check.py` runs the {count} images in `images.npy` with every micro-kernel of the CPU, compares the
logits with `logits.npy`{tolerance}, then measures the latency. `--no-timing` leaves that out,
`--rounds N` makes it longer, `--pin CPU` keeps to one core. Exit status 1: something differs.
"""


def build(program: Program, label: str, inputs: Inputs, progress: Progress = iter) -> bytes:
    """The zip for ``program``, whose ``label`` is its name in tables.

    Args:
        program: any Program.
        label: name in the README.
        inputs: images, with labels if they are those of its data set.
        progress: wraps the iterable of batches.
    """
    count = min(IMAGES, len(inputs.images), max(1, MOST_BYTES // inputs.images[0].nbytes))
    images = np.ascontiguousarray(inputs.images[:count])
    logits = [
        reference.run(program, images[i * BATCH : (i + 1) * BATCH])
        for i in progress(range(-(-count // BATCH)))
    ]
    name, package = wheel.build()
    files = {name: package, "model.bnn": dumps(program), "check.py": CHECK.encode()}
    files["images.npy"] = _npy(images)
    files["logits.npy"] = _npy(np.concatenate(logits))
    if inputs.labels is not None:
        files["labels.npy"] = _npy(inputs.labels[:count])
    tolerance = tolerance_of(program)
    facts = {
        "label": label,
        "program_sha256": program_hash(program),
        "tolerance": tolerance,
        "images": count,
        "dataset": inputs.dataset,
        "made_on": {"cpu": machine.cpu_model(), "versions": machine.versions()},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
    }
    text = README.format(
        label=markdown_cell(label),
        version=machine.versions()["frostbit"],
        hash=facts["program_sha256"],
        wheel=name,
        count=count,
        tolerance=f" (tolerance {tolerance:g})" if tolerance else ", bit for bit",
    )
    files["README.md"] = text.encode()
    files["manifest.json"] = _json(facts)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for each, data in sorted(files.items()):
            wheel.add(archive, each, data)
    return buffer.getvalue()


def _json(facts: dict[str, Any]) -> bytes:
    return (json.dumps(facts, indent=2) + "\n").encode()


def _npy(values: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, values, allow_pickle=False)
    return buffer.getvalue()
