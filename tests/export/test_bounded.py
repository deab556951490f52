"""Small files that ask for much: each gives a summary or one line, within memory and time."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from frostbit.export import bounded
from frostbit.export.bounded import summarise_file
from frostbit.export.errors import ExportError
from frostbit.export.lce import convert as to_lce
from frostbit.export.lce.summary import summarise_tflite
from frostbit.export.onnx import packed as to_onnx
from frostbit.export.onnx.summary import summarise_onnx
from tests.export.summary_nets import mixed_net

node = helper.make_node
INT64, FLOAT = TensorProto.INT64, TensorProto.FLOAT


def row(name: str, values: Sequence[int]) -> onnx.TensorProto:
    return helper.make_tensor(name, INT64, [len(values)], values)


def model(
    nodes: Sequence[onnx.NodeProto], arrays: Sequence[onnx.TensorProto] = (), kind: int = FLOAT
) -> onnx.ModelProto:
    """A model ``x -> y`` of ``nodes``."""
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", FLOAT, [1, 3, 8, 8])],
        [helper.make_tensor_value_info("y", kind, ["any"])], arrays,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def filled() -> onnx.ModelProto:
    one = helper.make_tensor("v", INT64, [1], [1])
    nodes = [node("ConstantOfShape", ["s"], ["a"], value=one), node("Add", ["a", "a"], ["y"])]
    return model(nodes, [row("s", [2 * 10**8])], INT64)


def doubled() -> onnx.ModelProto:
    names = ["v", *(f"c{i}" for i in range(28)), "y"]
    pairs = itertools.pairwise(names)
    nodes = [node("Concat", [a, a], [b], axis=0) for a, b in pairs]
    return model(nodes, [row("v", [1, 1])], INT64)


def deepened() -> onnx.ModelProto:
    names = ["x", *(f"c{i}" for i in range(3000)), "y"]
    pairs = itertools.pairwise(names)
    return model([node("Unsqueeze", [a, "axis"], [b]) for a, b in pairs], [row("axis", [0])])


def shaped() -> onnx.ModelProto:
    """A map of 65,536 axes, passed on a thousand times."""
    nodes = [node("ConstantOfShape", ["s"], ["c0"])]
    nodes += [node("Identity", [f"c{i}"], [f"c{i + 1}"]) for i in range(1000)]
    return model([*nodes, node("Identity", ["c1000"], ["y"])], [row("s", [1] * 65536)])


def branched() -> onnx.ModelProto:
    """Branches in branches: 2 ** 12 of them."""
    out = helper.make_tensor_value_info("o", FLOAT, ["any"])
    inner = helper.make_graph([node("Identity", ["x"], ["o"])], "leaf", [], [out])
    for _ in range(12):
        choice = node("If", ["c"], ["o"], then_branch=inner, else_branch=inner)
        inner = helper.make_graph([choice], "branch", [], [out])
    yes = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    return model([node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)], [yes])


def expanded() -> onnx.ModelProto:
    nodes = [
        node("Expand", ["x", "s"], ["a"]),
        node("Resize", ["a", "", "scales"], ["b"]),
        node("Tile", ["b", "s"], ["y"]),
    ]
    scales = helper.make_tensor("scales", FLOAT, [4], [1e30, float("nan"), 1e38, -1])
    return model(nodes, [row("s", [2**31, 2**31, 2**62, 1]), scales])


def circular() -> onnx.ModelProto:
    return model([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"])])


def elsewhere() -> onnx.ModelProto:
    """Weights in a file that never ends."""
    made = model([node("Add", ["x", "w"], ["y"])])
    weights = made.graph.initializer.add(name="w", data_type=FLOAT, dims=[10**9, 10**9])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/dev/zero")
    return made


def sparse() -> onnx.ModelProto:
    made = model([node("Add", ["x", "w"], ["y"])])
    array = made.graph.sparse_initializer.add(dims=[2**62])
    array.values.CopyFrom(helper.make_tensor("w", FLOAT, [1], [1.0]))
    array.indices.CopyFrom(row("", [5]))
    return made


BOMBS: dict[str, Callable[[], onnx.ModelProto]] = {
    make.__name__: make
    for make in (
        filled, doubled, deepened, shaped, branched, expanded, circular, elsewhere, sparse,
    )
}  # fmt: skip

DRIVER = """
import json, resource, sys
from pathlib import Path
from frostbit.export.bounded import summarise_file
from frostbit.export.errors import ExportError
for name in sys.argv[1:]:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    try:
        said = summarise_file("onnx", Path(name)).format
    except ExportError as error:
        said = str(error)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps([Path(name).stem, said, seconds, after.ru_maxrss >> 10]))
"""


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, float, int]]:
    """What was said of every bomb, processor seconds, and the peak in MiB so far."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = []
    for name, make in BOMBS.items():
        paths.append(str(folder / f"{name}.onnx"))
        Path(paths[-1]).write_bytes(make().SerializeToString())
    done = subprocess.run(
        [sys.executable, "-c", DRIVER, *paths], capture_output=True, text=True, check=True
    )
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: (said, seconds, peak) for name, said, seconds, peak in rows}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_summarised_or_refused_within_its_bounds(
    read: dict[str, tuple[str, float, int]], name: str
) -> None:
    said, seconds, peak = read[name]
    refusals = ("takes more than", "not a well-formed ONNX", "axes, more than", "damaged")
    assert said == "ONNX" or any(text in said for text in refusals)
    assert "\n" not in said
    assert seconds < 2 * (bounded.SECONDS + 3)
    if sys.platform == "linux":
        assert peak < (bounded.MEMORY >> 20) + 200  # what Python and onnx take themselves


def test_bombs_that_need_no_entries_are_summarised(
    read: dict[str, tuple[str, float, int]],
) -> None:
    for name in ("filled", "doubled", "branched"):
        assert read[name][0] == "ONNX"


def test_sixty_thousand_operators(tmp_path: Path) -> None:
    names = ["x", *(f"c{i}" for i in range(59_999)), "y"]
    pairs = itertools.pairwise(names)
    made = model([node("Relu", [a], [b]) for a, b in pairs])
    made.graph.output[0].type.tensor_type.shape.CopyFrom(made.graph.input[0].type.tensor_type.shape)
    path = tmp_path / "long.onnx"
    path.write_bytes(made.SerializeToString())
    assert len(summarise_file("onnx", path).layers) == 60_000


def test_more_operators_than_any_network_has_are_refused() -> None:
    nodes = b"\x0a\x00" * ((1 << 18) + 1)
    size = len(nodes)
    length = bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14])
    with pytest.raises(ExportError, match="262,145 operators"):
        summarise_onnx(b"\x08\x08\x3a" + length + nodes)


@pytest.mark.parametrize(
    ("kind", "convert", "summarise"),
    [
        ("onnx", to_onnx.convert, summarise_onnx),
        ("tflite", to_lce.convert, summarise_tflite),
    ],
)
def test_a_summary_comes_back_as_it_was(
    kind: str, convert: Callable[..., bytes], summarise: Callable[..., object], tmp_path: Path
) -> None:
    data = convert(mixed_net())
    (tmp_path / "model").write_bytes(data)
    assert summarise_file(kind, tmp_path / "model") == summarise(data)


def test_modules_in_the_users_folder_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("json", "onnx", "numpy", "resource"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit(9)")
    (tmp_path / "model").write_bytes(to_onnx.convert(mixed_net()))
    monkeypatch.chdir(tmp_path)
    assert summarise_file("onnx", Path("model")).format == "ONNX"
