"""Builders of small random Programs whose every float32 value is an exact small dyadic number."""

from __future__ import annotations

from typing import Any

import numpy as np

from frostbit.kernels.ir import bits
from frostbit.kernels.ir.program import (
    INPUT,
    Add,
    Affine,
    BinaryConv,
    Conv,
    Dense,
    GlobalSum,
    Op,
    Program,
    Sign,
    Threshold,
    ValueType,
    Window,
)
from frostbit.kernels.ir.verify import infer_types

LOGITS = 5


class Net:
    """Grows a Program op by op; :meth:`watch` makes a value visible in signs and logits."""

    def __init__(self, seed: int, height: int, width: int, channels: int = 2) -> None:
        self.rng = np.random.default_rng(seed)
        self.input_shape = (height, width, channels)
        self.ops: list[Op] = []
        self.total = ""

    def put(self, kind: type[Op], *inputs: str, **fields: Any) -> str:
        """Append an op under a fresh name and return the name."""
        name = f"{kind.__name__}{len(self.ops)}"
        self.ops.append(kind(name, inputs, **fields))
        return name

    def type(self, name: str) -> ValueType:
        """Kind and shape of a value so far."""
        closed = Program(self.input_shape, (*self.ops, self._end()), "", ("",) * LOGITS)
        return infer_types(closed)[name]

    def signs(self, *shape: int) -> Any:
        return np.where(self.rng.random(shape) < 0.5, -1, 1).astype(np.int8)

    def small(self, *shape: int, step: float = 1.0) -> Any:
        return (self.rng.integers(-7, 8, shape) * step).astype(np.float32)

    def pixels(self, count: int) -> Any:
        return self.rng.integers(0, 256, (count, *self.input_shape), dtype=np.uint8)

    def conv(
        self, source: str, channels: int, window: Window, pad_value: Any = None, groups: int = 1
    ) -> str:
        """A full-precision convolution to ``channels``, centred so that both signs occur."""
        depth = self.input_shape[2] if source == INPUT else self.type(source).shape[2]
        weights = self.small(channels, *window.kernel, depth // groups)
        middle = weights.sum(axis=(1, 2, 3)) * (127 if source == INPUT else 0)
        pads = np.zeros(depth, np.uint8) if pad_value is None else pad_value
        return self.put(
            Conv,
            source,
            window=window,
            weights=weights,
            add=-middle,
            pad_value=pads,
            groups=groups,
        )

    def stem(self, channels: int) -> str:
        """Random bits of the input's size."""
        return self.put(Sign, self.conv(INPUT, channels, Window((1, 1))))

    def binary(
        self,
        source: str,
        channels: int,
        window: Window,
        pad_value: int,
        to_bits: bool,
        groups: int = 1,
    ) -> str:
        """A binary convolution of ``source`` to ``channels``."""
        depth = self.type(source).shape[2] // groups
        epilogue: Threshold | Affine
        if to_bits:
            taps = window.kernel[0] * window.kernel[1] * depth
            spread = min(taps, max(2, taps // 8))
            epilogue = Threshold(self.rng.integers(-spread, spread, channels).astype(np.int32))
        else:
            epilogue = Affine(self.small(channels, step=0.25), self.small(channels, step=0.5))
        return self.put(
            BinaryConv,
            source,
            window=window,
            words=bits.pack(self.signs(channels, *window.kernel, depth)),
            channels_in=depth,
            groups=groups,
            pad_value=pad_value,
            epilogue=epilogue,
        )

    def watch(self, source: str) -> None:
        """Add a value's map sums to the logits; of a float map, take the signs as well."""
        value = self.type(source)
        if value.kind == "f32":
            self.put(Sign, source)
        pooled = self.put(GlobalSum, source)
        share = self.put(
            Dense,
            pooled,
            weights=self.small(LOGITS, value.shape[2]),
            add=np.zeros(LOGITS, np.float32),
        )
        self.total = self.put(Add, self.total, share) if self.total else share

    def _end(self) -> Op:
        """An op that closes the Program for type inference, whatever came before."""
        depth = self.input_shape[2]
        window = Window(self.input_shape[:2])
        weights = np.zeros((LOGITS, *window.kernel, depth), np.float32)
        zeros = np.zeros(LOGITS, np.float32)
        return Conv("end", (INPUT,), window, weights, zeros, np.zeros(depth, np.uint8))

    def program(self) -> Program:
        """The Program whose logits are the sum over everything watched."""
        identity, zeros = np.eye(LOGITS, dtype=np.float32), np.zeros(LOGITS, np.float32)
        self.put(Dense, self.total, weights=identity, add=zeros)
        names = tuple(f"class {i}" for i in range(LOGITS))
        return Program(self.input_shape, tuple(self.ops), "", names)
