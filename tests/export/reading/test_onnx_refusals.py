"""ONNX files that are not read, damaged ones and hostile ones: one clear line each."""

from __future__ import annotations

import random
import re
import time
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from frostbit.export.foreign import read_file
from frostbit.export.reading.imported import Imported
from frostbit.export.reading.match import to_program
from frostbit.export.reading.onnx.read import read_graph
from frostbit.kernels.ir import reference
from frostbit.kernels.ir.program import FormatError
from tests.export.reading.foreign import FOLDER
from tests.export.reading.networks import channels_last, model, node, random_images, run

IMAGE = (1, 3, 6, 5)
WEIGHTS = {"w": np.ones((4, 3, 3, 3), np.float32), "d": np.ones((3, 2), np.float32)}
END = [node("GlobalAveragePool", "m", "g"), node("Flatten", "g", "y")]
CEILED = {"ceil_mode": 1, "count_include_pad": 1}
NODES = {
    r"Tanh 'm': this operator is not read": [node("Tanh", "x", "m")],
    r"ConvTranspose 'm': this operator": [node("ConvTranspose", "x w", "m")],
    r"Conv 'm': the attribute 'extra' is not read": [node("Conv", "x w", "m", extra=1)],
    r"Conv 'm': the attribute 'group' is of a wrong type": [node("Conv", "x w", "m", group=1.0)],
    r"Conv 'm': .*in 2 groups on 3 channels": [node("Conv", "x w", "m", group=2)],
    r"Conv 'm': auto_pad 'SAME' is not known": [node("Conv", "x w", "m", auto_pad="SAME")],
    r"Conv 'm': auto_pad VALID beside pads": [
        node("Conv", "x w", "m", auto_pad="VALID", pads=[1, 0, 0, 0])
    ],
    r"Squeeze 's': makes .* which is not read": [node("Squeeze", "x", "s"), node("Relu", "s", "m")],
    r"Pad 'm': is read with a constant only": [node("Pad", "x pads2 bad", "m")],
    r"Clip 'm': clips to nan": [node("Clip", "x bad", "m")],
    r"Conv 'm': pads .*-1": [node("Conv", "x w", "m", pads=[0, -1, 0, 0])],
    r"MaxPool 'm': storage_order": [
        node("MaxPool", "x", "m", kernel_shape=[2, 2], storage_order=1)
    ],
    r"AveragePool 'm': ceil_mode together with count_include_pad": [
        node("AveragePool", "x", "m", kernel_shape=[3, 3], strides=[2, 2], **CEILED)
    ],
    r"BatchNormalization 'm': only inference": [
        node("BatchNormalization", "x v v v v", "m", training_mode=1)
    ],
    r"BatchNormalization 'm': needs one number for each of 3": [
        node("BatchNormalization", "x d v v v", "m")
    ],
    r"Softmax 's': is read over the channels": [
        node("Softmax", "x", "s", axis=2),
        node("Relu", "s", "m"),
    ],
    r"ReduceMean 'm': over C, H is not read": [node("ReduceMean", "x axes", "m")],
    r"Transpose 'm': moves the axes to \[1, 0, 2, 3\]": [
        node("Transpose", "x", "m", perm=[1, 0, 2, 3])
    ],
    r"Reshape 'm': makes \[1, 5, 6, 3\] of \[1, 3, 6, 5\] \(NCHW\)": [node("Reshape", "x to", "m")],
    r"Slice 'm': is read of channels in a row": [node("Slice", "x one two two", "m")],
    r"Mul 'm': a constant \[7\] on a map": [node("Mul", "x seven", "m")],
    r"Mul 'm': a constant holds NaN": [node("Mul", "x bad", "m")],
    r"Add 'm': joins maps": [node("GlobalAveragePool", "x", "p"), node("Add", "x p", "m")],
    r"Cast 'c': to another type": [node("Cast", "x", "c", to=7), node("Cast", "c", "m", to=1)],
    r"Where 'm': this operator is not read": [
        node("Greater", "x zero", "b"),
        node("Where", "b x zero", "m"),
    ],
    r"Quant 'm': with a zero point": [
        node("Quant", "x step one1 bits", "m", signed=1, narrow=0, rounding_mode="ROUND")
    ],
    r"Quant 'm': the rounding FLOOR": [
        node("Quant", "x step zero bits", "m", signed=1, narrow=0, rounding_mode="FLOOR")
    ],
    r"Quant 'm': signed 1, narrow 0, rounding b'ODD'": [
        node("Quant", "x step zero bits", "m", signed=1, narrow=0, rounding_mode="ODD")
    ],
    r"Quant 'm': one scale for each channel": [
        node("Quant", "x steps zero bits", "m", signed=1, narrow=0, rounding_mode="ROUND")
    ],
    r"Quant 'm': the bit width": [
        node("Quant", "x step zero seven", "m", signed=1, narrow=0, rounding_mode="ROUND")
    ],
    r"FloatQuant 'm': this operator is not read": [node("FloatQuant", "x step", "m")],
    r"MatMul 'm': weights \[3, 2\] on a map \[1, 3, 6, 5\] \(NCHW\)": [
        node("Conv", "x k", "c"),
        node("MatMul", "c d", "m"),
    ],
    r"RandomNormal 'r': of constants alone is not read": [
        node("RandomNormal", "", "r", shape=[1, 3, 6, 5]),
        node("Add", "x r", "m"),
    ],
    r"ConstantOfShape 'r': the constants are far more than the file holds": [
        node("ConstantOfShape", "huge", "r"),
        node("ReduceMax", "r", "q", keepdims=0),
        node("Mul", "x q", "m"),
    ],
    r"Expand 'r': the constants are far more": [
        node("Expand", "zero huge", "r"),
        node("ReduceMax", "r", "q", keepdims=0),
        node("Mul", "x q", "m"),
    ],
    r"Tile 'r': the constants are far more": [
        node("Tile", "zero1 huge1", "r"),
        node("ReduceMax", "r", "q", keepdims=0),
        node("Mul", "x q", "m"),
    ],
    r"Pad 'm': a map of .* is impossible or too large": [node("Pad", "x pads", "m")],
    r"Reshape 'm': input 1 is computed": [node("Reshape", "x x", "m")],
    r"does not depend on the input": [node("Add", "w w", "y")],
}
ARRAYS = {
    **WEIGHTS, "k": np.ones((3, 3, 1, 1), np.float32), "v": np.ones(3, np.float32),
    "axes": [1, 2], "pads2": [0] * 8, "to": [1, 5, 6, 3], "one": [1],
    "two": [2], "seven": np.ones(7, np.float32), "bad": np.float32(np.nan), "zero": 0.0,
    "step": 0.5, "steps": np.array([0.5, 1.0, 2.0], np.float32).reshape(3, 1, 1), "one1": 1.0,
    "bits": 4.0, "huge": [1 << 40, 1 << 40], "zero1": np.zeros(1, np.float32), "huge1": [1 << 62],
    "pads": [0, 0, 1 << 16, 1 << 16, 0, 0, 1 << 16, 1 << 16],
}  # fmt: skip


