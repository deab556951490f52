"""How long a fresh process takes to its first result: ``python -m tests.figures.startup``.

Fresh processes that import the engine, load a packed model and run one image, with compiled code in
the cache, in turn with processes that only ``import numba``, which no engine of ours can be faster
than. Then once with an empty cache: what compiling costs.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from frostbit.export.synthetic.networks import synthetic
from frostbit.kernels.ir.file import save_program
from frostbit.pipeline.bench import conditions
from frostbit.pipeline.bench.conditions import COLD_START
from frostbit.pipeline.cli.options import FILE
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.run.folder import write_bytes

NUMBA = ("-c", "import numba")
NETWORK = "resnet18@224"


def seconds(arguments: tuple[str, ...], cache: Path | None = None) -> float:
    """Time of one Python process with these arguments, from its start to its end."""
    environment = dict(os.environ)
    if cache is not None:
        environment["FROSTBIT_CACHE"] = str(cache)
    start = time.perf_counter()
    command = [sys.executable, *arguments]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


@click.command()
@click.option("--rounds", type=click.IntRange(1), default=11, show_default=True)
@click.option("--json", "json_file", type=FILE, help="Also write the figures here.")
def main(rounds: int, json_file: Path | None) -> None:
    """Time from the start of a process to the engine's first result, beside `import numba`.

    Example: python -m tests.figures.startup --rounds 11
    """
    with tempfile.TemporaryDirectory() as folder:
        model, cache = Path(folder) / "model.bnn", Path(folder) / "cache"
        cache.mkdir(mode=0o700)
        save_program(synthetic(NETWORK), model)
        engine = ("-c", COLD_START, str(model))
        with terminal().status("compiling the engine into an empty cache"):
            compiling = seconds(engine, cache)
        seconds(NUMBA)
        times: dict[str, list[float]] = {"engine": [], "numba": []}
        for _ in progress()("start-up")(range(rounds)):
            times["engine"].append(seconds(engine, cache))
            times["numba"].append(seconds(NUMBA))
    medians = {name: round(statistics.median(each), 4) for name, each in times.items()}
    ratio = round(medians["engine"] / medians["numba"], 3)
    terminal().print(
        f"first result of {NETWORK} in a fresh process: {medians['engine']:.3f} s, {ratio:.2f} "
        f"times `import numba` ({medians['numba']:.3f} s), medians of {rounds}; "
        f"{compiling:.1f} s with an empty cache"
    )
    if json_file is not None:
        record = {
            "command": f"python -m tests.figures.startup --rounds {rounds}",
            "conditions": conditions.conditions(),
            "network": NETWORK,
            "median_s": medians,
            "ratio": ratio,
            "empty_cache_s": round(compiling, 2),
            "seconds": {name: [round(s, 4) for s in each] for name, each in times.items()},
        }
        write_bytes(json_file, (json.dumps(record, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
