"""Small Keras models of what people write with larq; each function is one, by its input's shape.

Run by the environment that has larq and TensorFlow (``requirements.txt``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import larq
import tensorflow as tf

Shape = tuple[int, int, int]
Tensor = tf.Tensor
Builder = TypeVar("Builder", bound=Callable[[Shape], tf.keras.Model])
layers = tf.keras.layers
BUILDERS: dict[str, Callable[[Shape], tf.keras.Model]] = {}
BINARY = {
    "input_quantizer": "ste_sign",
    "kernel_quantizer": "ste_sign",
    "kernel_constraint": "weight_clip",
    "use_bias": False,
}


def builder(function: Builder) -> Builder:
    """List the function under its name."""
    BUILDERS[function.__name__] = function
    return function


def stem(x: Tensor, channels: int, size: int = 3, strides: int = 1) -> Tensor:
    """A convolution with 32-bit weights, and BatchNorm."""
    x = layers.Conv2D(channels, size, strides=strides, padding="same", use_bias=False)(x)
    return layers.BatchNormalization()(x)


def binary(x: Tensor, channels: int, size: int | tuple[int, int] = 3, **options: object) -> Tensor:
    """A binary convolution and BatchNorm; ``same`` unless said otherwise."""
    chosen = {"padding": "same", **BINARY, **options}
    x = larq.layers.QuantConv2D(channels, size, **chosen)(x)
    return layers.BatchNormalization()(x)


def head(x: Tensor, softmax: bool = True) -> Tensor:
    """Mean over the map and ten classes."""
    x = layers.Dense(10)(layers.GlobalAveragePooling2D()(x))
    return layers.Softmax()(x) if softmax else x


@builder
def mnist_tutorial(shape: Shape) -> tf.keras.Model:
    """The network of larq's first tutorial."""
    x = inputs = layers.Input(shape)
    first = {**BINARY, "input_quantizer": None}
    for index, channels in enumerate((32, 64, 64)):
        options = BINARY if index else first
        x = larq.layers.QuantConv2D(channels, 3, **options)(x)
        if index < 2:
            x = layers.MaxPooling2D(2)(x)
        x = layers.BatchNormalization(scale=False)(x)
    x = layers.Flatten()(x)
    for units in (64, 10):
        x = layers.BatchNormalization(scale=False)(larq.layers.QuantDense(units, **BINARY)(x))
    return tf.keras.Model(inputs, layers.Activation("softmax")(x))


@builder
def cifar_tutorial(shape: Shape) -> tf.keras.Model:
    """BinaryNet, as larq's second tutorial has it."""
    x = inputs = layers.Input(shape)
    for index, channels in enumerate((128, 128, 256, 256, 512, 512)):
        options = BINARY if index else {**BINARY, "input_quantizer": None}
        x = larq.layers.QuantConv2D(channels, 3, padding="same", **options)(x)
        if index % 2:
            x = layers.MaxPooling2D(2, strides=2)(x)
        x = layers.BatchNormalization(momentum=0.999, scale=False)(x)
    x = layers.Flatten()(x)
    for units in (1024, 1024, 10):
        x = larq.layers.QuantDense(units, **BINARY)(x)
        x = layers.BatchNormalization(momentum=0.999, scale=False)(x)
    return tf.keras.Model(inputs, layers.Activation("softmax")(x))


@builder
def separable(shape: Shape) -> tf.keras.Model:
    """Depthwise and pointwise binary convolutions, the pointwise ones also by themselves."""
    x = inputs = layers.Input(shape)
    x = stem(x, 48)
    quantizers = {"depthwise_quantizer": "ste_sign", "pointwise_quantizer": "ste_sign"}
    for strides in (1, 2):
        y = larq.layers.QuantSeparableConv2D(
            48, 3, strides=strides, padding="same", input_quantizer="ste_sign", use_bias=False,
            **quantizers,
        )(x)  # fmt: skip
        y = layers.BatchNormalization()(y)
        x = layers.LeakyReLU(0.2)(y)
    x = larq.layers.QuantDepthwiseConv2D(
        3, padding="same", input_quantizer="ste_sign", depthwise_quantizer="ste_sign"
    )(x)
    x = layers.BatchNormalization()(x)
    x = binary(x, 80, 1)
    return tf.keras.Model(inputs, head(x, softmax=False))


