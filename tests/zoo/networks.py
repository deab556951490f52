"""The list of the zoo: which networks, in which package, with which seed.

Only the standard library is used: each environment reads this list.
"""

from __future__ import annotations

from dataclasses import dataclass

IMAGENET = (224, 224, 3)
CIFAR = (32, 32, 3)
MNIST = (28, 28, 1)


@dataclass(frozen=True)
class Network:
    """One network with random weights.

    Attributes:
        name: also the name of its files.
        maker: ``larq_zoo`` (LCE's converter), ``keras`` (:mod:`tests.zoo.keras_models`, the same
            converter), ``int8`` (the same, with LCE's 8-bit option) or ``brevitas`` (QONNX).
        builder: the function that builds it there.
        shape: of one input, height, width and channels.
        seed: of weights, statistics and inputs.
        low: least value of an input.
        high: greatest value of an input.
        images: inputs on which it is compared.
        refused: part of the message where reading is refused, else empty.
    """

    name: str
    maker: str
    builder: str
    shape: tuple[int, int, int]
    seed: int
    low: float = -1.0
    high: float = 1.0
    images: int = 4
    refused: str = ""

    @property
    def file(self) -> str:
        """Name of the file that the maker's own exporter writes."""
        return f"{self.name}.onnx" if self.maker == "brevitas" else f"{self.name}.tflite"


ZOO = (
    "QuickNetSmall", "QuickNet", "QuickNetLarge", "BiRealNet", "BinaryResNetE18", "BinaryAlexNet",
    "RealToBinaryNet", "MeliusNet22", "BinaryDenseNet28", "XNORNet",
)  # fmt: skip
SMALL = {
    "mnist_tutorial": MNIST,
    "cifar_tutorial": CIFAR,
    "separable": CIFAR,
    "xnor_style": (40, 40, 3),
    "relu_family": CIFAR,
    "prelu_and_leaky": CIFAR,
    "bit_outputs": (30, 30, 3),
    "valid_and_same": (33, 33, 3),
    "strides": (31, 31, 3),
    "dilated": CIFAR,
    "binary_heads": (16, 16, 3),
    "not_square": (24, 40, 3),
    "odd_channels": (20, 20, 3),
    "squeeze_excite": CIFAR,
    "dense_and_pools": CIFAR,
}
PYNQ = {"tfc_1w1a": MNIST, "sfc_1w1a": MNIST, "lfc_1w1a": MNIST, "cnv_1w1a": CIFAR}


def _numbered(
    maker: str, shapes: dict[str, tuple[int, int, int]], seed: int, low: float, images: int
) -> tuple[Network, ...]:
    return tuple(
        Network(name, maker, name, shape, seed + i, low, images=images)
        for i, (name, shape) in enumerate(shapes.items())
    )


NETWORKS = (
    *_numbered("larq_zoo", dict.fromkeys(ZOO, IMAGENET), 2100, -1.0, 4),
    *_numbered("keras", SMALL, 3100, -1.0, 8),
    Network("pixels", "keras", "pixels", CIFAR, 3115, 0.0, 255.0, images=8),
    *_numbered("brevitas", PYNQ, 4100, 0.0, 8),
    Network("relu_family_int8", "int8", "relu_family", CIFAR, 5100, images=8, refused="QUANTIZE"),
)
"""All networks, the ones whose graphs are whole numbers last."""


def chosen(names: tuple[str, ...]) -> tuple[Network, ...]:
    """The networks of these names, or all where there is none; KeyError for an unknown name."""
    known = {network.name: network for network in NETWORKS}
    return tuple(known[name] for name in names) if names else NETWORKS
