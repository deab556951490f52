"""Networks from elsewhere, binarized: torchvision's by name, and a user's own factory.

``resnet18``, ``resnet34``, ``resnet50``, ``mobilenet_v2`` and ``vgg11_bn`` to ``vgg19_bn`` are
torchvision's, untrained. ``package.module:factory`` names a function that takes ``num_classes``
(and ``in_channels``, if it wants to) and returns an ordinary network; the current folder is
searched too. :func:`frostbit.pipeline.network.binarize.binarize` says what becomes of them.

With ``cifar_stem``, for small images: ResNets start with a 3x3 convolution of stride 1 and no
pooling, MobileNetV2 keeps the size of the map in its stem and first strided block, VGG ends in a
global average and one dense layer.
"""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from frostbit.pipeline.errors import UserError
from frostbit.pipeline.network.binary import BinaryConv2d, BinaryLinear, binarize, maskable

RESNETS = ("resnet18", "resnet34", "resnet50")
VGGS = ("vgg11_bn", "vgg13_bn", "vgg16_bn", "vgg19_bn")
NAMES = (*RESNETS, "mobilenet_v2", *VGGS)
VGG_SIZE = 224


def network(
    name: str,
    image: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    *,
    cifar_stem: bool = False,
    keep: Iterable[str] = (),
) -> nn.Module:
    """The binarized network ``name``: float pixels ``[N, C, H, W]`` -> logits.

    Args:
        name: one of :data:`NAMES` or ``package.module:factory``.
        image: ``(H, W, C)``.
        classes: number of logits.
        mean, std: per channel, of pixels / 255.
        cifar_stem: see the module's text.
        keep: name patterns of layers that stay in full precision.

    Raises:
        UserError: unknown network, a factory that fails, a module that has no binary form.
    """
    height, width, channels = image
    made = (
        _from_factory(name, classes, channels)
        if ":" in name
        else _from_torchvision(name, image, classes, cifar_stem)
    )
    example = torch.zeros(1, channels, height, width)
    model = binarize(made, example, mean=mean, std=std, keep=keep)
    for _, module in maskable(model):
        if isinstance(module, (BinaryConv2d, BinaryLinear)):
            nn.init.kaiming_normal_(module.weight)
            with torch.no_grad():
                module.weight.clamp_(-1, 1)
    return model


def _from_torchvision(
    name: str, image: tuple[int, int, int], classes: int, cifar_stem: bool
) -> nn.Module:
    import torchvision

    made: Any = getattr(torchvision.models, name)(weights=None, num_classes=classes)
    if name in RESNETS:
        if cifar_stem:
            made.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
            made.maxpool = nn.Identity()
        _take_channels(made, "conv1", image[2])
    elif name in VGGS:
        if cifar_stem:
            made.avgpool = nn.AdaptiveAvgPool2d(1)
            made.classifier = nn.Linear(512, classes)
        elif image[:2] == (VGG_SIZE, VGG_SIZE):
            made.avgpool = nn.Identity()  # its map has 7x7 there: the pool does nothing
        else:
            raise UserError(
                f"{name} needs images of {VGG_SIZE}x{VGG_SIZE}, not {image[0]}x{image[1]}; "
                "use --set cifar_stem=true for small ones"
            )
        _take_channels(made, "features.0", image[2])
    else:
        if cifar_stem:
            made.features[0][0].stride = (1, 1)
            made.features[2].conv[1][0].stride = (1, 1)
        _take_channels(made, "features.0.0", image[2])
    model: nn.Module = made
    return model


def _take_channels(model: nn.Module, name: str, channels: int) -> None:
    """Make the first convolution read ``channels`` channels."""
    old = model.get_submodule(name)
    if not isinstance(old, nn.Conv2d):
        raise TypeError(f"{name} is no convolution")
    if old.in_channels != channels:
        made = nn.Conv2d(
            channels,
            old.out_channels,
            (old.kernel_size[0], old.kernel_size[1]),
            (old.stride[0], old.stride[1]),
            (int(old.padding[0]), int(old.padding[1])),
            bias=old.bias is not None,
        )
        model.set_submodule(name, made)


def _from_factory(name: str, classes: int, channels: int) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    factory = _find(name, module_name, attribute)
    arguments = {"num_classes": classes}
    if "in_channels" in inspect.signature(factory).parameters:
        arguments["in_channels"] = channels
    try:
        made = factory(**arguments)
    except Exception as error:  # whatever the user's own code raises
        raise UserError(
            f"model '{name}': the factory failed ({type(error).__name__}: {error}); it is called "
            f"with {', '.join(arguments)}"
        ) from error
    if not isinstance(made, nn.Module):
        raise UserError(f"model '{name}' returned a {type(made).__name__}, not a torch nn.Module")
    return made


def _find(name: str, module_name: str, attribute: str) -> Callable[..., Any]:
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError) as error:
        raise UserError(f"model '{name}': cannot import it ({error}); check the path") from error
    finally:
        sys.path.remove(here)
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise UserError(f"model '{name}': {module_name} has no function '{attribute}'")
    found: Callable[..., Any] = factory
    return found