def refusal(data: bytes, folder: Path | None = None) -> str:
    """The line with which a file is refused."""
    with pytest.raises(FormatError) as caught:
        to_program(read_graph(data, folder).graph)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 300
    return text


@pytest.mark.parametrize("line", NODES)
def test_operators_that_are_not_read(line: str) -> None:
    nodes = NODES[line] if "depend" in line else [*NODES[line], *END]
    assert re.search(line, refusal(model(nodes, ARRAYS, IMAGE).SerializeToString()))


def changed(name: str) -> onnx.ModelProto:
    """A small network, wrong in one way."""
    proto = model([node("Conv", "x w", "m"), *END], WEIGHTS, IMAGE)
    graph = proto.graph
    match name:
        case "two inputs":
            graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
        case "two outputs":
            graph.output.append(helper.make_tensor_value_info("m", TensorProto.FLOAT, None))
        case "half":
            graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        case "pixels":
            graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
        case "open size":
            graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
        case "sequence":
            del graph.input[0].type.tensor_type.shape.dim[1:]
        case "many":
            graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1025
        case "cycle":
            graph.node[0].input[0] = "y"
        case "twice":
            graph.node[1].output[0] = "m"
        case "old":
            proto.opset_import[0].version = 6
        case "new":
            proto.opset_import[0].version = 99
        case "custom":
            graph.node[0].domain = "com.example"
        case "function":
            proto.functions.append(
                helper.make_function("com.example", "F", ["a"], ["b"], [node("Relu", "a", "b")], [])
            )
        case "loop":
            inner = helper.make_graph([node("Relu", "x", "z")], "inner", [], [])
            graph.node[0].attribute.append(helper.make_attribute("body", inner))
        case "sparse":
            graph.sparse_initializer.append(onnx.SparseTensorProto())
        case "short":
            graph.initializer[0].raw_data = b"1234"
        case "negative":
            graph.initializer[0].dims[0] = -4
        case "strings":
            graph.initializer[0].data_type = TensorProto.STRING
        case "no output":
            graph.output[0].name = "nowhere"
    return proto


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("two inputs", r"has 2 inputs \('x', 'more'\); one is needed"),
        ("two outputs", r"has 2 outputs \('y', 'm'\)"),
        ("half", "the input 'x' is of type FLOAT16"),
        ("pixels", "Conv 'm': of type UINT8 is not read: a Cast to FLOAT comes first"),
        ("open size", r"the input 'x' is \[1, 3, '\?', 5\]: an image of a fixed size"),
        ("sequence", r"the input 'x' is \[1\]"),
        ("many", r"the input 'x' is \[1025, 3, 6, 5\], which is too large"),
        ("cycle", r"Conv 'm': reads 'y', which nothing before it computes \(.*cycle"),
        ("twice", "GlobalAveragePool 'g': gives 'm', which is there already"),
        ("old", "is of ONNX operator set 6; 7 to"),
        ("new", "is of ONNX operator set 99"),
        ("custom", "Conv 'm': operators of 'com.example' are not known"),
        ("function", "defines the function 'F'"),
        ("loop", "Conv 'm': branches and loops"),
        ("sparse", "sparse arrays"),
        ("short", "Conv 'm': the data of 'w' do not fit its shape"),
        ("negative", "the array 'w' has an impossible shape"),
        ("strings", "holds no numbers"),
        ("no output", "the output 'nowhere' is not computed"),
    ],
)
def test_files_that_are_not_read(name: str, line: str) -> None:
    assert re.search(line, refusal(changed(name).SerializeToString()))


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for data in (b"", b"PK\x03\x04 a zip", (FOLDER / "bits_one.tflite").read_bytes()):
        path.write_bytes(data)
        with pytest.raises(FormatError, match=r"model\.onnx: not an ONNX file"):
            read_file(path)


