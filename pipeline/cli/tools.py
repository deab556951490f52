"""Commands around the four stages: summary, doctor, predict, bundle, report, compare."""

from __future__ import annotations

from pathlib import Path

import click

from frostbit.pipeline.cli.options import (
    EXISTING_FILE,
    EXISTING_FOLDER,
    FILE,
    Failure,
    data_option,
    force_option,
    progress,
    terminal,
)


@click.command(name="summary")
@click.argument("file", type=click.Path(exists=True, path_type=Path))
def summary_command(file: Path) -> None:
    """Show layers, parameters, memory and MACs of a .bnn, .onnx, .tflite or run folder.

    Example: pipeline summary runs/digits/model.onnx
    """
    from frostbit.pipeline.report.summary import summary_of

    table, lines = summary_of(file)
    terminal().print(table, *lines, sep="\n")


@click.command()
@click.option("--install-lce", is_flag=True, help="Make LCE's own small environment.")
@click.option("--json", "as_json", is_flag=True, help="Print a list of objects instead.")
def doctor(install_lce: bool, as_json: bool) -> None:
    """Say what is installed and what to do about the rest; make LCE's environment.

    Example: pipeline doctor --install-lce
    """
    from frostbit.pipeline.cli.doctor import findings, install, to_json

    if install_lce:
        install(lambda text: click.echo(text, err=as_json))
    found = findings()
    click.echo(to_json(found) if as_json else "\n".join(map(str, found)), nl=not as_json)


@click.command(name="predict")
@click.argument("model", type=EXISTING_FILE)
@click.argument("images", type=EXISTING_FILE, nargs=-1, required=True)
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes shown.")
@click.option("--json", "json_file", type=FILE, help="Also write the result here.")
def predict_command(
    model: Path, images: tuple[Path, ...], top: int, json_file: Path | None
) -> None:
    """Name the likeliest classes of pictures (JPEG, PNG, ...), run by the engine.

    Pictures are brought to the model's size as in training. Models of digits and Fashion-MNIST
    were trained on white on black.

    Example: pipeline predict runs/digits/model.bnn seven.png
    """
    from frostbit.kernels import load
    from frostbit.pipeline.run import folder as run_folder

    try:
        from frostbit.pipeline.device import predict
    except ImportError as error:
        raise Failure(f"predict needs {error.name}: pip install pillow") from error
    found = predict.predict(load(model), images, top, progress()("predicting"))
    terminal().print(predict.prediction_table(found))
    if json_file is not None:
        run_folder.write_bytes(json_file, predict.to_json(found).encode())


@click.command(name="bundle")
@click.argument("model", type=EXISTING_FILE)
@click.option("-o", "--out", type=FILE, help="Zip file [default: MODEL with the ending .zip].")
@click.option("--seed", type=click.IntRange(0), default=0, help="Of the images without data set.")
@data_option
@force_option
def bundle_command(
    model: Path, out: Path | None, seed: int, data_dir: Path | None, force: bool
) -> None:
    """Write a zip with which a board proves that it computes the same, and measures itself.

    Example: pipeline bundle runs/digits/model.bnn -o bundle.zip
    """
    from frostbit.kernels.ir.file import load_program
    from frostbit.pipeline.bench.command import labels
    from frostbit.pipeline.device import bundle
    from frostbit.pipeline.parity.export import refuse_existing
    from frostbit.pipeline.run import folder as run_folder

    path = out or model.with_suffix(".zip")
    refuse_existing(path, force)
    program = load_program(model)
    data = bundle.build(program, labels([model])[0], data_dir, seed, progress()("expected logits"))
    run_folder.write_bytes(path, data)
    terminal().print(f"wrote {path} ({len(data):,} bytes); its README.md says what to type")


@click.command(name="report")
@click.argument("run", type=EXISTING_FOLDER)
@click.option("-o", "--out", type=FILE, help="A .html or .md file [default: RUN/report.html].")
@data_option
def report_command(run: Path, out: Path | None, data_dir: Path | None) -> None:
    """Write one page on a packed run: figures, training, runtimes, layers, mistakes.

    The .html file needs no network and can be sent around; .md is for pasting into an issue.

    Example: pipeline report runs/digits -o report.html
    """
    path = out or run / "report.html"
    kind = path.suffix.lower()
    if kind not in (".html", ".md"):
        raise Failure(f"a report ends in .html or .md, not '{path.name}'")
    try:
        from frostbit.pipeline.report import page as report
        from frostbit.pipeline.run import folder as run_folder
    except ImportError as error:
        raise Failure(f"report needs {error.name}: pip install 'frostbit[train]'") from error
    with terminal().status("writing the report"):
        page = report.gather(run, data_dir)
        run_folder.write_bytes(path, report.render(f"report{kind}", page=page).encode())
    terminal().print(f"wrote {path} ({path.stat().st_size:,} bytes)")


@click.command(name="compare")
@click.argument("runs", type=EXISTING_FOLDER, nargs=-1, required=True)
@click.option("-o", "--out", type=FILE, help="Also write a page with the picture (.html).")
def compare_command(runs: tuple[Path, ...], out: Path | None) -> None:
    """Put runs side by side: accuracy, size, latency, and which ones nothing beats.

    Example: pipeline compare runs/digits runs/mine -o compare.html
    """
    try:
        from frostbit.pipeline.report import compare
        from frostbit.pipeline.run import folder as run_folder

        entries = compare.read(runs)
        terminal().print(compare.compare_table(entries))
        if out is not None:
            run_folder.write_bytes(out, compare.page(entries).encode())
            terminal().print(f"wrote {out}")
    except ImportError as error:
        raise Failure(f"compare needs {error.name}: pip install 'frostbit[train]'") from error


COMMANDS = (
    summary_command,
    doctor,
    predict_command,
    bundle_command,
    report_command,
    compare_command,
)
