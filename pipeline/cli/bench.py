"""``pipeline bench``: latency, size, accuracy and sign bits of every runtime."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from frostbit.pipeline.bench import command as bench_command
from frostbit.pipeline.cli.options import (
    EXISTING_FILE,
    FILE,
    FOLDER,
    bench_options,
    data_options,
    remote_options,
    trust_option,
)
from frostbit.pipeline.console import progress, terminal
from frostbit.pipeline.errors import UserError


def _warm_cache() -> None:
    """Compile the engine into Numba's cache folder, e.g. while an image is built."""
    import time

    import numpy as np

    from frostbit.export.synthetic.networks import synthetic
    from frostbit.kernels.engine import Engine
    from frostbit.kernels.machine.jit import cache_folder

    program = synthetic("resnet18@32")
    start = time.perf_counter()
    Engine(program).run(np.zeros((1, *program.input_shape), np.uint8))
    where = cache_folder() or "memory only: there is no folder to write to"
    terminal().print(f"engine ready after {time.perf_counter() - start:.1f} s; cache: {where}")


def _refuse_others(name: str) -> None:
    """UserError if anything but the option ``name`` was typed."""
    context = click.get_current_context()
    for each in context.command.params:
        source = context.get_parameter_source(str(each.name))
        if each.name != name and source is ParameterSource.COMMANDLINE:
            other = each.opts[0] if each.opts[0].startswith("-") else each.human_readable_name
            raise UserError(f"--{name.replace('_', '-')} goes alone, without {other}")


def _bench_remote(
    model: Path, target: str, python: str, config: Path | None, wishes: bench_command.Wishes
) -> bool:
    """Measure a model's bundle on another machine, bring the JSON back; whether all is well."""
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.bench.file import labels
    from frostbit.pipeline.data.inputs import inputs_for
    from frostbit.pipeline.device import bundle, remote
    from frostbit.pipeline.run import folder as run_folder

    machine = remote.Remote(target, python, config)
    console = terminal()
    program = load_program(model)
    inputs = inputs_for(program, wishes.place(model), wishes.seed, bundle.IMAGES, progress())
    for line in inputs.told():
        console.print(line)
    data = bundle.build(program, labels([model])[0], inputs, progress()("bundle"))
    arguments = ["--rounds", str(wishes.rounds)]
    arguments += ["--threads", ",".join(map(str, wishes.threads))]
    arguments += [] if wishes.pin is None else ["--pin", str(wishes.pin)]
    with console.status(f"measuring on {target}"):
        document, text = remote.bench(machine, data, arguments)
    console.print(*text.rstrip().split("\n"), sep="\n")
    path = wishes.json_file or model.parent / "bench-remote.json"
    run_folder.write_bytes(path, (json.dumps(document, indent=2) + "\n").encode())
    console.print(f"wrote {path}")
    return document.get("passed") is True


@click.command(name="bench")
@click.argument("models", type=EXISTING_FILE, nargs=-1)
@click.option("--synthetic", help="Instead of MODELS: random weights, e.g. resnet18@224.")
@click.option("--runtime", "names", multiple=True, help="Only these (repeat the option).")
@click.option("--peers", is_flag=True, help="Add ort-fp32, ort-int8, torch-fp32, lce:indirect.")
@click.option(
    "--source", type=EXISTING_FILE, help="The .tflite that MODEL was imported from, run in LCE."
)
@click.option("--run", type=FOLDER, help="Run folder of the model [default: the model's].")
@bench_options
@click.option("--batch", type=click.IntRange(1), default=1, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--pin", type=click.IntRange(0), metavar="CPU", help="Stay on this CPU.")
@data_options
@trust_option
@click.option("--json", "json_file", type=FILE, help="[default: bench.json beside the model]")
@click.option("--markdown", type=FILE, help="Also write the table as Markdown.")
@click.option("--baseline", type=FILE, help="Compare with this earlier bench.json.")
@click.option(
    "--allowed",
    type=click.FloatRange(0),
    default=5.0,
    show_default=True,
    help="Percent slower than the baseline before the exit status is 1.",
)
@click.option("--profile", is_flag=True, help="Also show where the engine's time goes.")
@remote_options
@click.option("--warm-cache", is_flag=True, help="Only compile the engine, e.g. in an image build.")
@click.option("--shipped", is_flag=True, help="The model in the package, on its stored answers.")
def bench(
    models: tuple[Path, ...],
    synthetic: str | None,
    peers: bool,
    warm_cache: bool,
    shipped: bool,
    remote: str | None,
    remote_python: str,
    ssh_config: Path | None,
    **options: Any,
) -> None:
    """Compare latency, size, accuracy and sign bits of every runtime; exit 1 if a bit differs.

    Example: pipeline bench --shipped
    Example: pipeline bench runs/digits/model.bnn --runtime engine --runtime ort
    """
    if warm_cache:
        _refuse_others("warm_cache")
        _warm_cache()
        return
    if shipped:
        from frostbit.pipeline.bench.shipped import bench as bench_shipped

        _refuse_others("shipped")
        sys.exit(not bench_shipped(terminal().print, progress()))
    if bool(models) == (synthetic is not None):
        raise UserError("name either model files or --synthetic NETWORK, as in --help")
    if options["source"] is not None and (len(models) != 1 or remote is not None):
        raise UserError("--source goes with one model, on this machine")
    if peers:
        from frostbit.pipeline.parity.runtimes import PEERS

        options["names"] = (*(options["names"] or ("engine",)), *PEERS)
    wishes = bench_command.Wishes(**options, estimates=options["profile"])
    if remote is not None:
        if len(models) != 1:
            raise UserError("--remote takes one model file")
        well = _bench_remote(models[0], remote, remote_python, ssh_config, wishes)
    elif models:
        _, well = bench_command.bench_models(models, wishes)
    else:
        _, well = bench_command.bench_synthetic(str(synthetic), wishes)
    if not well:
        sys.exit(1)
