"""The shipped model fashion-best.bnn: it is what its record and the pages say."""

import json

from frostbit.kernels import load
from frostbit.kernels.ir.file import load_program, program_hash
from frostbit.kernels.ir.verify import infer_types
from frostbit.pipeline.data.inputs import Place, inputs_for
from tests import ROOT
from tests.needs import need_fashion

RECORDS = ROOT / "pipeline" / "records"
MODEL = RECORDS / "fashion-best.bnn"
RECORD = json.loads((RECORDS / "2026-11-24-fashion-best.json").read_text())


def test_the_shipped_model_reaches_the_accuracy_of_its_record() -> None:
    engine = load(MODEL)
    assert MODEL.stat().st_size == RECORD["bytes"] < 200_000
    assert program_hash(engine.program) == RECORD["program_sha256"]
    need_fashion()
    inputs = inputs_for(engine.program, Place(), 0)
    assert inputs.labels is not None, inputs.remedy
    right = (engine.run(inputs.images).argmax(axis=1) == inputs.labels).mean()
    best = next(run for run in RECORD["runs"] if run["method"] == "stompp-ste")
    assert round(100 * float(right), 2) == best["test_accuracy"]
    assert best["parameters"] < 500_000


def test_the_figures_show_the_record() -> None:
    text = (ROOT / "docs" / "figures.md").read_text()
    for run in RECORD["runs"]:
        assert f"{run['test_accuracy']:.2f} %" in text


def test_its_verification_covers_every_runtime() -> None:
    found = json.loads((RECORDS / "2026-11-24-fashion-best-verify.json").read_text())
    names = {each["name"].partition(":")[0] for each in found["runtimes"]}
    assert names == {"reference", "engine", "ort", "lce", "c", "torch"}
    assert (found["images"], found["passed"]) == (10_000, True)
    program = load_program(MODEL)
    shapes = [v.shape for v in infer_types(program).values() if v.kind == "bits"]
    count = 10_000 * sum(h * w * c for h, w, c in shapes)
    assert count == 799_680_000
    for each in found["runtimes"]:
        assert each["sign_bits_compared"] == count
        assert each["sign_bits_differing"] == each["logits_max_abs_diff"] == 0
        best = next(run for run in RECORD["runs"] if run["method"] == "stompp-ste")
        assert round(each["accuracy"], 2) == best["test_accuracy"]
