"""Padding around pixels with a number that is not 0, as part of the convolution that reads it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from frostbit.export.reading.graph import Conv, Graph, Node, Pad, Scale
from frostbit.kernels.ir.program import Window

LARGEST = 255
"""A pixel."""


def framed(nodes: tuple[Node, ...], graph: Graph) -> tuple[Node, ...]:
    """Convolutions of pixels less ``z``, padded with 0, plus ``z``: of pixels padded with ``z``.

    So our own files write it; and so padding with a number becomes on the way here.

    Args:
        nodes: constants of each ``Scale`` are ``[C]``.
        graph: they come from; nothing is done unless it takes pixels.
    """
    if graph.takes != "u8":
        return nodes
    by_name = {node.name: node for node in nodes}
    return tuple(_framed(node, by_name, graph.input) or node for node in nodes)


def _framed(node: Node, by_name: dict[str, Node], pixels: str) -> Conv | None:
    raised = by_name.get(node.inputs[0])
    if not isinstance(node, Conv) or not isinstance(raised, Scale) or any(node.window.pads):
        return None
    padded = by_name.get(raised.inputs[0])
    if not isinstance(padded, Pad) or padded.value or any(padded.channels):
        return None
    lowered = by_name.get(padded.inputs[0])
    if not isinstance(lowered, Scale) or lowered.inputs != (pixels,):
        return None
    plain = (raised.mul == 1).all() and (lowered.mul == 1).all()
    frame = raised.add
    is_pixel = (frame == np.clip(np.rint(frame), 0, LARGEST)).all()
    if not (plain and is_pixel and (lowered.add == -frame).all()):
        return None
    window: Window = replace(node.window, pads=padded.pads)
    return replace(node, inputs=(pixels,), window=window, frame=frame.astype(np.uint8))
