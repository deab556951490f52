"""Makes the files of larq's networks: ``python -m tests.zoo.make_larq FOLDER NAME...``.

Run by the environment of ``requirements.txt``. Writes ``NAME.tflite`` by LCE's official converter
and ``NAME.npz`` (:func:`tests.zoo.made.save`).
"""

from __future__ import annotations

import sys
from pathlib import Path

import larq_compute_engine
import larq_zoo
import numpy as np
import tensorflow as tf
from larq_compute_engine.tflite.python.interpreter import Interpreter

from tests.zoo.images import images
from tests.zoo.keras_models import BUILDERS
from tests.zoo.made import save
from tests.zoo.networks import Network, chosen

PER_PACKAGE = ("larq", "larq-zoo", "larq-compute-engine", "tensorflow-cpu")
CALIBRATION = 4
"""Images of which the statistics are taken."""


def build(network: Network) -> tf.keras.Model:
    """The Keras model with random weights; nothing is fetched."""
    tf.keras.utils.set_random_seed(network.seed)
    if network.maker != "larq_zoo":
        return BUILDERS[network.builder](network.shape)
    home = larq_zoo.sota if network.builder.startswith("QuickNet") else larq_zoo.literature
    return getattr(home, network.builder)(weights=None)


def randomise(model: tf.keras.Model, network: Network) -> None:
    """Random scales, shifts, slopes and biases, and statistics near those of random images.

    Statistics that have nothing to do with the sums would leave most channels constant.
    """
    rng = np.random.default_rng(network.seed)
    norms = [
        layer for layer in model.layers if isinstance(layer, tf.keras.layers.BatchNormalization)
    ]
    for layer in model.layers:
        for variable in layer.trainable_weights:
            name, size = variable.name.rpartition("/")[2], variable.shape
            if name.startswith("gamma"):
                sign = rng.choice([-1.0, 1.0], size, p=[0.15, 0.85])
                variable.assign(sign * rng.uniform(0.5, 1.5, size))
            elif name.startswith(("beta", "bias")):
                variable.assign(rng.normal(0, 0.3, size))
            elif name.startswith("alpha"):
                variable.assign(rng.uniform(-0.2, 0.6, size))
    for layer in norms:
        layer.momentum = 0.0
    model(images(network.seed + 1, CALIBRATION, network.shape, network.low, network.high), True)
    for layer in norms:
        mean, variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
        layer.moving_mean.assign(mean + rng.normal(0, 0.3, mean.shape) * np.sqrt(variance))
        layer.moving_variance.assign(variance * rng.uniform(0.5, 2, mean.shape) + 1e-3)


def convert(model: tf.keras.Model, network: Network) -> bytes:
    """The file, by the official converter."""
    options = {"experimental_default_int8_range": (-3.0, 3.0)} if network.maker == "int8" else {}
    return bytes(larq_compute_engine.convert_keras_model(model, **options))


def make(network: Network, folder: Path) -> None:
    """Build, randomise, convert and run one network."""
    tf.keras.backend.clear_session()
    model = build(network)
    randomise(model, network)
    x = images(network.seed, network.images, network.shape, network.low, network.high)
    keras = np.concatenate([model(row[np.newaxis]).numpy() for row in x])
    data = convert(model, network)
    interpreter = Interpreter(data, num_threads=1)
    output = np.concatenate([interpreter.predict(row[np.newaxis]) for row in x])
    (folder / network.file).write_bytes(data)
    save(folder, network, PER_PACKAGE, {"input": x, "output": output, "keras": keras})


def main(folder: str, *names: str) -> None:
    """Make the networks of these names."""
    for network in chosen(names):
        make(network, Path(folder))
        print(network.name, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
