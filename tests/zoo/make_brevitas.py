"""Makes the files of Brevitas' networks: ``python -m tests.zoo.make_brevitas FOLDER NAME...``.

Run by this checkout's own environment with the packages of ``requirements-brevitas.txt`` beside it.
Writes ``NAME.onnx`` (QONNX, by Brevitas' exporter) and ``NAME.npz``; maps are ``[N, C, H, W]``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import torch
from brevitas.export import export_qonnx
from brevitas_examples.bnn_pynq.models import model_with_cfg
from brevitas_examples.bnn_pynq.models.tensor_norm import TensorNorm
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.core.onnx_exec import execute_onnx
from qonnx.transformation.infer_shapes import InferShapes
from torch import nn

from tests.zoo.images import images
from tests.zoo.made import save
from tests.zoo.networks import Network, chosen

PACKAGES = ("brevitas", "qonnx", "onnx", "onnxoptimizer", "torch")
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, TensorNorm)
CALIBRATION = 16
"""Images of which the statistics are taken."""


def inputs(network: Network, seed: int, number: int) -> torch.Tensor:
    """Images ``[N, C, H, W]`` float32."""
    rows = images(seed, number, network.shape, network.low, network.high)
    return torch.from_numpy(np.ascontiguousarray(rows.transpose(0, 3, 1, 2)))


def build(network: Network) -> nn.Module:
    """The network with random weights, scales and shifts, and statistics near those of images."""
    torch.manual_seed(network.seed)
    model, _ = model_with_cfg(network.builder, False)
    norms = [module.train() for module in model.eval().modules() if isinstance(module, NORMS)]
    for norm in norms:
        norm.momentum = 1.0
        signs = torch.where(torch.rand_like(norm.weight) < 0.15, -1.0, 1.0)
        norm.weight.data = signs * (0.5 + torch.rand_like(norm.weight))
        norm.bias.data = 0.3 * torch.randn_like(norm.bias)
    with torch.no_grad():
        model(inputs(network, network.seed + 1, CALIBRATION))
    for norm in norms:
        mean, variance = norm.running_mean, norm.running_var
        norm.running_mean = mean + 0.3 * torch.randn_like(mean) * variance.sqrt()
        norm.running_var = variance * (0.5 + 1.5 * torch.rand_like(variance)) + 1e-3
    return model.eval()


def run_qonnx(path: Path, x: torch.Tensor) -> np.ndarray:
    """The exported file's answers in qonnx's own executor, one image at a time."""
    model = ModelWrapper(str(path)).transform(InferShapes())
    name, result = model.graph.input[0].name, model.graph.output[0].name
    return np.concatenate([execute_onnx(model, {name: row[None].numpy()})[result] for row in x])


def make(network: Network, folder: Path) -> None:
    """Build, export and run one network."""
    model = build(network)
    x = inputs(network, network.seed, network.images)
    path = folder / network.file
    export_qonnx(model, args=x[:1], export_path=str(path))
    onnx.save(onnx.load(path), path)  # one file: the exporter leaves constants beside it
    path.with_name(path.name + ".data").unlink(missing_ok=True)
    with torch.no_grad():
        own = torch.cat([model(row[None]) for row in x]).numpy()
    output = run_qonnx(path, x)
    save(folder, network, PACKAGES, {"input": x.numpy(), "output": output, "torch": own})


def main(folder: str, *names: str) -> None:
    """Make the networks of these names."""
    torch.set_num_threads(1)
    for network in chosen(names):
        make(network, Path(folder))
        print(network.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
