"""What the reference says of pictures that the page makes anew: it compares itself with that.

The pictures are noise that Python and JavaScript compute from a pixel's number, so that the page
stores answers alone.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from frostbit.export.c.steps import words_for
from frostbit.export.parity import allowed
from frostbit.export.runtimes import Images, Logits
from frostbit.kernels.ir import bits, reference
from frostbit.kernels.ir.exact import analyse
from frostbit.kernels.ir.program import Preprocessing, Program
from frostbit.kernels.ir.verify import infer_types

SMALL, MANY, FEW = 64 * 64, 16, 4
"""Up to ``SMALL`` pixels an image ``MANY`` answers are stored, else ``FEW``."""


@dataclass(frozen=True)
class Answers:
    """Stored answers.

    Attributes:
        logits: float32 ``[N, classes]``.
        allowance: by how much they may differ, ``[N]``; 0 where nothing rounds.
        signs: CRC-32 of all signs of an image, packed as the C file keeps them, ``[N]``; empty for
            a network that is not exact or has none.
        sign_bits, sign_bytes: of one image; bytes as the C file keeps them.
    """

    logits: Logits
    allowance: NDArray[np.float64]
    signs: tuple[int, ...]
    sign_bits: int
    sign_bytes: int


def noise(shape: tuple[int, int, int], count: int) -> NDArray[np.uint8]:
    """Pictures ``[count, H, W, C]``; a pixel's number, mixed.

    Source: the finalizer of MurmurHash3 (public domain), after a multiplication by 2^32 / phi.
    """
    h = np.arange(count * int(np.prod(shape)), dtype=np.uint32) * np.uint32(0x9E3779B1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        h = (h ^ (h >> np.uint32(shift))) * np.uint32(factor)
    h ^= h >> np.uint32(16)
    return (h & np.uint32(255)).astype(np.uint8).reshape(count, *shape)


def as_given(pixels: NDArray[np.uint8], mapping: Preprocessing | None) -> Images:
    """``pixels`` as the network takes them."""
    return pixels if mapping is None else mapping.apply(pixels)


def answers(program: Program, mapping: Preprocessing | None) -> Answers:
    """The reference's answers on :func:`noise`; ``mapping`` makes floats of pixels."""
    height, width, _ = program.input_shape
    pixels = noise(program.input_shape, MANY if height * width <= SMALL else FEW)
    values = reference.trace(program, as_given(pixels, mapping))
    types = infer_types(program)
    names = [op.name for op in program.ops if types[op.name].kind == "bits"]
    counted = sum(int(np.prod(types[name].shape)) for name in names)
    kept = [_kept(values[name]) for name in names]
    signs = _checksums(kept) if analyse(program).body_exact else ()
    size = sum(words.shape[1] for words in kept) * 4
    logits = np.ascontiguousarray(values[program.ops[-1].name][:, 0, 0], np.float32)
    return Answers(logits, allowed(program, values), signs, counted, size)


def _kept(value: reference.Array) -> NDArray[np.uint32]:
    """A map of +-1 ``[N, H, W, C]`` as words ``[N, words]`` of 32 bits."""
    words = bits.pack(value).astype("<u8").view("<u4")
    return words[..., : words_for(value.shape[3])].reshape(len(value), -1)


def _checksums(kept: list[NDArray[np.uint32]]) -> tuple[int, ...]:
    """CRC-32 of each image's words."""
    if not kept:
        return ()
    return tuple(zlib.crc32(row.tobytes()) for row in np.concatenate(kept, axis=1))
