"""``pipeline report``: everything known of a run in one HTML page, or as Markdown.

The page needs no network: figures are SVG, pictures are inside. Every name comes from a file, so
the template engine escapes all of them. What a run lacks is left out, and the page says which
command would add it.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from numpy.typing import NDArray

from frostbit.export.errors import ExportError, RuntimeMissing
from frostbit.export.summary import Summary, summarise_program
from frostbit.export.web.page import Parts, base_style, parts
from frostbit.kernels.engine import Engine
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.file import load_program, program_hash
from frostbit.kernels.ir.program import Program
from frostbit.pipeline.bench import file as bench_file
from frostbit.pipeline.bench.table import markdown_cell
from frostbit.pipeline.console import shown
from frostbit.pipeline.data.inputs import Inputs, Place, inputs_for
from frostbit.pipeline.errors import UserError
from frostbit.pipeline.parity.export import setting_of
from frostbit.pipeline.report import plots
from frostbit.pipeline.report.summary import exactness_line
from frostbit.pipeline.report.svg import svg
from frostbit.pipeline.run import folder as run_folder
from frostbit.pipeline.run import metrics
from frostbit.pipeline.run.folder import Run
from frostbit.pipeline.training import freeze_plot

ANSWERS = "confusion matrix and mistakes"
MISTAKES = 12
WORST_PAIRS = 10
PEERS = (
    ("ort-fp32", "ONNX Runtime fp32"),
    ("ort-int8", "ONNX Runtime int8"),
    ("lce:indirect", "LCE, its best kernel"),
    ("torch-fp32", "torch fp32"),
)
TRAINING_HEIGHT = 6.4


@dataclass(frozen=True)
class Mistake:
    """A test image that was classified wrongly: picture as a data URI, its class, the answer."""

    picture: str
    label: str
    answer: str


@dataclass
class Page:
    """What the templates show; ``figures`` are SVG, ``missing`` says how to get the rest,
    ``notes`` what is special about the test images, ``tried`` is where a person tries the model.
    """

    title: str
    run: Run
    program: Program
    program_sha256: str
    exactness: str
    summary: Summary
    test_images: int = 0
    accuracy: float | None = None
    bench: dict[str, Any] | None = None
    engine: dict[str, Any] | None = None
    versus: list[tuple[str, dict[str, float]]] = field(default_factory=list)
    times: dict[str, dict[str, Any]] = field(default_factory=dict)
    pairs: list[tuple[str, str, int]] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    figures: dict[str, Markup] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    tried: Parts | None = None
    notes: list[str] = field(default_factory=list)


def gather(folder: Path, place: Place, *, tried: bool) -> Page:
    """Everything that a page on the run in ``folder`` shows.

    Args:
        folder: the run.
        place: where its data is.
        tried: whether the page gets a place where a person tries the model.

    Raises:
        UserError: no finished run, or it is not packed.
    """
    run = run_folder.read_run(folder)
    model = folder / "model.bnn"
    if not model.is_file():
        raise UserError(f"'{folder}' is not packed; run `pipeline pack {folder}` first")
    if run.facts["accuracy"]["test_after_settling"] is None:
        raise UserError(f"'{folder}' did not end binary; train it until every mask is all ones")
    program = load_program(model)
    summary = summarise_program(program, model.stat().st_size)
    page = Page(
        title=f"Run {folder.resolve().name}: {run.recipe.model} on {run.recipe.dataset}",
        test_images=run.facts["dataset"].get("splits", {}).get("test", 0),
        run=run,
        program=program,
        program_sha256=program_hash(program),
        exactness=exactness_line(analyse(program)),
        summary=summary,
    )
    _training(page)
    _benchmark(page)
    if tried:
        _trying(page)
    try:
        _answers(page, inputs_for(program, place, 0))
    except UserError as error:
        page.missing.append(f"{ANSWERS}: {error}")
    return page


def _picture(page: Page, name: str, draw: Callable[[], Any], description: str) -> None:
    page.figures[name] = Markup(svg(draw, name, description))


def _training(page: Page) -> None:
    history = metrics.read(page.run.folder.metrics)
    if not history:
        return
    last = history[-1]
    _picture(
        page,
        "training",
        lambda: plots.fitted(freeze_plot.figure(history, page.run.recipe), TRAINING_HEIGHT),
        f"Training loss falls to {last.loss:.3f} and accuracy reaches {last.accuracy:.1f} percent "
        f"over {last.epoch:.1f} epochs while {len(last.frozen)} layers freeze from input to "
        "output; below, the frozen share and the sign flips of each layer over time",
    )


def _benchmark(page: Page) -> None:
    path = page.run.folder.path / "bench.json"
    model = page.run.folder.path / "model.bnn"
    try:
        page.bench = bench_file.of_model(path, page.program_sha256)
    except UserError as error:
        page.missing.append(f"latency and parity: {error}")
        return
    if page.bench is None:
        page.missing.append(f"latency and parity: pipeline bench {model} --profile")
        return
    rows = bench_file.first_of_each(page.bench)
    page.engine = next((row for row in rows if row["name"].startswith("engine")), None)
    ratios = {row["name"]: row["ratio"] for row in rows if row["ratio"]}
    page.versus = [(text, ratios[name]) for name, text in PEERS if name in ratios]
    fastest = min(rows, key=lambda row: row["latency_ms"]["median"])
    best = f"{fastest['name']} with {fastest['latency_ms']['median']:.4f} milliseconds"
    _picture(
        page,
        "latencies",
        lambda: plots.latencies(rows),
        f"Bars of the median latency of {len(rows)} runtimes; the fastest is {best}",
    )
    _picture(
        page,
        "runtimes",
        lambda: plots.runtimes(rows),
        f"Latency, size and accuracy of {len(rows)} runtimes; the fastest is {best}",
    )
    steps = page.bench.get("profile", {}).get("steps", [])
    if steps:
        page.times = {step["name"]: step for step in steps}
        slowest = max(steps, key=lambda step: step["microseconds"])
        _picture(
            page,
            "profile",
            lambda: plots.profile(steps),
            f"Time of the engine's {len(steps)} steps; the longest is {slowest['name']} with "
            f"{slowest['microseconds']:.1f} microseconds",
        )
    else:
        page.missing.append(f"where the time goes: pipeline bench {model} --profile")


def _trying(page: Page) -> None:
    setting = setting_of(page.program, bench_file.engine_latency(page.bench))
    try:
        page.tried = parts(page.program, setting)
    except (ExportError, RuntimeMissing) as error:
        page.missing.append(f"a place to try the model: {error}")


def _answers(page: Page, inputs: Inputs) -> None:
    """Accuracy, confusion and mistakes over the test set, by the engine."""
    if inputs.labels is None:
        page.missing.append(f"{ANSWERS}: {inputs.remedy}")
        return
    page.notes.extend(inputs.notes)
    answers = Engine(page.program).run(inputs.images).argmax(axis=1)
    wrong = np.flatnonzero(answers != inputs.labels)
    page.accuracy = 100 * (1 - len(wrong) / len(answers))
    classes = page.program.classes
    counts = np.zeros((len(classes), len(classes)), np.int64)
    np.add.at(counts, (inputs.labels, answers), 1)
    confused = counts.copy()
    np.fill_diagonal(confused, 0)
    order = np.argsort(-confused, axis=None, kind="stable")[:WORST_PAIRS]
    for true, answer in zip(*np.unravel_index(order, confused.shape), strict=True):
        if confused[true, answer]:
            page.pairs.append((classes[true], classes[answer], int(confused[true, answer])))
    worst = f"; most often {page.pairs[0][0]} taken for {page.pairs[0][1]}" if page.pairs else ""
    _picture(
        page,
        "confusion",
        lambda: plots.confusion(counts, classes),
        f"Confusion matrix over {len(answers)} test images, {len(wrong)} of them wrong{worst}",
    )
    for index in wrong[:: max(1, len(wrong) // MISTAKES)][:MISTAKES]:
        names = classes[int(inputs.labels[index])], classes[int(answers[index])]
        page.mistakes.append(Mistake(_data_uri(inputs.images[index]), *names))


def _data_uri(pixels: NDArray[np.uint8]) -> str:
    """A PNG of uint8 ``[H, W, C]``; of other than three channels the first."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[:, :, 0]).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def plain(value: Any) -> str:
    """A value from a JSON file as a person writes it."""
    if isinstance(value, dict):
        inner = {k: f"({plain(v)})" if isinstance(v, dict) else plain(v) for k, v in value.items()}
        return ", ".join(f"{key} {text}" for key, text in inner.items())
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if value is None:
        return "not known"
    return f"{value:.4g}" if isinstance(value, float) and abs(value) < 1000 else str(value)


def interval(percent: float, images: int) -> str:
    """The 95 % interval of an accuracy over ``images``, by Wilson; "" without images."""
    from scipy.stats import binomtest

    if images == 0:
        return ""
    found = binomtest(round(percent * images / 100), images).proportion_ci(0.95, "wilson")
    return f"{100 * found.low:.1f} to {100 * found.high:.1f} %"


def _finished(value: Any) -> Any:
    """What a template shows: text through :func:`shown`; figures are marked up already."""
    return shown(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment(escaped: bool) -> Environment:
    made = Environment(
        loader=PackageLoader("frostbit.pipeline.report", "templates"),
        autoescape=escaped,
        undefined=StrictUndefined,
        finalize=_finished,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["cell"] = markdown_cell
    made.filters["plain"] = plain
    made.filters["interval"] = interval
    return made


def render(template: str, **values: Any) -> str:
    """``template`` (a file of ``pipeline/templates``) filled in; HTML is escaped."""
    made = _environment(template.endswith(".html")).get_template(template)
    return made.render(values, peer_names=plots.PEERS, base_style=Markup(base_style()))