@builder
def xnor_style(shape: Shape) -> tf.keras.Model:
    """A scale for each filter, taken from its weights; pools of bits."""
    x = inputs = layers.Input(shape)
    x = layers.Activation("relu")(stem(x, 32, 5, 2))
    x = layers.BatchNormalization(scale=False)(layers.MaxPool2D(3, strides=2)(x))
    scaled = {"kernel_quantizer": "magnitude_aware_sign"}
    x = binary(x, 64, 5, **scaled)
    x = layers.MaxPool2D(2)(larq.quantizers.SteSign()(x))
    x = larq.layers.QuantConv2D(96, 3, padding="same", **{**BINARY, **scaled})(x)
    x = layers.BatchNormalization(scale=False)(x)
    x = binary(x, 128, 4, padding="valid", **scaled)
    x = layers.Activation("relu")(binary(x, 64, 1, **scaled))
    x = layers.Dense(10, use_bias=False)(layers.Flatten()(x))
    return tf.keras.Model(inputs, layers.Softmax()(x))


@builder
def relu_family(shape: Shape) -> tf.keras.Model:
    """Activations that the converter fuses into what stands before them."""
    x = inputs = layers.Input(shape)
    x = layers.ReLU(6.0)(stem(x, 32))
    for activation in ("relu", tf.nn.relu6, "hard_tanh"):
        y = binary(x, 32, pad_values=1.0, activation=activation)
        x = layers.add([x, y])
    x = layers.ReLU(6.0)(layers.Conv2D(64, 3, strides=2, padding="same")(x))
    x = layers.ReLU()(layers.add([binary(x, 64), x]))
    x = layers.ReLU(6.0)(layers.DepthwiseConv2D(3, padding="same")(x))
    x = layers.Dense(24, activation="relu")(layers.GlobalAveragePooling2D()(x))
    return tf.keras.Model(inputs, layers.Dense(10)(x))


@builder
def prelu_and_leaky(shape: Shape) -> tf.keras.Model:
    """Slopes: one for each channel, one for all, one for each pixel."""
    x = inputs = layers.Input(shape)
    x = layers.PReLU(shared_axes=[1, 2])(stem(x, 32, 3, 2))
    x = layers.add([x, layers.PReLU(shared_axes=[1, 2])(binary(x, 32))])
    x = layers.add([x, layers.LeakyReLU(0.1)(binary(x, 32, pad_values=1.0))])
    x = layers.PReLU(shared_axes=[1, 2])(layers.AveragePooling2D(2)(x))
    x = layers.LeakyReLU(0.3)(binary(x, 64))
    return tf.keras.Model(inputs, head(x))


@builder
def bit_outputs(shape: Shape) -> tf.keras.Model:
    """Binary convolutions whose only reader is the next: the converter keeps thresholds."""
    x = inputs = layers.Input(shape)
    x = stem(x, 40, 3, 2)
    x = binary(x, 64, pad_values=1.0)
    x = binary(x, 96, pad_values=1.0, strides=2)
    x = binary(x, 70, 1)
    x = binary(x, 70, padding="valid")
    x = binary(x, 50, 2, padding="valid")
    return tf.keras.Model(inputs, head(x, softmax=False))


@builder
def valid_and_same(shape: Shape) -> tf.keras.Model:
    """Every border: none, zeros and ones, under odd and even windows."""
    x = inputs = layers.Input(shape)
    x = layers.BatchNormalization()(layers.Conv2D(32, 4, use_bias=False)(x))
    for size, options in (
        (3, {"padding": "valid"}),
        (2, {}),
        (5, {"pad_values": 1.0}),
        (4, {"pad_values": 1.0}),
        ((1, 3), {}),
        ((3, 2), {"padding": "valid"}),
    ):
        x = binary(x, 32, size, **options)
        x = layers.ReLU()(x)
        x = layers.BatchNormalization()(x)
    return tf.keras.Model(inputs, head(x))


@builder
def strides(shape: Shape) -> tf.keras.Model:
    """Steps of 2 over odd and even maps, borders of zeros and of ones, pools beside."""
    x = inputs = layers.Input(shape)
    x = stem(x, 32)
    for channels, ones in ((64, 0.0), (96, 1.0), (128, 0.0)):
        y = binary(x, channels, strides=2, pad_values=ones)
        pool = layers.AveragePooling2D(2, padding="same")(x)
        pool = layers.Conv2D(channels, 1, use_bias=False)(pool)
        x = layers.add([y, layers.BatchNormalization()(pool)])
    x = layers.MaxPool2D(3, strides=2, padding="same")(x)
    return tf.keras.Model(inputs, head(x))


