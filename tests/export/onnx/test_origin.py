"""Which ONNX files beside a model are run: those with the graph of its export."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import helper

from frostbit.export.errors import ExportError
from frostbit.export.onnx.graph import Options
from frostbit.export.onnx.origin import require_export
from frostbit.export.onnx.runtime import FORMS, QONNX, convert
from frostbit.kernels.ir.file import save_program
from frostbit.kernels.ir.program import Dense
from frostbit.pipeline.cli.main import main
from tests.nets import every_op


@pytest.mark.parametrize("form", [*FORMS, QONNX])
def test_our_exports_are_taken_with_any_weights_and_metadata(form: str) -> None:
    program = every_op()
    head = program.ops[-1]
    assert isinstance(head, Dense)
    other = dataclasses.replace(head, weights=head.weights + np.float32(0.5))
    changed = dataclasses.replace(program, ops=(*program.ops[:-1], other))
    for each in (program, changed):
        require_export(convert(each, form), program, form)
    if form != QONNX:
        options = Options(float_input=True, licence="MIT", accuracy=0.5)
        require_export(convert(program, form, options), program, form)


def _longer(model: onnx.ModelProto) -> None:
    array = next(each for each in model.graph.initializer if len(each.dims) == 2)
    array.dims[0] *= 1000


def _reshaped(model: onnx.ModelProto) -> None:
    array = next(each for each in model.graph.initializer if each.data_type == 7)
    array.raw_data = (2**40).to_bytes(8, "little") + array.raw_data[8:]


def _more(model: onnx.ModelProto) -> None:
    node = helper.make_node("ConstantOfShape", ["const/rows"], ["large"])
    model.graph.node.insert(0, node)


def _elsewhere(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def _batched(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1 << 40


@pytest.mark.parametrize("change", [_longer, _reshaped, _more, _elsewhere, _batched])
def test_a_changed_graph_is_refused(change: Callable[[onnx.ModelProto], None]) -> None:
    program = every_op()
    model = onnx.load_from_string(convert(program, "packed"))
    change(model)
    with pytest.raises(ExportError, match="another model or version, or was changed"):
        require_export(model.SerializeToString(), program, "packed")


def test_a_bomb_beside_the_model_is_not_run(tmp_path: Path) -> None:
    save_program(every_op(), tmp_path / "model.bnn")
    shape = helper.make_tensor("s", onnx.TensorProto.INT64, [1], [10**12])
    y = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["any"])
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["s"], ["y"])], "g", [], [y], [shape]
    )
    onnx.save(helper.make_model(graph, ir_version=8), tmp_path / "model.onnx")
    for command in (("verify", "--formats", "onnx"), ("bench", "--runtime", "ort")):
        name, *rest = command
        result = CliRunner().invoke(main, [name, str(tmp_path / "model.bnn"), *rest])
        assert result.exit_code == 2, result.output
        assert "export it again with --force" in result.stderr
