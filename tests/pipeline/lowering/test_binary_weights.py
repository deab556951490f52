"""Networks with binary weights and real activations: trained, packed, equal on every runtime."""

from pathlib import Path

import numpy as np
import pytest

from frostbit.export.lce.runtime import LceRuntime
from frostbit.export.onnx.runtime import OrtRuntime
from frostbit.export.parity import REAL_TOLERANCE, compare
from frostbit.export.runtimes import EngineRuntime
from frostbit.kernels.ir.file import dumps, loads
from frostbit.kernels.ir.program import BinaryConv
from frostbit.kernels.ir.verify import infer_types
from frostbit.pipeline.data import datasets
from frostbit.pipeline.lowering.pack import load_settled, pack
from frostbit.pipeline.lowering.settled_runtime import TorchRuntime
from frostbit.pipeline.run import recipe
from frostbit.pipeline.training.train import train
from tests.export.lce.lce_fixture import require_lce


@pytest.mark.parametrize("model", ["bireal-2", "plain-2", "mlp-2"])
def test_they_train_pack_and_run(tmp_path: Path, model: str) -> None:
    """No sign bits; logits agree within the tolerance of real sums."""
    require_lce()
    changes = {"epochs": 1, "width": 8, "model": model, "batch": 100, "warmup": 0.1}
    result = train(recipe.load("digits", {**changes, "binarize": "weights"}), tmp_path / "run")
    assert result.unfrozen == {}
    assert result.test_after == pytest.approx(result.test_before, abs=0.5)

    program = pack(tmp_path / "run")
    types = infer_types(program)
    binary = [op for op in program.ops if isinstance(op, BinaryConv)]
    assert [types[op.inputs[0]].kind for op in binary] == ["f32", "f32"]
    stored = dumps(program)
    assert dumps(loads(stored)) == stored

    settled = load_settled(tmp_path / "run")
    runtimes = [
        EngineRuntime(program),
        *(OrtRuntime(program, form=form) for form in ("packed", "int8", "float")),
        LceRuntime(program),
        TorchRuntime(settled, (1, 8, 8)),
    ]
    images = datasets.load("digits").test.images[:50]
    report = compare(program, runtimes, images)
    runtimes[-2].close()
    assert not report.has_signs
    assert report.passed
    assert len(np.unique(EngineRuntime(program).logits(images))) > 100
    worst = max(each.logits_max_rel_diff for each in report.comparisons)
    assert worst < REAL_TOLERANCE / 10