@builder
def dilated(shape: Shape) -> tf.keras.Model:
    """Windows with gaps, and a step that differs by side."""
    x = inputs = layers.Input(shape)
    x = stem(x, 32)
    for options in (
        {"dilation_rate": 2},
        {"dilation_rate": 3, "pad_values": 1.0},
        {"dilation_rate": (2, 1), "padding": "valid"},
    ):
        x = layers.BatchNormalization()(layers.ReLU()(binary(x, 32, **options)))
    return tf.keras.Model(inputs, head(x))


@builder
def binary_heads(shape: Shape) -> tf.keras.Model:
    """Dense layers of one bit, wide and narrow, the last one with a bias."""
    x = inputs = layers.Input(shape)
    x = stem(x, 24, 3, 2)
    x = layers.BatchNormalization()(layers.Flatten()(binary(x, 24)))
    for units in (200, 33):
        x = layers.BatchNormalization()(larq.layers.QuantDense(units, **BINARY)(x))
    x = larq.layers.QuantDense(7, **{**BINARY, "use_bias": True})(x)
    return tf.keras.Model(inputs, x)


@builder
def not_square(shape: Shape) -> tf.keras.Model:
    """Height and width differ, and so do window and step."""
    x = inputs = layers.Input(shape)
    x = stem(x, 32, (3, 5), (1, 2))
    x = layers.add([x, binary(x, 32, (5, 3), pad_values=1.0)])
    x = binary(x, 64, (3, 1), strides=(2, 2))
    x = layers.AveragePooling2D((3, 2))(x)
    x = binary(x, 64)
    return tf.keras.Model(inputs, layers.Dense(5)(layers.Flatten()(x)))


@builder
def odd_channels(shape: Shape) -> tf.keras.Model:
    """Numbers of channels that fill no word."""
    x = inputs = layers.Input(shape)
    x = stem(x, 7)
    for channels, options in ((33, {}), (50, {"pad_values": 1.0}), (3, {}), (65, {"strides": 2})):
        x = layers.BatchNormalization()(layers.ReLU()(binary(x, channels, **options)))
    return tf.keras.Model(inputs, head(x))


@builder
def squeeze_excite(shape: Shape) -> tf.keras.Model:
    """A vector of the input scales the channels of what a binary convolution gives."""
    x = inputs = layers.Input(shape)
    x = layers.PReLU(shared_axes=[1, 2])(stem(x, 32))
    for channels in (32, 64):
        mean = layers.GlobalAveragePooling2D()(x)
        gate = layers.Dense(channels, activation="sigmoid")(
            layers.Dense(4, activation="relu")(mean)
        )
        y = layers.multiply([binary(x, channels), layers.Reshape((1, 1, channels))(gate)])
        y = layers.PReLU(shared_axes=[1, 2])(y)
        x = layers.add([x, y]) if channels == x.shape[-1] else y
    return tf.keras.Model(inputs, head(x))


@builder
def dense_and_pools(shape: Shape) -> tf.keras.Model:
    """Concatenations of maps, BatchNorm before signs, pools of either kind; ends in a sigmoid."""
    x = inputs = layers.Input(shape)
    x = stem(x, 32)
    for _ in range(3):
        y = layers.BatchNormalization()(x)
        y = larq.layers.QuantConv2D(32, 3, padding="same", **BINARY)(y)
        x = layers.concatenate([x, y])
    x = layers.MaxPool2D(2)(layers.ReLU()(layers.BatchNormalization()(x)))
    x = layers.BatchNormalization()(layers.Conv2D(48, 1, use_bias=False)(x))
    x = layers.AveragePooling2D(3, strides=2, padding="same")(layers.add([x, binary(x, 48)]))
    x = layers.GlobalMaxPool2D()(binary(x, 48))
    return tf.keras.Model(inputs, layers.Dense(4, activation="sigmoid")(x))


@builder
def pixels(shape: Shape) -> tf.keras.Model:
    """Takes pixels of 0 to 255 and scales them itself."""
    x = inputs = layers.Input(shape)
    x = layers.Rescaling(1 / 127.5, offset=-1.0)(x)
    x = stem(x, 32, 3, 2)
    x = layers.add([x, binary(x, 32)])
    x = layers.add([x, binary(x, 32)])
    return tf.keras.Model(inputs, head(x))