def external(folder: Path, location: str, **where: int) -> bytes:
    """A network whose weights lie in another file."""
    proto = model([node("Conv", "x w", "m"), *END], WEIGHTS, IMAGE)
    tensor = proto.graph.initializer[0]
    (folder / "inside.data").write_bytes(bytes(8) + tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **where}.items():
        tensor.external_data.add(key=key, value=str(value))
    return proto.SerializeToString()


def test_external_data_beside_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(4 * 108))
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    data = external(folder, "inside.data", offset=8, length=4 * 108)
    proto = model([node("Conv", "x w", "m"), *END], WEIGHTS, IMAGE)
    images = random_images(proto)
    got = reference.run(to_program(read_graph(data, folder).graph).program, channels_last(images))
    assert np.abs(got - run(proto, images)).max() < 1e-5
    for location in ("../outside.data", str(tmp_path / "outside.data"), "link.data"):
        text = refusal(external(folder, location), folder)
        assert "lie outside the folder of the file" in text
    assert "are not there" in refusal(external(folder, "absent.data"), folder)
    assert "lie outside" in refusal(external(folder, "."), folder)
    assert "without the folder" in refusal(data)
    for where in ({"offset": 12}, {"offset": -1}, {"offset": 8, "length": 7}, {"offset": 1 << 62}):
        refusal(external(folder, "inside.data", **where), folder)


def test_external_data_inside_a_node(tmp_path: Path) -> None:
    """The evaluator of constants would open any file that such an attribute names."""
    tensor = numpy_helper.from_array(np.zeros(1, np.float32))
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/hostname")
    nodes = [
        node("ConstantOfShape", "one", "r", value=tensor),
        node("Mul", "x r", "m"),
        *END,
    ]
    assert "is kept in another file" in refusal(model(nodes, ARRAYS, IMAGE).SerializeToString())
    nodes[0] = node("Constant", "", "r", value=tensor)
    assert "lie outside" in refusal(model(nodes, ARRAYS, IMAGE).SerializeToString(), tmp_path)


def test_damaged_files_are_refused_or_read_the_same() -> None:
    """Bytes changed or cut off; what is still read must be what ONNX Runtime computes."""
    weights = {
        "w": np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32),
        "b": (0.5 * np.random.default_rng(1).choice([-1, 1], (4, 4, 2, 2))).astype(np.float32),
        "zero": 0.0, "up": 1.0, "down": -1.0, "rest": [0, -1],
    }  # fmt: skip
    nodes = [
        node("Conv", "x w", "h", pads=[1, 1, 1, 1]),
        node("GreaterOrEqual", "h zero", "c"),
        node("Where", "c up down", "s"),
        node("Conv", "s b", "m"),
        node("GlobalAveragePool", "m", "g"),
        node("Reshape", "g rest", "y"),
    ]
    proto = model(nodes, weights, IMAGE)
    data, images = proto.SerializeToString(), random_images(proto, 1)
    choose, read = random.Random(0), 0
    tracemalloc.start()
    began = time.process_time()
    for _ in range(200):
        damaged = mutated(data, choose)
        found = read_or_refused(damaged)
        if found is None:
            continue
        read += 1
        if found.program.input_shape != (6, 5, 3):
            continue
        got = reference.run(found.program, channels_last(images))
        wanted = run(onnx.ModelProto.FromString(damaged), images)
        assert np.allclose(got, wanted, rtol=1e-4, atol=1e-4 * np.abs(wanted).max(), equal_nan=True)
    assert 20 < read < 180
    assert time.process_time() - began < 60
    assert tracemalloc.get_traced_memory()[1] < 1 << 27
    tracemalloc.stop()


def read_or_refused(data: bytes) -> Imported | None:
    try:
        return to_program(read_graph(data).graph)
    except FormatError:
        refusal(data)
        return None


def mutated(data: bytes, choose: random.Random) -> bytes:
    """``data`` with one to four bytes changed, some put in, or the end cut off."""
    changed = bytearray(data)
    for _ in range(choose.randint(1, 4)):
        place = choose.randrange(len(changed))
        match choose.randrange(4):
            case 0:
                changed[place] = choose.randrange(256)
            case 1:
                changed[place] ^= 1 << choose.randrange(8)
            case 2:
                changed[place:place] = choose.randbytes(choose.randint(1, 8))
            case 3:
                del changed[place : place + choose.randint(1, 8)]
    if choose.random() < 0.1:
        del changed[choose.randrange(len(changed)) :]
    return bytes(changed)
